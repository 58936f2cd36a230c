"""The kinds of axes, one class each, and the functions that declare them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimorph.declare.axis import Axis, Choose, index_switch
from dimorph.declare.dtypes import TENSORS
from dimorph.declare.names import IDENTIFIER, placed
from dimorph.declare.parts import part, view
from dimorph.declare.variant import Variant
from dimorph.errors import DeclarationError


class IntAxis(Axis):
    """An axis of 32-bit integers."""

    kind = "int"
    expected = "an integer of 32 bits"

    def normal(self, given: object) -> int | None:
        return _int(given)

    @property
    def size_names(self) -> tuple[str, ...]:
        return (self.name, *self.binds)

    def sizes(self, value: int) -> tuple[int, ...]:
        return (value, value)

    def constant(self, value: int) -> list[str]:
        return [f"constexpr int {self.binds[0]} = {value};"]

    def index_function(self, values: Sequence[int]) -> list[str]:
        return index_switch(self.name, "int", "value", map(self.literal, values))


class DtypeAxis(Axis):
    """An axis of element types, given by their names."""

    kind = "dtype"
    expected = f"a dtype ({', '.join(TENSORS)})"
    switch = "_DISPATCH_TYPE_SWITCH"

    def normal(self, given: object) -> str | None:
        name = given if isinstance(given, str) else getattr(given, "__name__", None) or str(given)
        name = name.removeprefix("torch.").removeprefix("numpy.")
        return name if name in TENSORS else None

    def literal(self, value: str) -> str:
        return TENSORS[value]

    def exprs(self, value: str) -> list[str]:
        return [f"::dimorph::data_type<{self.literal(value)}>()"]

    def constant(self, value: str) -> list[str]:
        return [f"using {self.binds[0]} = {self.literal(value)};"]

    def compiled(self, value: str) -> str:
        return f"::dimorph::data_type<{self.binds[0]}>()"

    def row(self, index: int, value: str) -> str:
        return f"_DISPATCH_TYPE_CASE({self.literal(value)}"

    def index(self, values: Sequence[str]) -> str:
        return f"::dimorph::detail::index_of_type<{', '.join([self.binds[0], *map(self.literal, values)])}>()"


class FlagAxis(Axis):
    """An axis of booleans."""

    kind = "flag"
    expected = "True or False"

    def normal(self, given: object) -> bool | None:
        if isinstance(given, str):
            return {"true": True, "1": True, "false": False, "0": False}.get(given.lower())
        if type(given).__name__ in ("bool", "bool_"):  # NumPy's has two names
            return bool(given)
        return None

    def text(self, value: bool) -> str:
        return "true" if value else "false"

    def constant(self, value: bool) -> list[str]:
        return [f"constexpr bool {self.binds[0]} = {self.literal(value)};"]

    def switched(self, exprs: Sequence[str]) -> str:
        return f"static_cast<int>({exprs[0]})"

    def index_function(self, values: Sequence[bool]) -> list[str]:
        return index_switch(self.name, "bool", "static_cast<int>(value)", map(self.literal, values))


@dataclass(frozen=True, repr=False)
class EnumAxis(Axis):
    """An axis of enumerators of an enum class that the project defines.

    Attributes:
        cpp_type: the C++ name of the enum class.
        header: the header that defines it, found on the kernel's include path.
    """

    cpp_type: str = ""
    header: str = ""

    kind = "enum"
    expected = "the name of an enumerator"

    def normal(self, given: object) -> str | None:
        return given if isinstance(given, str) and IDENTIFIER.match(given) else None

    @property
    def includes(self) -> tuple[str, ...]:
        return (self.header,)

    def literal(self, value: str) -> str:
        return f"{self.cpp_type}::{value}"

    def constant(self, value: str) -> list[str]:
        return [f"constexpr {self.cpp_type} {self.binds[0]} = {self.literal(value)};"]

    def given(self, exprs: Sequence[str]) -> str:
        return f"static_cast<long long>({exprs[0]})"

    def compiled(self, value: str) -> str:
        return f"static_cast<long long>({self.binds[0]})"

    def switched(self, exprs: Sequence[str]) -> str:
        return exprs[0]

    def index_function(self, values: Sequence[str]) -> list[str]:
        return index_switch(self.name, self.cpp_type, "value", map(self.literal, values))


class TupleAxis(Axis):
    """An axis of tuples of two to four integers."""

    kind = "tuple"
    expected = "a tuple of integers of 32 bits, one for each name bound"
    switch = "_DISPATCH_CHAIN"

    def __post_init__(self) -> None:
        if not 2 <= len(self.binds) <= 4:
            raise DeclarationError(f"axis {self.name!r}: a tuple axis binds 2 to 4 names, got {len(self.binds)}")
        super().__post_init__()

    def normal(self, given: object) -> tuple[int, ...] | None:
        parts = given.split("x") if isinstance(given, str) else given
        if not isinstance(parts, Sequence) or len(parts) != len(self.binds):
            return None
        values = tuple(_int(part) for part in parts)
        return None if None in values else values  # type: ignore[return-value]

    def text(self, value: tuple[int, ...]) -> str:
        return "x".join(map(str, value))

    def is_single(self, given: object) -> bool:
        return isinstance(given, tuple)

    @property
    def size_names(self) -> tuple[str, ...]:
        return self.binds

    def sizes(self, value: tuple[int, ...]) -> tuple[int, ...]:
        return value

    def exprs(self, value: tuple[int, ...]) -> list[str]:
        return [str(part) for part in value]

    def constant(self, value: tuple[int, ...]) -> list[str]:
        return [f"constexpr int {bind} = {part};" for bind, part in zip(self.binds, value, strict=True)]

    def given(self, exprs: Sequence[str]) -> str:
        return f"::dimorph::detail::tuple({', '.join(exprs)})"

    def compiled(self, value: tuple[int, ...]) -> str:
        return self.given(self.binds)

    def row(self, index: int, value: tuple[int, ...]) -> str:
        return f"_DISPATCH_CASE_{len(value)}({', '.join(map(str, value))}"

    def index(self, values: Sequence[tuple[int, ...]]) -> str:
        rows = [self.given([str(part) for part in row]) for row in (self.binds, *values)]
        return f"::dimorph::detail::index_of({', '.join(rows)})"


@dataclass(frozen=True, repr=False)
class VariantAxis(Axis):
    """An axis of variants, dispatched by name; only cases see a variant's struct and parameters.

    Attributes:
        own_sizes: the names in shapes of tensors that the case knows, and checks itself.
    """

    own_sizes: tuple[str, ...] = ()

    kind = "variant"
    expected = "a dimorph.Variant, or the name of a declared one"
    for_cases_only = True
    switch = "_DISPATCH_CHAIN"

    def normal(self, given: object) -> Variant | None:
        return given if isinstance(given, Variant) else None

    def text(self, value: Variant) -> str:
        return value.name

    def admits(self, value: Variant) -> bool:
        return True

    @property
    def is_open(self) -> bool:
        return True

    def check_set(self, values: Sequence[Variant]) -> None:
        names = [variant.name for variant in values]
        if twice := [name for name in names if names.count(name) > 1]:
            raise DeclarationError(f"axis {self.name}: two variants are called {twice[0]!r}")

    def named(self, text: str, root: Path) -> Variant:
        # The entry of a set with several variants uses only their names.
        return Variant(text, "undeclared.h", root=root)

    def is_found_by(self, text: str) -> bool:
        return any(text == value.name for value in self.values)

    def exprs(self, value: Variant) -> list[str]:
        return [f'"{value.name}"']

    def constant(self, value: Variant) -> list[str]:
        lines = [f'#include "{header}"' for header in dict.fromkeys(v.header for v in value.structs())]
        if value.parts:
            lines += [line for index in range(len(value.parts)) for line in view(value, index)]
            parts = ", ".join(part(value, index) for index in range(len(value.parts)))
            lines += ["template <typename ParamsT>", f"using {value.name} = {value.struct}<ParamsT, {parts}>;"]
        macro = value.name if value.parts else value.struct
        guarded = ["#if !defined(DIMORPH_ENTRY)  // only cases see the variant", *lines, "#endif"]
        return [*guarded, f"#define {self.binds[0]} {macro}"]

    def compiled(self, value: Variant) -> str:
        return f'"{value.name}"'

    def switched(self, exprs: Sequence[str]) -> str:
        return f"::dimorph::Str({exprs[0]})"

    def row(self, index: int, value: Variant) -> str:
        return f'_DISPATCH_NAME_CASE("{value.name}", {index}'

    def index(self, values: Sequence[Variant]) -> str:
        return self.binds[0]


@placed
def int_axis(
    name: str,
    bind: str,
    values: Sequence[int],
    *,
    accepts: Callable[[int], bool] | None = None,
    choose: Choose | None = None,
) -> Axis:
    """Declare an integer axis, bound as `constexpr int BIND`.

    Args:
        name: the name in Python and the suffix of the `DISPATCH_` macro.
        bind: the C++ name of the constant.
        values: the declared values, integers of 32 bits.
        accepts: predicate on other values: True for one that can be built on request.
        choose: makes this a choice axis: a pure function of the other axes' values (name -> value) to its value.

    Raises:
        DeclarationError: a name or a value is invalid, or a value is given twice.
    """
    return IntAxis(name, (bind,), _listed(name, values), accepts, choose)


@placed
def dtype_axis(name: str, bind: str, values: Sequence[object], *, choose: Choose | None = None) -> Axis:
    """Declare an axis of element types, bound as `using Bind = ...`.

    Args:
        name: the name in Python and the suffix of the `DISPATCH_` macro.
        bind: the C++ name of the type.
        values: the declared values: dtype names, or dtypes of NumPy or torch.
        choose: makes this a choice axis: a pure function of the other axes' values (name -> value) to its value.

    Raises:
        DeclarationError: a name or a value is invalid, or a value is given twice.
    """
    return DtypeAxis(name, (bind,), _listed(name, values), None, choose)


@placed
def flag_axis(name: str, bind: str, values: Sequence[bool] = (False, True), *, choose: Choose | None = None) -> Axis:
    """Declare a boolean axis, bound as `constexpr bool BIND`.

    Args:
        name: the name in Python and the suffix of the `DISPATCH_` macro.
        bind: the C++ name of the constant.
        values: the declared values.
        choose: makes this a choice axis: a pure function of the other axes' values (name -> value) to its value.

    Raises:
        DeclarationError: a name or a value is invalid, or a value is given twice.
    """
    return FlagAxis(name, (bind,), _listed(name, values), None, choose)


@placed
def enum_axis(
    name: str, bind: str, values: Sequence[str], *, cpp_type: str, header: str, choose: Choose | None = None
) -> Axis:
    """Declare an axis of enumerators, bound as a constant of the enum class `cpp_type`.

    Args:
        name: the name in Python and the suffix of the `DISPATCH_` macro.
        bind: the C++ name of the constant.
        values: the names of the declared enumerators.
        cpp_type: the C++ name of the enum class.
        header: the project's header that defines it, found on the kernel's include path.
        choose: makes this a choice axis: a pure function of the other axes' values (name -> value) to its value.

    Raises:
        DeclarationError: a name or a value is invalid, or a value is given twice.
    """
    return EnumAxis(name, (bind,), _listed(name, values), None, choose, cpp_type, header)


@placed
def tuple_axis(
    name: str,
    binds: Sequence[str],
    values: Sequence[Sequence[int]],
    *,
    accepts: Callable[[tuple[int, ...]], bool] | None = None,
    choose: Choose | None = None,
) -> Axis:
    """Declare an axis of tuples of two to four integers, each bound as a `constexpr int`.

    Args:
        name: the name in Python and the suffix of the `DISPATCH_` macro.
        binds: the C++ names of the constants, one for each integer.
        values: the declared tuples, of integers of 32 bits.
        accepts: predicate on other tuples: True for one that can be built on request.
        choose: makes this a choice axis: a pure function of the other axes' values (name -> value) to its value.

    Raises:
        DeclarationError: a name or a value is invalid, or a value is given twice.
    """
    return TupleAxis(name, tuple(binds), _listed(name, values), accepts, choose)


@placed
def variant_axis(
    name: str, macro: str, *, default: Variant, values: Sequence[Variant] = (), sizes: Sequence[str] = ()
) -> Axis:
    """Declare a variant axis; in a case, `macro` stands for the functor of the variant.

    A dispatching module contains the declared variants and selects among them by name. Any other variant is built on
    request, when a load is given the `Variant` itself.

    Args:
        name: the name in Python and the suffix of the `DISPATCH_` macro.
        macro: the C++ macro.
        default: the variant that is always declared.
        values: the declared variants, `default` added if it is missing.
        sizes: names that shapes of the variants' tensors may hold in place of axes, if the case checks these shapes
            itself, in a function that it gives to `Extra::fill`.

    Raises:
        DeclarationError: a name is invalid, or two variants have the same name.
    """
    variants = tuple(values) if default in values else (default, *values)
    return VariantAxis(name, (macro,), variants, own_sizes=tuple(sizes))


def _listed(name: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DeclarationError(f"axis {name!r}: values: expected a list, got {values!r}; write [{values!r}]")
    return tuple(values)


def _int(given: object) -> int | None:
    """Return `given` as an integer of 32 bits; None if it is no integer or does not fit."""
    if isinstance(given, str):
        number = int(given) if re.fullmatch(r"-?\d{1,10}", given) else None
    elif isinstance(given, bool) or not hasattr(given, "__index__"):
        number = None
    else:
        number = int(given.__index__())
    return number if number is not None and -(2**31) <= number < 2**31 else None
