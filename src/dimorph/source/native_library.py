"""The source of a package's library: the tables of its kernels, and the functions that C programs call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dimorph.declare.instantiations import InstantiationSet
from dimorph.source.native_headers import c_prototype, result_names
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
    command: str,
    levels: Sequence[tuple[str, Sequence[str]]],
    kernels: Sequence[NativeKernel],
) -> str:
    """Return the source of the package's library.

    Args:
        package: the name of the package.
        prefix: six letters that replace `TVMFFI` in the names of the functions that the objects take.
        command: the command that builds the package, for messages.
        levels: the target levels, best first, each with the features that the CPU must have.
        kernels: the kernels.
    """
    rows = [f"    {{{_text(name)}, {_text(_spaced(needs))}}}," for name, needs in levels]
    lines = [
        f"// {package}.cc: the library of the package; generated.",
        f"#define DIMORPH_FFI(name) {prefix}##name",
        "#include <dimorph/native/runtime.h>",
        "",
        "using namespace dimorph::native;",
        "",
        f"static const Level kLevels[] = {{\n{chr(10).join(rows)}\n}};",
        f"dimorph::native::Package dimorph::native::package = {{{_text(package)}, kLevels, {len(rows)}, {{}}, {{}}, "
        "nullptr, nullptr};",
        f"static const char kCommand[] = {_text(command)};",
        "",
    ]
    for kernel in kernels:
        lines += _tables(kernel)
    lines += [
        'extern "C" {',
        "",
        f"DIMORPH_VISIBLE const char* {package}_last_error() {{ return last_error().text; }}",
        f"DIMORPH_VISIBLE void {package}_set_stream(void* stream) {{ current_stream() = stream; }}",
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
    lines += [f"static const char* const {axis}[] = {{{', '.join(map(_text, texts))}}};" for axis, texts in held]
    axes = [f"{{{_text(axis)}, {axis}, {len(texts)}}}" for axis, texts in held]
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
        "extern Kernel kernel;",
        f"Kernel kernel = {{{_text(name)}, kCommand, kAxes, {len(axes)}, kCases, {len(cases)}, {places}, "
        f"{str(kernel.parallel).lower()}, kFunctions, {len(functions)}, resolve_for<kernel>, targets, handles}};",
        f"}}  // namespace {name}_tables",
        "",
    ]
    return lines


def _values(kernel: NativeKernel, axis: str) -> list[str]:
    return kernel.instantiations.texts()[axis]


def _c_function(package: str, kernel: str, index: int, function: Signature) -> list[str]:
    given = [_any(argument) for argument in function.arguments]
    names = result_names(function)
    lines = [
        f"DIMORPH_VISIBLE {c_prototype(package, function)} {{",
        f"  const TVMFFIAny args[] = {{{', '.join(given) or 'any(kTVMFFINone)'}}};",
        "  TVMFFIAny got{};",
        f"  const int status = call({kernel}_tables::kernel, {index}, args, {len(given)}, &got);",
    ]
    if names:
        lines.append("  if (status != DIMORPH_OK) return status;")
    if len(names) == 1:
        lines.append("  take(got, result);")
    else:
        lines += [f"  take(item(got, {i}), {name});" for i, name in enumerate(names)]
    if names:
        lines.append("  drop(got);")
    return [*lines, "  return status;", "}", ""]


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
