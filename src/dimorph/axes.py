"""Axes: the compile-time parameters of a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dimorph.errors import DeclarationError
from dimorph.variant import TENSORS, Variant

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# A value of an axis in its normal form: int, bool, str (dtype or enumerator), a tuple of ints, or a Variant.
Value = Any
Choose = Callable[[Mapping[str, Value]], Value]


@dataclass(frozen=True)
class Axis:
    """One compile-time parameter, made by `int_axis`, `dtype_axis` and the other functions below.

    Attributes:
        kind: `int`, `dtype`, `flag`, `enum`, `tuple` or `variant`.
        name: what Python calls it; also the suffix of its `DISPATCH_` macro.
        binds: the C++ names it binds, one (a tuple axis: several).
        values: the declared values, in order.
        accepts: whether a value beyond the declared ones can be built; None: no other value can.
        choose: makes this a choice axis: a pure function of the other axes' values that picks the value.
        cpp_type: the C++ type of an enum axis.
        header: the header that defines it, found on the kernel's include path.
    """

    kind: str
    name: str
    binds: tuple[str, ...]
    values: tuple[Value, ...]
    accepts: Callable[[Any], bool] | None = field(default=None, repr=False)
    choose: Choose | None = field(default=None, repr=False)
    cpp_type: str | None = None
    header: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _NORMAL:
            raise DeclarationError(f"axis {self.name!r}: kind: expected one of {', '.join(_NORMAL)}, got {self.kind!r}")
        for identifier in (self.name, *self.binds):
            if not IDENTIFIER.match(identifier):
                raise DeclarationError(f"axis {self.name!r}: {identifier!r} is not a C++ identifier")
        if not self.values and self.choose is None:
            raise DeclarationError(f"axis {self.name!r}: it declares no values")
        normal = tuple(self._normal(value) for value in self.values)
        if len(set(normal)) != len(normal):
            raise DeclarationError(f"axis {self.name!r}: a value is declared twice in {self.texts(normal)}")
        if self.kind == "variant":
            check_names(self.name, normal)
        object.__setattr__(self, "values", normal)

    def value(self, given: object) -> Value:
        """The normal form of `given`, an object or the text that `text` prints.

        Raises:
            DeclarationError: it is not a value of this axis, neither declared nor accepted.
        """
        for known in self.values:
            if isinstance(given, str) and given == self.text(known):
                return known
        value = self._normal(given)
        if value in self.values or self.kind == "variant":
            return value
        if (self.accepts is not None and self.accepts(value)) or (self.choose and not self.values):
            return value
        more = ", or one that `accepts` admits" if self.accepts else ""
        raise DeclarationError(
            f"axis {self.name}: expected one of {self.texts(self.values)}{more}, got {self.text(value)}"
        )

    def text(self, value: Value) -> str:
        """`value` as it is written on command lines, in messages and in manifests."""
        if self.kind == "flag":
            return "true" if value else "false"
        if self.kind == "tuple":
            return "x".join(str(part) for part in value)
        return value.name if isinstance(value, Variant) else str(value)

    def texts(self, values: Sequence[Value]) -> str:
        return "{" + ", ".join(self.text(value) for value in values) + "}"

    def _normal(self, given: object) -> Value:
        normal = _NORMAL[self.kind](given, len(self.binds))
        if normal is None:
            raise DeclarationError(f"axis {self.name}: expected {_EXPECTED[self.kind]}, got {given!r}")
        return normal


def int_axis(
    name: str,
    bind: str,
    values: Sequence[int],
    *,
    accepts: Callable[[int], bool] | None = None,
    choose: Choose | None = None,
) -> Axis:
    """An integer, bound as `constexpr int BIND`."""
    return Axis("int", name, (bind,), _listed(name, values), accepts, choose)


def dtype_axis(name: str, bind: str, values: Sequence[object], *, choose: Choose | None = None) -> Axis:
    """An element type, bound as `using Bind = ...`. Values are dtype names or NumPy or torch dtypes."""
    return Axis("dtype", name, (bind,), _listed(name, values), None, choose)


def flag_axis(name: str, bind: str, values: Sequence[bool] = (False, True), *, choose: Choose | None = None) -> Axis:
    """A boolean, bound as `constexpr bool BIND`."""
    return Axis("flag", name, (bind,), _listed(name, values), None, choose)


def enum_axis(
    name: str, bind: str, values: Sequence[str], *, cpp_type: str, header: str, choose: Choose | None = None
) -> Axis:
    """An enumerator of the enum class `cpp_type`, which the project's `header` defines."""
    return Axis("enum", name, (bind,), _listed(name, values), None, choose, cpp_type, header)


def tuple_axis(
    name: str,
    binds: Sequence[str],
    values: Sequence[Sequence[int]],
    *,
    accepts: Callable[[tuple[int, ...]], bool] | None = None,
    choose: Choose | None = None,
) -> Axis:
    """Two to four integers that vary together, each bound as a `constexpr int`."""
    if not 2 <= len(binds) <= 4:
        raise DeclarationError(f"axis {name!r}: a tuple axis binds 2 to 4 names, got {len(binds)}")
    return Axis("tuple", name, tuple(binds), _listed(name, values), accepts, choose)


def variant_axis(name: str, macro: str, *, default: Variant, values: Sequence[Variant] = ()) -> Axis:
    """A place for a variant; `macro` names the functor in the case.

    A dispatching module holds `values` (the default alone unless declared), by the variants' names. Any other
    variant can be asked for by value.
    """
    variants = tuple(values) if default in values else (default, *values)
    return Axis("variant", name, (macro,), variants)


def check_names(axis_name: str, variants: Sequence[Variant]) -> None:
    """Variants are dispatched by name, so two of one name would be one.

    Raises:
        DeclarationError: two have the same name.
    """
    names = [variant.name for variant in variants]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DeclarationError(f"axis {axis_name}: two variants are called {twice[0]!r}")


def _listed(name: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DeclarationError(f"axis {name!r}: values: expected a list, got {values!r}")
    return tuple(values)


def _int(given: object, _: int) -> int | None:
    """An integer that fits the `int` it is bound as."""
    if isinstance(given, str):
        number = int(given) if re.fullmatch(r"-?\d{1,10}", given) else None
    elif isinstance(given, bool) or not hasattr(given, "__index__"):
        number = None
    else:
        number = int(given.__index__())
    return number if number is not None and -(2**31) <= number < 2**31 else None


def _dtype(given: object, _: int) -> str | None:
    name = given if isinstance(given, str) else getattr(given, "__name__", None) or str(given)
    name = name.removeprefix("torch.").removeprefix("numpy.")
    return name if name in TENSORS else None


def _flag(given: object, _: int) -> bool | None:
    if isinstance(given, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(given.lower())
    if type(given).__name__ in ("bool", "bool_"):  # NumPy's has two names
        return bool(given)
    return None


def _enum(given: object, _: int) -> str | None:
    return given if isinstance(given, str) and IDENTIFIER.match(given) else None


def _tuple(given: object, count: int) -> tuple[int, ...] | None:
    parts = given.split("x") if isinstance(given, str) else given
    if not isinstance(parts, Sequence) or len(parts) != count:
        return None
    values = tuple(_int(part, 1) for part in parts)
    return None if None in values else values  # type: ignore[return-value]


def _variant(given: object, _: int) -> Variant | None:
    return given if isinstance(given, Variant) else None


_NORMAL: dict[str, Callable[[object, int], Any]] = {
    "int": _int,
    "dtype": _dtype,
    "flag": _flag,
    "enum": _enum,
    "tuple": _tuple,
    "variant": _variant,
}
_EXPECTED = {
    "int": "an integer of 32 bits",
    "dtype": f"a dtype ({', '.join(TENSORS)})",
    "flag": "True or False",
    "enum": "the name of an enumerator",
    "tuple": "a tuple of integers of 32 bits, one for each name bound",
    "variant": "a dimorph.Variant, or the name of a declared one",
}
