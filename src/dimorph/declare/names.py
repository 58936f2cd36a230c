"""Checks of the names in a declaration, and the place of the declaration that an error names."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from keyword import iskeyword
from typing import ParamSpec, TypeVar

from dimorph.errors import DeclarationError

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class
co_await co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype
default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline
int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast requires return short signed sizeof static static_assert static_cast struct switch template
this thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t
while xor xor_eq
"""
# Names that entries and cases have without a namespace.
_OURS = """
dimorph std half bfloat16 Tensor ConstTensor Optional Extra int8_t int16_t int32_t int64_t uint8_t uint16_t
uint32_t uint64_t size_t main
"""
_TAKEN = {**dict.fromkeys(_KEYWORDS.split(), "a keyword of C++"), **dict.fromkeys(_OURS.split(), "a name of Dimorph's")}
_RESERVED = ("DIMORPH_", "_DIMORPH_", "DISPATCH_", "_DISPATCH_", "ADDITIONAL_", "dimorph_", "__")

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def cpp_name_problem(name: object) -> str:
    """Return why a name cannot be one of the author's names in C++; empty if it can."""
    if not isinstance(name, str):
        return f"expected a name as a str, got {name!r}"
    if not IDENTIFIER.match(name):
        return f"{name!r} is not a C++ identifier: use letters, digits and _"
    reserved = name.startswith(_RESERVED) or (name[0] == "_" and name[1:2].isupper())
    taken = _TAKEN.get(name) or ("reserved for the language and for Dimorph" if reserved else "")
    return f"{name!r} is {taken}: choose another name" if taken else ""


def python_name_problem(name: object) -> str:
    """Return why a name cannot be that of an argument in Python and a part of names in C++; empty if it can."""
    if not isinstance(name, str):
        return f"expected a name as a str, got {name!r}"
    if not IDENTIFIER.match(name):
        return f"{name!r} is not a C++ identifier: use letters, digits and _"
    return f"{name!r} is a keyword of Python: choose another name" if iskeyword(name) else ""


def placed(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let the errors of a declaration begin with the file and line that declares."""

    @wraps(function)
    def declared(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except DeclarationError as error:
            raise DeclarationError(f"{declaring_place()}: {error}") from None

    return declared


def declaring_place() -> str:
    """Return `file:line` of the innermost statement outside of the code that declares."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("dimorph.declare."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
