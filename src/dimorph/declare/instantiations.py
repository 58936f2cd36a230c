"""Values left on the axes of a kernel: one for each is a specialization, several are an instantiation set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dimorph.declare.axis import Axis, Value
from dimorph.declare.declaration import Declaration
from dimorph.errors import DeclarationError


@dataclass(frozen=True)
class Specialization:
    """One value for every axis of a kernel."""

    kernel: Declaration = field(repr=False)
    values: tuple[Value, ...]

    def __getitem__(self, axis: str) -> Value:
        return self.values[self.kernel.position(axis)]

    def pairs(self) -> Iterator[tuple[Axis, Value]]:
        """Yield each axis with its value."""
        return zip(self.kernel.axes, self.values, strict=True)

    def texts(self) -> dict[str, str]:
        """Return axis name -> value, as text."""
        return {axis.name: axis.text(value) for axis, value in self.pairs()}

    def __str__(self) -> str:
        return ", ".join(f"{name}={text}" for name, text in self.texts().items()) or "no axes"

    def alone(self) -> InstantiationSet:
        """Return the set that holds this specialization and no other."""
        return InstantiationSet(self.kernel, tuple((value,) for value in self.values))

    def archs(self) -> tuple[str, ...]:
        """Return the names of the GPU architectures that its device code is for."""
        archs = self.kernel.archs
        if not callable(archs):
            return archs
        return tuple(archs({axis.name: value for axis, value in self.pairs()}))

    @property
    def namespace(self) -> str:
        """The C++ namespace of its case, which names the combination in an error or a stack trace."""
        parts = [self.kernel.name, *self.texts().values()]
        return "__".join(re.sub(r"\W", "m", part) for part in parts)


@dataclass(frozen=True)
class InstantiationSet:
    """The values left on every axis, and which of their combinations exist.

    Attributes:
        values: for each axis in declaration order, the values left; none for a choice axis that nobody fixed.
        only: an explicit sparse list; None: every combination that the kernel's filter admits.
    """

    kernel: Declaration = field(repr=False)
    values: tuple[tuple[Value, ...], ...]
    only: tuple[tuple[Value, ...], ...] | None = None

    @property
    def specialized(self) -> bool:
        """True where one value is left on every problem axis, so that the JIT form of the header serves."""
        return self.slots == 1

    @property
    def slots(self) -> int:
        """The number of combinations of problem axes, existing or not."""
        count = 1
        for _, values in self.dispatched():
            count *= len(values)
        return count

    def pairs(self) -> Iterator[tuple[Axis, tuple[Value, ...]]]:
        """Yield each axis with the values left on it."""
        return zip(self.kernel.axes, self.values, strict=True)

    def dispatched(self) -> Iterator[tuple[Axis, tuple[Value, ...]]]:
        """Yield the axes with several values left, in slot order."""
        return ((axis, values) for axis, values in self.pairs() if len(values) > 1)

    def texts(self) -> dict[str, list[str]]:
        """Return axis name -> the values left, as text."""
        return {axis.name: [axis.text(value) for value in values] for axis, values in self.pairs()}

    def beyond_declared(self) -> dict[str, tuple[Value, ...]]:
        """Return axis name -> the values left, of the axes that do not have their declared values."""
        declared = instantiate(self.kernel).values
        return {
            axis.name: values
            for (axis, values), declared_values in zip(self.pairs(), declared, strict=True)
            if values != declared_values
        }

    def specialization(self, slot: int) -> Specialization | None:
        """Return the specialization of a slot; None where that combination is not in the set."""
        return self._complete(self._picks(slot))

    def picked(self, slot: int) -> dict[str, str]:
        """Return axis name -> value, as text, of a slot, for the axes that are not chosen."""
        pairs = zip(self.kernel.axes, self._picks(slot), strict=True)
        return {axis.name: axis.text(value) for axis, value in pairs if value is not None}

    def __iter__(self) -> Iterator[Specialization]:
        for slot in range(self.slots):
            if found := self.specialization(slot):
                yield found

    def with_values(self, axis_name: str, values: tuple[Value, ...]) -> InstantiationSet:
        """Return the same set with other values on one axis."""
        position = self.kernel.position(axis_name)
        return InstantiationSet(self.kernel, (*self.values[:position], values, *self.values[position + 1 :]), self.only)

    def widened(self, axis_name: str, value: Value) -> InstantiationSet:
        """Return the same set with one more value on an axis."""
        return self.with_values(axis_name, (*self.values[self.kernel.position(axis_name)], value))

    def _picks(self, slot: int) -> list[Value]:
        """Return the value of each axis in a slot; None for an axis that is chosen."""
        picks: list[Value] = []
        for values in reversed(self.values):
            count = max(len(values), 1)
            picks.append(values[slot % count] if values else None)
            slot //= count
        return picks[::-1]

    def _complete(self, picks: Sequence[Value]) -> Specialization | None:
        """Choose the values that are missing; None where the combination does not exist."""
        kernel = self.kernel
        problem = {a.name: v for a, v in zip(kernel.axes, picks, strict=True) if v is not None}
        found = Specialization(
            kernel,
            tuple(
                axis.value(axis.choose(problem)) if value is None and axis.choose else value
                for axis, value in zip(kernel.axes, picks, strict=True)
            ),
        )
        if self.only is not None:
            return found if found.values in self.only else None
        named = {axis.name: value for axis, value in found.pairs()}
        return found if kernel.where is None or kernel.where(named) else None


def instantiate(kernel: Declaration, values: Mapping[str, object] | None = None) -> InstantiationSet:
    """Return the set that is left when axes are fixed to a value, or narrowed or widened to a list of values.

    An axis that is not named keeps its declared values; a choice axis that is not named is chosen. With every
    problem axis at one value the result is a single specialization.

    Args:
        values: axis name -> a value, or several.

    Raises:
        DeclarationError: an unknown axis, or a value that the axis neither declares nor accepts.
    """
    given = values or {}
    for name in given:
        kernel.position(name)
    left = tuple(
        axis.several(given[axis.name]) if axis.name in given else () if axis.choose else kernel.listed_values(axis)
        for axis in kernel.axes
    )
    everything = InstantiationSet(kernel, left)
    if kernel.only is not None:
        fixed = {axis.name: now[0] for axis, now in everything.pairs() if axis.choose and now}
        listed = InstantiationSet(kernel, left, tuple(_complete_row(kernel, row, fixed) for row in kernel.only))
        if next(iter(listed), None) is not None:
            return listed
        # Whoever names values that the list lacks wants just those.
    if next(iter(everything), None) is None:
        asked = ", ".join(f"{n}={v}" for n, v in given.items()) or "the declared values"
        raise DeclarationError(f"kernel {kernel.name}: no combination is left with {asked}")
    return everything


def _complete_row(kernel: Declaration, row: Mapping[str, Value], fixed: Mapping[str, Value]) -> tuple[Value, ...]:
    """Return a row of `only` with a value for every axis: given, fixed by the caller, chosen, or the only one."""

    def value(axis: Axis) -> Value:
        if axis.name in row:
            return row[axis.name]
        if axis.name in fixed:
            return fixed[axis.name]
        return axis.value(axis.choose(row)) if axis.choose else axis.values[0]

    return tuple(map(value, kernel.axes))
