"""The base of all axes: one compile-time parameter of a kernel, its values, and how C++ spells them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dimorph.errors import DeclarationError

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# A value of an axis in its normal form: int, bool, str (dtype or enumerator), a tuple of ints, or a Variant.
Value = Any
Choose = Callable[[Mapping[str, Value]], Value]


@dataclass(frozen=True)
class Axis:
    """One compile-time parameter, made by `dimorph.int_axis`, `dimorph.dtype_axis` and their siblings.

    A subclass is a kind of axis. It reads and prints values (`normal`, `text`) and spells them in C++ for the config
    header: `constant` where one value is left; `row` and `index` for the table where several are.

    Attributes:
        name: the name in Python; also the suffix of its `DISPATCH_` macro.
        binds: the C++ names it binds, one (a tuple axis: several).
        values: the declared values, in order.
        accepts: says if a value beyond the declared ones can be built; None: no other value can.
        choose: makes this a choice axis: a pure function of the other axes' values that picks the value.
    """

    name: str
    binds: tuple[str, ...]
    values: tuple[Value, ...]
    accepts: Callable[[Any], bool] | None = field(default=None, repr=False)
    choose: Choose | None = field(default=None, repr=False)

    kind: ClassVar[str] = ""
    # The values that the axis takes, for messages.
    expected: ClassVar[str] = ""
    # True where only cases see the value: entries pass it on by name.
    for_cases_only: ClassVar[bool] = False
    # The macro of include/dimorph/dispatch.h that switches over the table's rows.
    switch: ClassVar[str] = "_DISPATCH_SWITCH"

    def __post_init__(self) -> None:
        if type(self) is Axis:
            raise DeclarationError(f"axis {self.name!r}: expected a kind of axis, as int_axis and its siblings make")
        for identifier in (self.name, *self.binds):
            if not IDENTIFIER.match(identifier):
                raise DeclarationError(f"axis {self.name!r}: {identifier!r} is not a C++ identifier")
        if not self.values and self.choose is None:
            raise DeclarationError(f"axis {self.name!r}: it declares no values")
        normal = tuple(self._checked(value) for value in self.values)
        if len(set(normal)) != len(normal):
            raise DeclarationError(f"axis {self.name!r}: a value is declared twice in {self.texts(normal)}")
        object.__setattr__(self, "values", normal)
        self.check_set(normal)

    def value(self, given: object) -> Value:
        """Return the normal form of `given`, a value or the text that `text` prints.

        Raises:
            DeclarationError: the axis neither declares nor accepts it.
        """
        for known in self.values:
            if isinstance(given, str) and given == self.text(known):
                return known
        value = self._checked(given)
        if value in self.values or self.admits(value):
            return value
        more = ", or one that `accepts` admits" if self.accepts else ""
        raise DeclarationError(
            f"axis {self.name}: expected one of {self.texts(self.values)}{more}, got {self.text(value)}"
        )

    def several(self, given: object) -> tuple[Value, ...]:
        """Return the normal forms of one value, or of a list, tuple or set of values.

        Raises:
            DeclarationError: no value, one that the axis does not take, or several for a choice axis.
        """
        many = isinstance(given, (list, tuple, set, frozenset)) and not self.is_single(given)
        values = tuple(dict.fromkeys(self.value(v) for v in (given if many else [given])))  # type: ignore[attr-defined]
        if not values:
            raise DeclarationError(f"axis {self.name}: expected at least one value, got none")
        self.check_set(values)
        if self.choose and len(values) > 1:
            raise DeclarationError(
                f"axis {self.name}: a choice axis can be fixed to one value, got {self.texts(values)}"
            )
        return values

    def texts(self, values: Sequence[Value]) -> str:
        """Print several values, in braces."""
        return "{" + ", ".join(self.text(value) for value in values) + "}"

    @property
    def checks_calls(self) -> bool:
        """True where DIMORPH_CALL requires the `DISPATCH_` of this axis around it: problem axes with one value."""
        return self.choose is None and not self.for_cases_only

    def _checked(self, given: object) -> Value:
        normal = self.normal(given)
        if normal is None:
            raise DeclarationError(f"axis {self.name}: expected {self.expected}, got {given!r}")
        return normal

    # What a kind decides about its values.

    def normal(self, given: object) -> Value | None:
        """Return the normal form of a value or its text; None where it is no value of this kind."""
        raise NotImplementedError

    def text(self, value: Value) -> str:
        """Print a value as command lines, messages and manifests have it."""
        return str(value)

    def admits(self, value: Value) -> bool:
        """Return True for a value beyond the declared ones that can be built."""
        return (self.accepts is not None and self.accepts(value)) or bool(self.choose and not self.values)

    def is_single(self, given: object) -> bool:
        """Return True for a sequence that is one value, not several."""
        return False

    def check_set(self, values: Sequence[Value]) -> None:
        """Raise DeclarationError for values that cannot stand in one set."""

    def named(self, text: str, root: Path) -> Value:
        """Return the value of which only the text is known, to describe a set that was built before.

        Args:
            root: the directory of the kernel's sources.
        """
        return text

    def is_found_by(self, text: str) -> bool:
        """Return True where the text of a value suffices to build it."""
        return True

    # How C++ spells it. `exprs` are the macro's parameters, one for each name that the axis binds.

    @property
    def includes(self) -> tuple[str, ...]:
        """Headers that the config header includes for the axis."""
        return ()

    def literal(self, value: Value) -> str:
        """Spell a value as an expression."""
        return self.text(value)

    def constant(self, value: Value) -> list[str]:
        """Spell the declaration of the constant that a case sees."""
        raise NotImplementedError

    def given(self, exprs: Sequence[str]) -> str:
        """Spell the value of a call, to be compared with `compiled`."""
        return exprs[0]

    def compiled(self, value: Value) -> str:
        """Spell the compiled value, to be compared with `given`."""
        return self.binds[0]

    def switched(self, exprs: Sequence[str]) -> str:
        """Spell the value that the table's switch looks at."""
        return self.given(exprs)

    def row(self, index: int, value: Value) -> str:
        """Spell the head of a value's row in the table: its macro and the arguments before the case variable."""
        return f"_DISPATCH_CASE({self.literal(value)}"

    def index(self, values: Sequence[Value]) -> str:
        """Spell the position of the bound value among `values`."""
        return f"dimorph_index_{self.name}({self.binds[0]})"

    def index_function(self, values: Sequence[Value]) -> list[str]:
        """Spell the function that `index` calls, where it calls one."""
        return []
