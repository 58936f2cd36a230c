"""The base class of axes: a compile-time parameter of a kernel, with its values and their form in C++."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dimorph.declare.names import cpp_name_problem, python_name_problem
from dimorph.errors import DeclarationError

# A value of an axis in its normal form: int, bool, str (dtype or enumerator), a tuple of ints, or a Variant.
Value = Any
Choose = Callable[[Mapping[str, Value]], Value]
# The most values of an axis in the text of a declaration or a module, so that it stays on a line.
_SHOWN = 6


@dataclass(frozen=True)
class Axis:
    """One compile-time parameter, made by `dimorph.int_axis`, `dimorph.dtype_axis` and their siblings.

    A subclass is a kind of axis. It parses and prints values (`normal`, `text`) and writes them as C++ for the config
    header: `constant` for an axis with one value; `row` and `index` for the table of an axis with several.

    Attributes:
        name: the name in Python; also the suffix of its `DISPATCH_` macro.
        binds: the C++ names bound to the value: one, or several for a tuple axis.
        values: the declared values, in order.
        accepts: predicate on values beyond the declared ones: True for one that can be built; None: none can.
        choose: makes this a choice axis: a pure function of the other axes' values (name -> value) to its value. None:
            a problem axis, whose value each call gives.
    """

    name: str
    binds: tuple[str, ...]
    values: tuple[Value, ...]
    accepts: Callable[[Any], bool] | None = None
    choose: Choose | None = None

    kind: ClassVar[str] = ""
    # The values that the axis takes, for messages.
    expected: ClassVar[str] = ""
    # True if only cases see the value; entries select it by name.
    for_cases_only: ClassVar[bool] = False
    # The macro of include/dimorph/dispatch.h that switches over the table's rows.
    switch: ClassVar[str] = "_DISPATCH_SWITCH"

    def __post_init__(self) -> None:
        if type(self) is Axis:
            raise DeclarationError(f"axis {self.name!r}: expected an axis made by int_axis or one of its siblings")
        for problem in (python_name_problem(self.name), *map(cpp_name_problem, self.binds)):
            if problem:
                raise DeclarationError(f"axis {self.name!r}: {problem}")
        if not self.values and self.choose is None:
            raise DeclarationError(f"axis {self.name!r}: it declares no values")
        normal = tuple(self._checked(value) for value in self.values)
        if len(set(normal)) != len(normal):
            raise DeclarationError(f"axis {self.name!r}: a value is declared twice in {self.texts(normal)}")
        object.__setattr__(self, "values", normal)
        self.check_set(normal)

    def value(self, given: object) -> Value:
        """Return the normal form of `given`, which is a value or the text of one (see `text`).

        Raises:
            DeclarationError: the axis neither declares nor accepts the value.
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
            DeclarationError: the list is empty, a value is not one of the axis, or a choice axis gets several.
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

    def __repr__(self) -> str:
        values = self.shown(self.values) if self.values else "chosen"
        return f"<{type(self).__name__} {self.name}={values}, bound as {', '.join(self.binds)}>"

    def shown(self, values: Sequence[Value]) -> str:
        """Return one value as text, or several as `texts` does; of many, the first and the last."""
        if len(values) == 1:
            return self.text(values[0])
        if len(values) <= _SHOWN:
            return self.texts(values)
        first = ", ".join(self.text(value) for value in values[: _SHOWN - 2])
        return f"{{{first}, ..., {self.text(values[-1])}}}"

    def texts(self, values: Sequence[Value]) -> str:
        """Return the texts of several values in braces, e.g. `{64, 128}`."""
        return "{" + ", ".join(self.text(value) for value in values) + "}"

    @property
    def is_open(self) -> bool:
        """True if calls may come with values beyond the declared ones, which are then built."""
        return self.accepts is not None and self.choose is None

    @property
    def checks_calls(self) -> bool:
        """True if DIMORPH_CALL requires the `DISPATCH_` of this axis around it even when the axis has one value."""
        return self.choose is None and not self.for_cases_only

    def _checked(self, given: object) -> Value:
        normal = self.normal(given)
        if normal is None:
            raise DeclarationError(f"axis {self.name}: expected {self.expected}, got {given!r}")
        return normal

    # Methods in which a kind of axis defines its values.

    def normal(self, given: object) -> Value | None:
        """Return the normal form of a value or of its text; None if `given` is no value of this kind."""
        raise NotImplementedError

    def text(self, value: Value) -> str:
        """Return the text of a value, as command lines, messages and manifests show it."""
        return str(value)

    def admits(self, value: Value) -> bool:
        """Return True for a value beyond the declared ones that can be built."""
        return (self.accepts is not None and self.accepts(value)) or bool(self.choose and not self.values)

    def is_single(self, given: object) -> bool:
        """Return True if a sequence is one value, False if it lists several."""
        return False

    def check_set(self, values: Sequence[Value]) -> None:
        """Refuse values that cannot be together in one set.

        Raises:
            DeclarationError: two of the values conflict.
        """

    @property
    def size_names(self) -> tuple[str, ...]:
        """The names under which the shape of a variant's tensor may ask for a value."""
        return ()

    def sizes(self, value: Value) -> tuple[int, ...]:
        """Return the size that a value means under each of `size_names`."""
        return ()

    def named(self, text: str, root: Path) -> Value:
        """Return a value for a text, to describe a set that was built before and of which only the texts are known.

        Args:
            root: the directory of the kernel's sources.
        """
        return text

    def is_found_by(self, text: str) -> bool:
        """Return True if the text of a value suffices to build it."""
        return True

    # Methods in which a kind of axis defines its C++ text. `exprs` are the parameters of its `DISPATCH_` macro, one for
    # each name that the axis binds.

    @property
    def includes(self) -> tuple[str, ...]:
        """Headers that the config header includes for the axis."""
        return ()

    def literal(self, value: Value) -> str:
        """Return a C++ expression for a value."""
        return self.text(value)

    def exprs(self, value: Value) -> list[str]:
        """Return the C++ expressions that a `DISPATCH_` macro takes for a value."""
        return [self.literal(value)]

    def constant(self, value: Value) -> list[str]:
        """Return the lines that define the constant, type or macro that a case sees."""
        raise NotImplementedError

    def given(self, exprs: Sequence[str]) -> str:
        """Return a C++ expression for the value that a call gives, comparable with `compiled`."""
        return exprs[0]

    def compiled(self, value: Value) -> str:
        """Return a C++ expression for the value that was compiled, comparable with `given`."""
        return self.binds[0]

    def switched(self, exprs: Sequence[str]) -> str:
        """Return the C++ expression over which the table's macro switches."""
        return self.given(exprs)

    def row(self, index: int, value: Value) -> str:
        """Return the head of a value's row in the table: a macro and its arguments before the case variables."""
        return f"_DISPATCH_CASE({self.literal(value)}"

    def index(self, values: Sequence[Value]) -> str:
        """Return a C++ expression for the position of the bound value among `values`."""
        return f"dimorph_index_{self.name}({self.binds[0]})"

    def index_function(self, values: Sequence[Value]) -> list[str]:
        """Return the lines of the C++ function that `index` calls; none if it calls none."""
        return []


def index_switch(name: str, cpp_type: str, looked_at: str, literals: Iterable[str]) -> list[str]:
    """Return the lines of a C++ function that maps each of `literals` to its position, any other value to -1.

    The function is a `switch` because an axis may have hundreds of values, each of which is looked up once.
    """
    return [
        f"constexpr long long dimorph_index_{name}({cpp_type} value) {{",
        f"  switch ({looked_at}) {{",
        *(f"    case {literal}: return {index};" for index, literal in enumerate(literals)),
        "    default: return -1;",
        "  }",
        "}",
    ]
