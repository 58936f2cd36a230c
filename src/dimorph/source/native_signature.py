"""The signature of an exported function, as programs in C, C++ and Rust call it without Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dimorph.declare.variant import Param
from dimorph.errors import DeclarationError
from dimorph.source.cpp_functions import Function
from dimorph.source.cpp_text import blanked
from dimorph.source.signature import definitions

# C++ type of a parameter or result -> the type in C.
_INTEGERS = {
    "int8_t": "int8_t",
    "int16_t": "int16_t",
    "int32_t": "int32_t",
    "int64_t": "int64_t",
    "uint8_t": "uint8_t",
    "uint16_t": "uint16_t",
    "uint32_t": "uint32_t",
    "uint64_t": "uint64_t",
    "int": "int32_t",
    "unsigned": "uint32_t",
    "unsigned int": "uint32_t",
    "long": "int64_t",
    "long long": "int64_t",
    "size_t": "uint64_t",
}
_OTHERS = {
    "double": "double",
    "float": "float",
    "bool": "bool",
    "Str": "const char*",
    "DataType": "DLDataType",
    "Device": "DLDevice",
    "ConstTensor": "const DLTensor*",
    "Tensor": "DLTensor*",
}
# C++ type of a result that is no number -> its type in C, for which null is None.
_OBJECTS = {"Str": "char*", "char*": "char*", "NewTensor": "DLManagedTensor*"}
_VALUES = {"double": "double", "float": "float", "bool": "bool", "DataType": "DLDataType", **_INTEGERS}
_NO_CODE = re.compile(r"^[ \t]*#(?:.*\\\n)*.*\n|\bDIMORPH_EXPORT\s*\(\s*\w*\s*\)", re.MULTILINE)
# Names of parameters in C++ that C or Rust cannot have.
_TAKEN = frozenset(
    ("restrict", "self", "Self", "super", "crate", "async", "await", "try", "errno", "args_", "got_", "status_")
)
_QUALIFIERS = re.compile(r"\b(?:(?:const|static|inline|extern|constexpr)\b|dimorph::|std::)|&|\[\[[\w:]+\]\]")


@dataclass(frozen=True)
class Argument:
    """An argument of a function.

    Attributes:
        name: the name of the parameter.
        c: its type in C, e.g. `double` or `const DLTensor*`; of an optional number, that of the number.
        optional: True if it may be None: a null pointer in C.
    """

    name: str
    c: str
    optional: bool = False

    @property
    def is_pointer(self) -> bool:
        """True if C passes a pointer even where the argument is not optional."""
        return self.c.endswith("*")


@dataclass(frozen=True)
class Result:
    """A result of a function.

    Attributes:
        c: its type in C; `char*` is a text, `DLManagedTensor*` a new tensor. Both are null for None.
        optional: True for a number that may be None.
    """

    c: str
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """An exported function.

    Attributes:
        name: its name.
        text: the function as its source spells it, on one line.
        arguments: its arguments, those of the variant included.
        results: its results.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]


def signature(source: str, function: str, variant: Sequence[Param] | None, what: str) -> Signature:
    """Return the signature of a function that an entry exports.

    Args:
        source: the text of the entry.
        function: the name of the function.
        variant: the parameters of the only variant; None: there are several, or none.
        what: the kernel, for messages.

    Raises:
        DeclarationError: the function is not defined in this text, or has a type that C cannot pass.
    """
    # Comments, literals, lines of the preprocessor and exports become blanks, so that positions stay.
    exporting = blanked(source)
    code = _NO_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0][:-1]) + ";", exporting)
    found = definitions(code, exporting, function)
    if len(found) != 1:
        raise DeclarationError(
            f"{what}: {len(found) or 'no'} definitions of {function} were found in its entry; C++ programs need one"
        )
    return _signature(code, found[0], variant, what)


def _signature(code: str, found: Function, variant: Sequence[Param] | None, what: str) -> Signature:
    function = found.name
    before = re.split(r"[;{}]", code[: found.start])[-1]
    listed = code[found.start + len(function) : found.body - len(found.after)].strip()[1:-1]
    text = " ".join(f"{before.strip()} {function}({listed})".split())
    arguments: list[Argument] = []
    for index, part in enumerate(_parts(listed)):
        typed, name = _type_and_name(part, f"argument{index}")
        if typed == "Extra":
            if variant is None:
                raise DeclarationError(
                    f"{what}: {function} takes the arguments of a variant, and several variants are built: C++ "
                    "programs can call one; name it, as in `variant=NAME`"
                )
            arguments += [_of_variant(param) for param in variant]
            continue
        place = f"{what}: {function}: parameter {name!r}"
        inner = re.fullmatch(r"Optional<(.*)>", typed)
        arguments.append(Argument(name, _argument(inner[1].strip() if inner else typed, place), inner is not None))
    results = tuple(_results(_plain(before), f"{what}: {function}: its result"))
    return Signature(function, text, tuple(arguments), results)


def _of_variant(param: Param) -> Argument:
    if param.is_tensor:
        return Argument(param.name, "const DLTensor*", param.optional)
    c = {"float32": "float", "int32": "int32_t", "int64": "int64_t", "bool": "bool"}.get(param.dtype, "double")
    return Argument(param.name, c)


def _plain(text: str) -> str:
    """Return a type without qualifiers, references and the namespaces of the library and of the standard."""
    return " ".join(re.sub(r"\s*([<>,*])\s*", r"\1", _QUALIFIERS.sub("", text)).split())


def _type_and_name(part: str, unnamed: str) -> tuple[str, str]:
    """Return type and name of a parameter; `unnamed` where it has no name."""
    match = re.fullmatch(r"(.*[\s&>])([A-Za-z_]\w*)", part.partition("=")[0].strip(), re.DOTALL)
    if match is None or _plain(part) in _INTEGERS:  # as `unsigned int` without a name
        return _plain(part.partition("=")[0]), unnamed
    return _plain(match[1]), f"{match[2]}_" if match[2] in _TAKEN else match[2]


def _argument(typed: str, place: str) -> str:
    if found := _INTEGERS.get(typed) or _OTHERS.get(typed):
        return found
    raise DeclarationError(
        f"{place}: C++ programs cannot pass {typed or 'this type'!r}: expected ConstTensor, Tensor, double, float, "
        "bool, an integer, Str, DataType, Device, Optional of these, or Extra"
    )


def _results(typed: str, place: str) -> Iterator[Result]:
    if typed == "void":
        return
    several = re.fullmatch(r"Results<(.*)>", typed)
    for one in map(str.strip, _parts(several[1]) if several else [typed]):
        inner = re.fullmatch(r"Optional<(.*)>", one)
        name = inner[1].strip() if inner else one
        if name in _OBJECTS:
            yield Result(_OBJECTS[name])
        elif name in _VALUES:
            yield Result(_VALUES[name], inner is not None)
        else:
            raise DeclarationError(
                f"{place}: C++ programs cannot take {one!r}: expected void, double, float, bool, an integer, Str, "
                "NewTensor, DataType, Optional of these, or Results of these"
            )


def _parts(text: str) -> Iterator[str]:
    """Yield the parts of a text between the commas outside of brackets."""
    depth, start = 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "<({[") - (letter in ">)}]")
        if letter == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    if text[start:].strip():
        yield text[start:]
