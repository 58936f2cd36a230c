"""The headers of a package for programs without Python: one in C for all kernels, and one in C++ for each kernel."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph.source.native_signature import Argument, Signature


def c_header(package: str, signatures: Sequence[Signature]) -> str:
    """Return the text of `<package>.h`."""
    guard = f"{package.upper()}_H"
    lines = [
        f"/* {package}.h: the C functions of the package; generated.",
        " * Each returns DIMORPH_OK or another dimorph_status. Pointers to optional arguments may be null. Results are",
        " * written through the last pointers; the caller frees texts with free(), and tensors with their deleter. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
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
        "",
    ]
    for one in signatures:
        lines += [f"/* {one.text} */", f"{c_prototype(package, one)};", ""]
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])


def c_prototype(package: str, function: Signature) -> str:
    """Return the declaration of a function of the C face, without its semicolon."""
    given = [f"{_c_type(argument)} {argument.name}" for argument in function.arguments]
    taken = [f"{c}* {name}" for c, name in zip(function.results, result_names(function), strict=True)]
    return f"int {package}_{function.name}({', '.join([*given, *taken]) or 'void'})"


def result_names(function: Signature) -> list[str]:
    """Return the names of the pointers through which a function of the C face writes its results."""
    count = len(function.results)
    return ["result"] * count if count < 2 else [f"result{i}" for i in range(count)]


def cpp_header(package: str, kernel: str, functions: Sequence[Signature]) -> str:
    """Return the text of `<package>/<kernel>.h`."""
    guard = f"{package}_{kernel}_H".upper()
    lines = [
        f"// {kernel}.h: kernel {kernel} of the package; generated. Each function stands here twice: one throws",
        "// dimorph::Error, the other leaves the outcome in its last argument.",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <cstdlib>",
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
    return "\n".join([*lines, f"}}  // namespace {package}", "", "#endif", ""])


def _cpp_functions(package: str, function: Signature) -> list[str]:
    names = result_names(function)
    arguments = [_cpp_passed(argument) for argument in function.arguments]
    called = f"{package}_{function.name}({', '.join([*arguments, *(f'&{name}' for name in names)])})"
    declared = [f"  {c} {name}{{}};" for c, name in zip(function.results, names, strict=True)]
    taken = [_cpp_taken(c, name) for c, name in zip(function.results, names, strict=True)]
    types = [_CPP_RESULTS.get(c, c) for c in function.results]
    result = types[0] if len(types) == 1 else f"std::tuple<{', '.join(types)}>" if types else "void"
    returned = [f"  return {taken[0]};"] if len(taken) == 1 else [f"  return {{{', '.join(taken)}}};"] if taken else []
    plain = [_cpp_parameter(argument) for argument in function.arguments]
    defaults = list(plain)
    for at in range(len(plain) - 1, -1, -1):
        if not function.arguments[at].optional:
            break
        defaults[at] += " = nullptr" if function.arguments[at].c == "const char*" else " = std::nullopt"
    return [
        f"// {function.text}",
        f"inline {result} {function.name}({', '.join(defaults)}) {{",
        *declared,
        f"  if (const int code = {called}) throw ::dimorph::Error(code, {package}_last_error());",
        *returned,
        "}",
        f"inline {result} {function.name}({', '.join([*plain, '::dimorph::Status& status'])}) {{",
        *declared,
        f"  status.code = {called};",
        f"  if (!status.ok()) status.text = {package}_last_error();",
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


def _cpp_taken(c: str, name: str) -> str:
    if c == "char*":
        return f"::dimorph::taken({name})"
    return f"::dimorph::OwnedTensor({name})" if c == "DLManagedTensor*" else name
