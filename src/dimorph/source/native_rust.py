"""The Rust file of a package: the C functions, and safe functions around them."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph.source.native_headers import results
from dimorph.source.native_signature import Argument, Result, Signature

_TYPES = {
    "double": "f64",
    "float": "f32",
    "bool": "bool",
    "const char*": "*const c_char",
    "char*": "*mut c_char",
    "DLDataType": "DataType",
    "DLDevice": "Device",
    "const DLTensor*": "*const DLTensor",
    "DLTensor*": "*mut DLTensor",
    "DLManagedTensor*": "*mut DLManagedTensor",
    **{f"{sign}int{bits}_t": f"{sign or 'i'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# Rust's keywords that are names in C++.
# fmt: off
_KEYWORDS = frozenset((
    "as", "dyn", "fn", "gen", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref",
    "trait", "type", "unsafe", "unsized", "use", "where", "yield", "abstract", "become", "box", "final",
    "macro", "override", "priv",
))
# fmt: on


def rust_source(package: str, functions: Sequence[Signature], tensors: str) -> str:
    """Return the text of `<package>.rs`.

    Args:
        package: the name of the package.
        functions: the exported functions of its kernels.
        tensors: the Rust text about tensors and errors, which is the same for every package.
    """
    lines = [
        f"// {package}.rs: the functions of the package; generated. Link the library {package}.",
        "#![allow(dead_code, unused_imports, clippy::all)]",
        "use std::ffi::{c_char, c_int, c_void, CStr};",
        "use std::ptr;",
        "",
        "// Where a function of the package has the same name, that one is meant.",
        "pub use self::support::*;",
        "",
        "mod support {",
        *(f"    {line}".rstrip() for line in tensors.splitlines()),
        "}",
        "",
        "mod ffi {",
        "    use super::*;",
        f'    #[link(name = "{package}")]',
        '    unsafe extern "C" {',
        f"        pub fn {package}_last_error() -> *const c_char;",
        f"        pub fn {package}_level() -> *const c_char;",
        f"        pub fn {package}_set_stream(stream: *mut c_void);",
        *(f"        {_declared(package, function)}" for function in functions),
        "    }",
        '    unsafe extern "C" {',
        "        pub fn free(memory: *mut c_void);",
        "    }",
        "}",
        "",
        "/// The target level that this CPU gets; None if it runs none that was built.",
        "pub fn level() -> Option<&'static str> {",
        f"    let level = unsafe {{ ffi::{package}_level() }};",
        "    if level.is_null() { None } else { unsafe { CStr::from_ptr(level) }.to_str().ok() }",
        "}",
        "",
        "/// Sets the CUDA stream that kernels called by this thread run on; null: the default stream.",
        "///",
        "/// # Safety",
        "/// The handle must be one of a stream, and stay valid until another is set.",
        "pub unsafe fn set_stream(stream: *mut c_void) {",
        f"    unsafe {{ ffi::{package}_set_stream(stream) }}",
        "}",
        "",
    ]
    for function in functions:
        lines += _function(package, function)
    return "\n".join(lines)


def _name(name: str) -> str:
    return f"r#{name}" if name in _KEYWORDS else name


def _declared(package: str, function: Signature) -> str:
    given = [f"{_name(argument.name)}: {_c_type(argument)}" for argument in function.arguments]
    for result, name in results(function):
        given.append(f"{name}: *mut {_TYPES[result.c]}")
        if result.optional:
            given.append(f"has_{name}: *mut bool")
    return f"pub fn {package}_{function.name}({', '.join(given)}) -> c_int;"


def _c_type(argument: Argument) -> str:
    typed = _TYPES[argument.c]
    return f"*const {typed}" if argument.optional and not argument.is_pointer else typed


def _function(package: str, function: Signature) -> list[str]:
    declared, passed, taken, types = [], [], [], []
    for argument in function.arguments:
        if argument.c.endswith("DLTensor*"):
            declared.append(_described(argument))
        passed.append(_passed(argument))
    for result, name in results(function):
        declared.append(f"    let mut {name} = {_initial(result)};")
        passed.append(f"&mut {name}")
        if result.optional:
            declared.append(f"    let mut has_{name} = false;")
            passed.append(f"&mut has_{name}")
        types.append(_result_type(result))
        taken.append(_taken(result, name))
    given = ", ".join(f"{_name(argument.name)}: {_type(argument)}" for argument in function.arguments)
    joined = types[0] if len(types) == 1 else f"({', '.join(types)})"
    returned = taken[0] if len(taken) == 1 else f"({', '.join(taken)})"
    return [
        f"/// `{function.text}`",
        f"pub fn {_name(function.name)}({given}) -> Result<{joined}, Error> {{",
        *declared,
        f"    let code_ = unsafe {{ ffi::{package}_{function.name}({', '.join(passed)}) }};",
        f"    support::outcome(code_, unsafe {{ ffi::{package}_last_error() }})?;",
        f"    Ok({returned})",
        "}",
        "",
    ]


def _type(argument: Argument) -> str:
    typed = {"const DLTensor*": "&Tensor", "DLTensor*": "&mut TensorMut", "const char*": "&CStr"}.get(argument.c)
    typed = typed or _TYPES[argument.c]
    return f"Option<{typed}>" if argument.optional else typed


def _described(argument: Argument) -> str:
    name = _name(argument.name)
    mutable = "mut " if argument.c == "DLTensor*" else ""
    value = f"{name}.map(|tensor| tensor.dl())" if argument.optional else f"{name}.dl()"
    return f"    let {mutable}{name} = {value};"


def _passed(argument: Argument) -> str:
    name = _name(argument.name)
    if argument.c == "DLTensor*":
        return f"{name}.as_mut().map_or(ptr::null_mut(), |dl| dl as _)" if argument.optional else f"&mut {name}"
    if argument.c == "const char*":
        return f"{name}.map_or(ptr::null(), |text| text.as_ptr())" if argument.optional else f"{name}.as_ptr()"
    if argument.optional:
        return f"{name}.as_ref().map_or(ptr::null(), |value| value as _)"
    return f"&{name}" if argument.is_pointer else name


def _initial(result: Result) -> str:
    return "ptr::null_mut()" if result.c.endswith("*") else f"<{_TYPES[result.c]}>::default()"


def _result_type(result: Result) -> str:
    typed = {"char*": "String", "DLManagedTensor*": "OwnedTensor"}.get(result.c)
    return f"Option<{typed or _TYPES[result.c]}>" if typed or result.optional else _TYPES[result.c]


def _taken(result: Result, name: str) -> str:
    if result.c == "char*":
        return f"unsafe {{ support::text_of({name}) }}"
    if result.c == "DLManagedTensor*":
        return f"support::tensor_of({name})"
    return f"has_{name}.then_some({name})" if result.optional else name
