"""The kinds of axes, one class each, and the functions that declare them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimorph.declare.axis import IDENTIFIER, Axis, Choose
from dimorph.declare.dtypes import TENSORS
from dimorph.declare.variant import Variant
from dimorph.errors import DeclarationError


def _index_switch(name: str, cpp_type: str, looked_at: str, literals: Iterable[str]) -> list[str]:
    """Spell a function from value to position. A switch: an axis may have hundreds of values, each looked up once."""
    return [
        f"constexpr long long dimorph_index_{name}({cpp_type} value) {{",
        f"  switch ({looked_at}) {{",
        *(f"    case {literal}: return {index};" for index, literal in enumerate(literals)),
        "    default: return -1;",
        "  }",
        "}",
    ]


class IntAxis(Axis):
    """An integer of 32 bits."""

    kind = "int"
    expected = "an integer of 32 bits"

    def normal(self, given: object) -> int | None:
        return _int(given)

    def constant(self, value: int) -> list[str]:
        return [f"constexpr int {self.binds[0]} = {value};"]

    def index_function(self, values: Sequence[int]) -> list[str]:
        return _index_switch(self.name, "int", "value", map(self.literal, values))


class DtypeAxis(Axis):
    """An element type, by its name."""

    kind = "dtype"
    expected = f"a dtype ({', '.join(TENSORS)})"
    switch = "_DISPATCH_TYPE_SWITCH"

    def normal(self, given: object) -> str | None:
        name = given if isinstance(given, str) else getattr(given, "__name__", None) or str(given)
        name = name.removeprefix("torch.").removeprefix("numpy.")
        return name if name in TENSORS else None

    def literal(self, value: str) -> str:
        return TENSORS[value]

    def constant(self, value: str) -> list[str]:
        return [f"using {self.binds[0]} = {self.literal(value)};"]

    def compiled(self, value: str) -> str:
        return f"::dimorph::data_type<{self.binds[0]}>()"

    def row(self, index: int, value: str) -> str:
        return f"_DISPATCH_TYPE_CASE({self.literal(value)}"

    def index(self, values: Sequence[str]) -> str:
        return f"::dimorph::detail::index_of_type<{', '.join([self.binds[0], *map(self.literal, values)])}>()"


class FlagAxis(Axis):
    """A boolean."""

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
        return _index_switch(self.name, "bool", "static_cast<int>(value)", map(self.literal, values))


@dataclass(frozen=True)
class EnumAxis(Axis):
    """An enumerator of an enum class of the project.

    Attributes:
        cpp_type: the C++ type.
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
        return _index_switch(self.name, self.cpp_type, "value", map(self.literal, values))


class TupleAxis(Axis):
    """Two to four integers that vary together."""

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


class VariantAxis(Axis):
    """A variant, dispatched by its name. Its struct and its parameters concern the case alone."""

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

    def check_set(self, values: Sequence[Variant]) -> None:
        names = [variant.name for variant in values]
        if twice := [name for name in names if names.count(name) > 1]:
            raise DeclarationError(f"axis {self.name}: two variants are called {twice[0]!r}")

    def named(self, text: str, root: Path) -> Variant:
        # An entry of several variants needs no more of them than their names.
        return Variant(text, "undeclared.h", root=root)

    def is_found_by(self, text: str) -> bool:
        return any(text == value.name for value in self.values)

    def constant(self, value: Variant) -> list[str]:
        lines = [f'#include "{header}"' for header in dict.fromkeys(v.header for v in value.structs())]
        if value.parts:
            parts = ", ".join(f"{part.struct}<ParamsT>" for part in value.parts)
            lines += ["template <typename ParamsT>", f"using {value.name} = {value.struct}<ParamsT, {parts}>;"]
        macro = value.name if value.parts else value.struct
        guarded = ["#if !defined(DIMORPH_ENTRY)  // a variant is the case's business", *lines, "#endif"]
        return [*guarded, f"#define {self.binds[0]} {macro}"]

    def compiled(self, value: Variant) -> str:
        return f'"{value.name}"'

    def switched(self, exprs: Sequence[str]) -> str:
        return f"::dimorph::Str({exprs[0]})"

    def row(self, index: int, value: Variant) -> str:
        return f'_DISPATCH_NAME_CASE("{value.name}", {index}'

    def index(self, values: Sequence[Variant]) -> str:
        return self.binds[0]


def int_axis(
    name: str,
    bind: str,
    values: Sequence[int],
    *,
    accepts: Callable[[int], bool] | None = None,
    choose: Choose | None = None,
) -> Axis:
    """Declare an integer, bound as `constexpr int BIND`."""
    return IntAxis(name, (bind,), _listed(name, values), accepts, choose)


def dtype_axis(name: str, bind: str, values: Sequence[object], *, choose: Choose | None = None) -> Axis:
    """Declare an element type, bound as `using Bind = ...`. Values are dtype names or NumPy or torch dtypes."""
    return DtypeAxis(name, (bind,), _listed(name, values), None, choose)


def flag_axis(name: str, bind: str, values: Sequence[bool] = (False, True), *, choose: Choose | None = None) -> Axis:
    """Declare a boolean, bound as `constexpr bool BIND`."""
    return FlagAxis(name, (bind,), _listed(name, values), None, choose)


def enum_axis(
    name: str, bind: str, values: Sequence[str], *, cpp_type: str, header: str, choose: Choose | None = None
) -> Axis:
    """Declare an enumerator of the enum class `cpp_type`, which the project's `header` defines."""
    return EnumAxis(name, (bind,), _listed(name, values), None, choose, cpp_type, header)


def tuple_axis(
    name: str,
    binds: Sequence[str],
    values: Sequence[Sequence[int]],
    *,
    accepts: Callable[[tuple[int, ...]], bool] | None = None,
    choose: Choose | None = None,
) -> Axis:
    """Declare two to four integers that vary together, each bound as a `constexpr int`."""
    return TupleAxis(name, tuple(binds), _listed(name, values), accepts, choose)


def variant_axis(name: str, macro: str, *, default: Variant, values: Sequence[Variant] = ()) -> Axis:
    """Declare a place for a variant; `macro` names the functor in the case.

    A dispatching module holds `values` (by default, `default` alone), by the variants' names. Any other variant can be
    asked for by value.
    """
    variants = tuple(values) if default in values else (default, *values)
    return VariantAxis(name, (macro,), variants)


def _listed(name: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DeclarationError(f"axis {name!r}: values: expected a list, got {values!r}")
    return tuple(values)


def _int(given: object) -> int | None:
    """Read an integer that fits the `int` it is bound as."""
    if isinstance(given, str):
        number = int(given) if re.fullmatch(r"-?\d{1,10}", given) else None
    elif isinstance(given, bool) or not hasattr(given, "__index__"):
        number = None
    else:
        number = int(given.__index__())
    return number if number is not None and -(2**31) <= number < 2**31 else None
