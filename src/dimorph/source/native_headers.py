"""The headers of a package for programs without Python: one in C for all kernels, and one in C++ for each kernel."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph.source.native_signature import Argument, Result, Signature


def c_header(package: str, signatures: Sequence[Signature]) -> str:
    """Return the text of `<package>.h`."""
    lines = [
        f"/* {package}.h: the C functions of the package; generated.",
        " * Each returns DIMORPH_OK or another dimorph_status. Pointers to optional arguments may be null. Results are",
        " * written through the last pointers; the caller frees texts with free(), and tensors with their deleter. */",
        "#pragma once",
        "#include <dlpack/dlpack.h>",
        "#include <stdbool.h>",
        "#include <stdint.h>",
        "",
        f'#include "{package}/dimorph/status.h"',
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* The message of the last error of this thread. */",
        f"const char* {package}_last_error(void);",
        "/* The target level that this CPU gets; null, with an error, if it runs none that was built. */",
        f"const char* {package}_level(void);",
        "/* The CUDA stream that kernels called by this thread run on; null: the default stream. */",
        f"void {package}_set_stream(void* stream);",
        "/* Calls `build` for a value that the package lacks. It returns the directory of a package of the same name",
        " * whose kernel has the value, a text that is valid until the thread calls it again; null: there is none. */",
        f"void {package}_on_missing(const char* (*build)(const char* kernel, const char* axis, const char* value,",
        f"{' ' * len(package)}                         void* context), void* context);",
        "/* Such a function: runs `dimorph build`, which must be on PATH, into a directory below `context`, a path. */",
        f"const char* {package}_build_missing(const char* kernel, const char* axis, const char* value, void* context);",
        "",
    ]
    for one in signatures:
        lines += [f"/* {one.text} */", f"{c_prototype(package, one)};", ""]
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", ""])


def c_prototype(package: str, function: Signature) -> str:
    """Return the declaration of a function of the C face, without its semicolon."""
    given = [f"{_c_type(argument)} {argument.name}" for argument in function.arguments]
    taken = []
    for result, name in results(function):
        taken += [f"{result.c}* {name}", *([f"bool* has_{name}"] if result.optional else [])]
    return f"int {package}_{function.name}({', '.join([*given, *taken]) or 'void'})"


def results(function: Signature) -> list[tuple[Result, str]]:
    """Return the results of a function, each with the name of the pointer through which the C function writes it."""
    taken = any(argument.name.startswith("result") for argument in function.arguments)
    base = "result_" if taken else "result"
    several = len(function.results) > 1
    return [(result, f"{base}{i}" if several else base) for i, result in enumerate(function.results)]


def cpp_header(package: str, kernel: str, functions: Sequence[Signature]) -> str:
    """Return the text of `<package>/<kernel>.h`."""
    lines = [
        f"// {kernel}.h: kernel {kernel} of the package; generated. Each function stands here twice: one throws",
        "// dimorph::Error, the other leaves the outcome in its last argument.",
        "#pragma once",
        "#include <optional>",
        "#include <string>",
        "#include <tuple>",
        "",
        f'#include "../{package}.h"',
        '#include "dimorph/views.h"',
        "",
        f"namespace {package} {{",
        "",
    ]
    for one in functions:
        lines += _cpp_functions(package, one)
    return "\n".join([*lines, f"}}  // namespace {package}", ""])


def _cpp_functions(package: str, function: Signature) -> list[str]:
    declared, written, taken, types = [], [], [], []
    for result, name in results(function):
        declared.append(f"  {result.c} {name}{{}};")
        written.append(f"&{name}")
        if result.optional:
            declared.append(f"  bool has_{name} = false;")
            written.append(f"&has_{name}")
        typed = _CPP_RESULTS.get(result.c, result.c)
        types.append(f"std::optional<{typed}>" if result.optional else typed)
        taken.append(_cpp_taken(result, name, types[-1]))
    called = f"{package}_{function.name}({', '.join([*map(_cpp_passed, function.arguments), *written])})"
    kind = types[0] if len(types) == 1 else f"std::tuple<{', '.join(types)}>" if types else "void"
    returned = [f"  return {taken[0]};"] if len(taken) == 1 else [f"  return {{{', '.join(taken)}}};"] if taken else []
    plain = [_cpp_parameter(argument) for argument in function.arguments]
    defaults = list(plain)
    for at in range(len(plain) - 1, -1, -1):
        if not function.arguments[at].optional:
            break
        defaults[at] += " = nullptr" if function.arguments[at].c == "const char*" else " = std::nullopt"
    return [
        f"// {function.text}",
        f"inline {kind} {function.name}({', '.join(defaults)}) {{",
        *declared,
        f"  if (const int code_ = {called}) throw ::dimorph::Error(code_, {package}_last_error());",
        *returned,
        "}",
        f"inline {kind} {function.name}({', '.join([*plain, '::dimorph::Status& status_'])}) {{",
        *declared,
        f"  status_.code = {called};",
        f"  if (!status_.ok()) status_.text = {package}_last_error();",
        *returned,
        "}",
        "",
    ]


_VIEWS = {"const DLTensor*": "::dimorph::ConstTensorView", "DLTensor*": "::dimorph::TensorView"}
_CPP_RESULTS = {"char*": "std::string", "DLManagedTensor*": "::dimorph::OwnedTensor"}


def _c_type(argument: Argument) -> str:
    return f"const {argument.c}*" if argument.optional and not argument.is_pointer else argument.c


def _cpp_parameter(argument: Argument) -> str:
    typed = _VIEWS.get(argument.c, argument.c)
    if argument.optional and argument.c != "const char*":
        return f"const std::optional<{typed}>& {argument.name}"
    return f"const {typed}& {argument.name}" if argument.c in _VIEWS else f"{typed} {argument.name}"


def _cpp_passed(argument: Argument) -> str:
    name = argument.name
    if argument.c in _VIEWS:
        return f"{name} ? {name}->dl() : nullptr" if argument.optional else f"{name}.dl()"
    return f"{name} ? &*{name} : nullptr" if argument.optional and argument.c != "const char*" else name


def _cpp_taken(result: Result, name: str, typed: str) -> str:
    if result.optional:
        return f"has_{name} ? {typed}({name}) : std::nullopt"
    if result.c == "char*":
        return f"::dimorph::taken({name})"
    return f"::dimorph::OwnedTensor({name})" if result.c == "DLManagedTensor*" else name
