"""The signature of an exported function, as programs in C, C++ and Rust call it without Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dimorph.declare.variant import Param
from dimorph.errors import DeclarationError
from dimorph.source.cpp_functions import Function
from dimorph.source.cpp_text import blanked
from dimorph.source.signature import INTEGERS, beginnings, declared, definitions, parts, plain_type

# C++ type of a parameter or result -> the type in C.
_INTEGERS = {name: f"{'' if one.signed else 'u'}int{one.bits}_t" for name, one in INTEGERS.items()}
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
# Names of parameters in C++ that C or Rust cannot have.
_TAKEN = frozenset(
    ("restrict", "self", "Self", "super", "crate", "async", "await", "try", "errno", "args_", "got_", "status_")
)


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
    code = blanked(source)
    found = definitions(code, [function])[function]
    if len(found) != 1:
        raise DeclarationError(
            f"{what}: {len(found) or 'no'} definitions of {function} were found in its entry; C++ programs need one"
        )
    return _signature(source, code, found[0], variant, what)


def _signature(source: str, code: str, found: Function, variant: Sequence[Param] | None, what: str) -> Signature:
    function = found.name
    _, begin = beginnings(code, found)
    arguments: list[Argument] = []
    for index, (typed, spelled, _, _) in enumerate(declared(source, code, found)):
        name = f"{spelled}_" if spelled in _TAKEN else spelled or f"argument{index}"
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
    results = tuple(_results(plain_type(code[begin : found.start]), f"{what}: {function}: its result"))
    text = " ".join(code[begin : found.body - len(found.after)].split())
    return Signature(function, text, tuple(arguments), results)


def _of_variant(param: Param) -> Argument:
    if param.is_tensor:
        return Argument(param.name, "const DLTensor*", param.optional)
    c = {"float32": "float", "int32": "int32_t", "int64": "int64_t", "bool": "bool"}.get(param.dtype, "double")
    return Argument(param.name, c)


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
    given = (
        [several[1][start:end].strip() for start, end in parts(several[1], 0, len(several[1]))] if several else [typed]
    )
    for one in given:
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
