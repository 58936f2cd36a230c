"""The source of a package's library: the tables of its kernels, and the functions that C programs call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dimorph.declare.instantiations import InstantiationSet
from dimorph.source.native_headers import c_prototype, results
from dimorph.source.native_signature import Argument, Signature

_ANY = {
    "double": "any_float",
    "float": "any_float",
    "bool": "any_bool",
    "const char*": "any_text",
    "DLDataType": "any_dtype",
    "DLDevice": "any_device",
    "const DLTensor*": "any_tensor",
    "DLTensor*": "any_tensor",
}


@dataclass(frozen=True)
class NativeKernel:
    """A kernel in a package.

    Attributes:
        instantiations: the set that was built.
        functions: the exported functions.
        cases: for each slot, the name of the case's files and the architectures of its device code, best first; None
            for a combination that was not built.
        parallel: True if a case uses the thread pool.
    """

    instantiations: InstantiationSet
    functions: tuple[Signature, ...]
    cases: tuple[tuple[str, tuple[str, ...]] | None, ...]
    parallel: bool

    @property
    def name(self) -> str:
        return self.instantiations.kernel.name


def library_source(
    package: str,
    prefix: str,
    spec: str,
    command: str,
    levels: Sequence[tuple[str, Sequence[str]]],
    kernels: Sequence[NativeKernel],
) -> str:
    """Return the source of the package's library.

    Args:
        package: the name of the package.
        prefix: six letters that replace `TVMFFI` in the names of the functions that the objects take.
        spec: what `dimorph build` calls the module or file that declares the kernels.
        command: the command that builds the package, for messages.
        levels: the target levels, best first, each with the features that the CPU must have.
        kernels: the kernels.
    """
    rows = [f"    {{{_text(name)}, {_text(_spaced(needs))}}}," for name, needs in levels]
    lines = [
        f"// {package}.cc: the library of the package; generated.",
        f"#define DIMORPH_FFI(name) {prefix}##name",
        "#include <dimorph/native/wider.h>",
        "",
        "using namespace dimorph::native;",
        "",
        f"static const Level kLevels[] = {{\n{chr(10).join(rows)}\n}};",
        f"dimorph::native::Package dimorph::native::package = {{{_text(package)}, kLevels, {len(rows)}, {{}}, {{}}, "
        "nullptr, nullptr};",
        f"static const char kSpec[] = {_text(spec)};",
        f"static const char kCommand[] = {_text(command)};",
        "",
    ]
    for kernel in kernels:
        lines += _tables(kernel)
    lines += [
        f"static Kernel* const kKernels[] = {{{', '.join(f'&{kernel.name}_tables::kernel' for kernel in kernels)}}};",
        "",
        'extern "C" {',
        "",
        f"DIMORPH_VISIBLE const Target* const* {package}_dimorph_serve_1(const Shared* shared, const Kernel* lacking, "
        "const char* axis, const char* value, bool* all) {",
        f"  return serve(kKernels, {len(kernels)}, shared, lacking, axis, value, all);",
        "}",
        f"DIMORPH_VISIBLE void {package}_on_missing(BuildMissing build, void* context) {{",
        "  builder() = Builder{build, context};",
        "}",
        f"DIMORPH_VISIBLE const char* {package}_build_missing(const char* kernel, const char* axis, const char* value, "
        "void* context) {",
        f"  return build_missing(kKernels, {len(kernels)}, kernel, axis, value, static_cast<const char*>(context));",
        "}",
        f"DIMORPH_VISIBLE const char* {package}_last_error() {{ return this_thread().text; }}",
        f"DIMORPH_VISIBLE void {package}_set_stream(void* stream) {{ this_thread().stream = stream; }}",
        f"DIMORPH_VISIBLE const char* {package}_level() {{",
        "  Locked locked;",
        "  const Level* chosen = level();",
        "  return chosen ? chosen->name : nullptr;",
        "}",
        "",
    ]
    for kernel in kernels:
        for index, function in enumerate(kernel.functions):
            lines += _c_function(package, kernel.name, index, function)
    return "\n".join([*lines, '}  // extern "C"', ""])


def _tables(kernel: NativeKernel) -> list[str]:
    name = kernel.name
    held = [(axis.name, texts) for axis in kernel.instantiations.kernel.axes if (texts := _values(kernel, axis.name))]
    lines = [f"namespace {name}_tables {{"]
    lines += [f"static const char* const axis_{axis}[] = {{{', '.join(map(_text, texts))}}};" for axis, texts in held]
    axes = [f"{{{_text(axis)}, axis_{axis}, {len(texts)}}}" for axis, texts in held]
    cases = [
        f"    {{{_text(case[0])}, {_text(_spaced(case[1]))}}}," if case else "    {nullptr, nullptr},"
        for case in kernel.cases
    ]
    functions = [_text(one.name) for one in kernel.functions]
    places = len(kernel.cases) * len(kernel.instantiations.kernel.functions)
    lines += [
        f"static const Axis kAxes[] = {{{', '.join(axes) or '{}'}}};",
        f"static const Case kCases[] = {{\n{chr(10).join(cases)}\n}};",
        f"static const char* const kFunctions[] = {{{', '.join(functions)}}};",
        f"static const Target* targets[{len(functions)}];",
        f"static void* handles[{len(cases)}];",
        "static WiderKernel* wider;",
        "extern Kernel kernel;",
        f"Kernel kernel = {{{_text(name)}, kSpec, kCommand, kAxes, {len(axes)}, kCases, {len(cases)}, {places}, "
        f"{str(kernel.parallel).lower()}, kFunctions, {len(functions)}, resolve_for<kernel>, targets, handles, "
        "&wider};",
        f"}}  // namespace {name}_tables",
        "",
    ]
    return lines


def _values(kernel: NativeKernel, axis: str) -> list[str]:
    return kernel.instantiations.texts()[axis]


def _c_function(package: str, kernel: str, index: int, function: Signature) -> list[str]:
    given = [_any(argument) for argument in function.arguments]
    named = results(function)
    lines = [
        f"DIMORPH_VISIBLE {c_prototype(package, function)} {{",
        f"  const TVMFFIAny args_[] = {{{', '.join(given) or 'any(kTVMFFINone)'}}};",
        "  TVMFFIAny got_{};",
        f"  const int status_ = call({kernel}_tables::kernel, {index}, args_, {len(given)}, &got_);",
    ]
    if named:
        lines.append("  if (status_ != DIMORPH_OK) return status_;")
    for i, (result, name) in enumerate(named):
        got = f"item(got_, {i})" if len(named) > 1 else "got_"
        lines.append(f"  take({got}, {name}{f', has_{name}' if result.optional else ''});")
    if named:
        lines.append("  drop(got_);")
    return [*lines, "  return status_;", "}", ""]


def _any(argument: Argument) -> str:
    maker = _ANY.get(argument.c, "any_int")
    if argument.optional and not argument.is_pointer:
        return f"{argument.name} ? {maker}(*{argument.name}) : any(kTVMFFINone)"
    return f"{maker}({argument.name})"


def _spaced(words: Sequence[str]) -> str:
    """Return words, each followed by a blank."""
    return "".join(f"{word} " for word in words)


def _text(text: str) -> str:
    """Return a C++ literal."""
    return json.dumps(text, ensure_ascii=False)
