"""Explain mistakes in expressions: values of DISPATCH_ macros, and elements of tensors and views."""

from __future__ import annotations

import re

from dimorph.declare.axis import Axis
from dimorph.resolve.author import Author, Lesson
from dimorph.source.cpp_text import line_of, macro_arguments
from dimorph.toolchain.diagnostics import Place
from dimorph.toolchain.findings import Finding

_TENSORS = ("Tensor", "ConstTensor")
# Kind of an axis -> the types of its values, what they are, and an expression of one.
_VALUES = {
    "dtype": (("DataType",), "a dtype", "x.dtype()"),
    "variant": (("Str",), "the name of a variant", "a parameter of type dimorph::Str"),
    "int": (("int", "Size"), "an integer", "x.size(0)"),
    "tuple": (("int", "Size"), "integers", "x.size(0)"),
    "flag": (("int", "bool"), "a bool", "a parameter of type bool"),
}
# A declaration of a variable, behind which its name stands.
_DECLARED = (
    r"\b(?:dimorph::)?(Tensor|ConstTensor|DataType|Str|Size|"
    r"(?:unsigned |long |short )*(?:u?int(?:8|16|32|64)_t|int|long|short|size_t|float|double)|bool)\s*&?\s*"
)
# The words of GCC and of clang; a column is that of the bracket.
_NO_BRACKET = re.compile(r"operator\[\]'.*'(?:const )?(?:dimorph::)?(View|Tensor|ConstTensor)\b")
_NO_BRACKET_CLANG = re.compile(
    r"'(?:const )?(?:dimorph::)?(View|Tensor|ConstTensor)\b.*not provide a (?:subscript|call)"
)
_NO_CALL = re.compile(r"no match for call to '\((?:const )?dimorph::(Tensor|ConstTensor)\)")
_WRITTEN = re.compile(r"read-only location '(\w+)\.dimorph::View<const |'operator\(\)(?:<.*>)?' returns a const value")


def dispatch_value(finding: Finding, author: Author) -> Lesson | None:
    """Explain a DISPATCH_ over something of another kind than the values of its axis."""
    code = author.code(author.main) if author.unit.kind == "entry" else ""
    for axis in author.unit.kernel.axes:
        for match in re.finditer(rf"\bDISPATCH_{axis.name}\s*(\()", code):
            place = Place(author.main, line_of(code, match.start()))
            for value in macro_arguments(code, match.start(1))[: len(axis.binds)]:
                if lesson := _value(axis, value, _type_of(value, code[: match.start()]), place):
                    return lesson
    return None


def _value(axis: Axis, value: str, type_name: str, place: Place) -> Lesson | None:
    admitted, what, example = _VALUES.get(axis.kind, ((), "", ""))
    if not admitted or not type_name or type_name in admitted:
        return None
    cause = f"DISPATCH_{axis.name}: expected {what}, got {value}, which is of type {type_name}"
    return Lesson(cause, f"pass {example.replace('x.', f'{value}.') if type_name in _TENSORS else example}", place)


def _type_of(value: str, before: str) -> str:
    """Return the type of a variable or of a tensor's member, numbers as `int`; empty if it is another or unknown.

    Args:
        value: the expression.
        before: the code before it; the last declaration of a variable counts.
    """
    if re.fullmatch(r"\w+\.dtype\(\)", value):
        return "DataType"
    if re.fullmatch(r"\w+\.(?:size\([^()]*\)|ndim\(\)|numel\(\))", value):
        return "int"
    declared = re.findall(rf"{_DECLARED}{value}\b", before) if re.fullmatch(r"\w+", value) else [""]
    name = declared[-1] if declared else ""
    return name if not name or name[0].isupper() or name == "bool" else "int"


def brackets(finding: Finding, author: Author) -> Lesson | None:
    """Explain an element of a view or a tensor that is taken as that of a pointer."""
    message = finding.head.message
    match = _NO_BRACKET.search(message) or _NO_BRACKET_CLANG.search(message) or _NO_CALL.search(message)
    if match is None or not author.owns(finding.head.file):
        return None
    line = author.text(finding.head.file).split("\n")[finding.head.line - 1]
    taken = [one for one in re.finditer(r"(\w+)((?:\[[^][]*\])+|\([^()]*\))", line) if one.end() >= finding.head.column]
    name = taken[0][1] if taken else "x"
    indices = re.sub(r"\]\s*\[", ", ", taken[0][2])[1:-1] if taken else "i"
    if match[1] == "View":
        return Lesson("the elements of a view are taken by parentheses", f"write {name}({indices})")
    cure = f"take a view, const auto rows = {name}.view<DType, {indices.count(',') + 1}>(), and write rows({indices})"
    return Lesson(f"{name} is a {match[1]}, whose elements a view gives", cure)


def written(finding: Finding, author: Author) -> Lesson | None:
    """Explain a write to the elements of a ConstTensor."""
    match = _WRITTEN.search(finding.head.message)
    if match is None:
        return None
    name = f"{match[1]} is a view of" if match[1] else "this is an element of"
    return Lesson(f"{name} a ConstTensor, which is only read", "take it as a Tensor, in the entry and in the case")
