"""Specializations (one value for every axis of a kernel) and instantiation sets (several values for an axis)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dimorph.declare.axis import Axis, Value
from dimorph.declare.declaration import Declaration
from dimorph.errors import DeclarationError


class _Values(dict[str, Value]):
    """The values of axes by name, for a function of the author's that asks for them."""

    def __init__(self, kernel: Declaration, asker: str, values: Mapping[str, Value]) -> None:
        super().__init__(values)
        self._asker = f"{kernel.declared_at}: kernel {kernel.name}: {asker}"

    def __missing__(self, name: object) -> Value:
        raise DeclarationError(f"{self._asker} asks for an axis {name!r}; there are: {', '.join(self) or 'none'}")


@dataclass(frozen=True)
class Specialization:
    """One value for every axis of a kernel."""

    kernel: Declaration
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

    def __repr__(self) -> str:
        return f"<dimorph.Specialization {self.kernel.name}({self})>"

    def alone(self) -> InstantiationSet:
        """Return the set that holds this specialization and no other."""
        return InstantiationSet(self.kernel, tuple((value,) for value in self.values))

    def archs(self) -> tuple[str, ...]:
        """Return the names of the GPU architectures that its device code supports."""
        archs = self.kernel.archs
        if not callable(archs):
            return tuple(archs)
        values = {axis.name: value for axis, value in self.pairs()}
        return tuple(archs(_Values(self.kernel, "`archs`", values)))

    def covering(self) -> list[Specialization]:
        """Return the other specializations that compute the same, by the kernel's `covers`, the best first.

        Raises:
            DeclarationError: the function returns what is no specialization of the kernel.
        """
        kernel = self.kernel
        if kernel.covers is None:
            return []
        own = {axis.name: value for axis, value in self.pairs()}
        problem = {axis.name: value for axis, value in self.pairs() if not axis.choose}
        found: list[Specialization] = []
        listed = kernel.covers(_Values(kernel, "`covers`", own))
        if not isinstance(listed, (list, tuple)):
            raise DeclarationError(f"kernel {kernel.name}: covers: expected a list for {self}, got {listed!r}")
        for other in listed:
            try:
                instantiations = instantiate(kernel, {**problem, **other})
            except (DeclarationError, TypeError) as error:
                raise DeclarationError(f"kernel {kernel.name}: covers: {other!r} for {self}: {error}") from error
            if not instantiations.specialized:
                raise DeclarationError(f"kernel {kernel.name}: covers: expected one value for each axis, got {other!r}")
            found.append(next(iter(instantiations)))
        return [one for one in dict.fromkeys(found) if one.values != self.values]

    @property
    def namespace(self) -> str:
        """The C++ namespace of its case, which names the combination in an error or a stack trace."""
        parts = [self.kernel.name, *self.texts().values()]
        return "__".join(re.sub(r"\W", "m", part) for part in parts)


@dataclass(frozen=True)
class InstantiationSet:
    """A set of specializations: the values of every axis, and the combinations of them that exist.

    Attributes:
        kernel: the kernel that is instantiated.
        values: for each axis in declaration order, its values; none for a choice axis whose value `choose` computes.
        only: the combinations that exist, one value for each axis; None: those that the kernel's `where` admits.
    """

    kernel: Declaration
    values: tuple[tuple[Value, ...], ...]
    only: tuple[tuple[Value, ...], ...] | None = None

    @property
    def specialized(self) -> bool:
        """True if every problem axis has one value, so that the JIT form of the config header is used."""
        return self.slots == 1

    @property
    def slots(self) -> int:
        """The number of combinations of problem axes, existing or not."""
        count = 1
        for _, values in self.dispatched():
            count *= len(values)
        return count

    def __str__(self) -> str:
        axes = ", ".join(f"{axis.name}={axis.shown(values)}" for axis, values in self.pairs() if values)
        return f"{self.kernel.name}({axes})"

    def __repr__(self) -> str:
        # Where a function says which combinations exist, to count them may take long.
        filtered = self.only is None and self.kernel.where is not None
        count = self.slots if self.only is None else sum(1 for _ in self)
        return f"<dimorph.InstantiationSet {self}: {'up to ' * filtered}{count} combination{'s' * (count != 1)}>"

    def pairs(self) -> Iterator[tuple[Axis, tuple[Value, ...]]]:
        """Yield each axis with its values."""
        return zip(self.kernel.axes, self.values, strict=True)

    def dispatched(self) -> Iterator[tuple[Axis, tuple[Value, ...]]]:
        """Yield the axes that have several values, each with them, in declaration order."""
        return ((axis, values) for axis, values in self.pairs() if len(values) > 1)

    def texts(self) -> dict[str, list[str]]:
        """Return axis name -> its values, as text."""
        return {axis.name: [axis.text(value) for value in values] for axis, values in self.pairs()}

    def beyond_declared(self) -> dict[str, tuple[Value, ...]]:
        """Return axis name -> its values, for the axes whose values differ from the declared ones."""
        declared = instantiate(self.kernel).values
        return {
            axis.name: values
            for (axis, values), declared_values in zip(self.pairs(), declared, strict=True)
            if values != declared_values
        }

    def specialization(self, slot: int) -> Specialization | None:
        """Return the specialization of a slot; None if that combination is not in the set."""
        return self._complete(self._picks(slot))

    def picked(self, slot: int) -> dict[str, str]:
        """Return axis name -> value, as text, of a slot, without the axes whose value `choose` computes."""
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

    @cached_property
    def _listed(self) -> frozenset[tuple[Value, ...]]:
        """The combinations of `only`, which every slot of a set is compared with."""
        return frozenset(self.only or ())

    def _picks(self, slot: int) -> list[Value]:
        """Return the value of each axis in a slot; None for an axis whose value `choose` computes."""
        picks: list[Value] = []
        for values in reversed(self.values):
            count = max(len(values), 1)
            picks.append(values[slot % count] if values else None)
            slot //= count
        return picks[::-1]

    def _complete(self, picks: Sequence[Value]) -> Specialization | None:
        """Return the specialization, its missing values chosen; None if the combination does not exist."""
        kernel = self.kernel
        problem = {a.name: v for a, v in zip(kernel.axes, picks, strict=True) if v is not None}
        found = Specialization(
            kernel,
            tuple(
                _chosen(kernel, axis, problem) if value is None else value
                for axis, value in zip(kernel.axes, picks, strict=True)
            ),
        )
        if self.only is not None:
            return found if found.values in self._listed else None
        named = {axis.name: value for axis, value in found.pairs()}
        return found if kernel.where is None or kernel.where(_Values(kernel, "`where`", named)) else None


def _chosen(kernel: Declaration, axis: Axis, values: Mapping[str, Value]) -> Value:
    """Return the value that a choice axis has beside those of the other axes."""
    if axis.choose is None:
        return None
    return axis.value(axis.choose(_Values(kernel, f"`choose` of axis {axis.name}", values)))


def instantiate(kernel: Declaration, values: Mapping[str, object] | None = None) -> InstantiationSet:
    """Return the instantiation set of a kernel for the given values.

    An axis that is not named keeps its declared values; a choice axis that is not named has its value computed by
    `choose`. With one value on every problem axis, the set is a single specialization.

    Args:
        kernel: the kernel to instantiate.
        values: axis name -> a value, or several. They may be fewer or more than the declared ones.

    Raises:
        DeclarationError: an axis is unknown, a value is neither declared nor accepted, or no combination exists.
    """
    given = values or {}
    for name in given:
        kernel.position(name)
    left = tuple(
        axis.several(given[axis.name]) if axis.name in given else () if axis.choose else kernel.listed_values(axis)
        for axis in kernel.axes
    )
    for axis, now in zip(kernel.axes, left, strict=True):
        kernel.check_values(axis, now)
    everything = InstantiationSet(kernel, left)
    if kernel.only is not None:
        fixed = {axis.name: now[0] for axis, now in everything.pairs() if axis.choose and now}
        listed = InstantiationSet(kernel, left, tuple(_complete_row(kernel, row, fixed) for row in kernel.only))
        if next(iter(listed), None) is not None:
            return listed
        # The values named are outside of the list, so they were asked for on purpose and the list does not apply.
    if next(iter(everything), None) is None:
        asked = ", ".join(f"{n}={v}" for n, v in given.items()) or "the declared values"
        raise DeclarationError(f"kernel {kernel.name}: no combination is left with {asked}")
    return everything


def _complete_row(kernel: Declaration, row: Mapping[str, Value], fixed: Mapping[str, Value]) -> tuple[Value, ...]:
    """Return a row of `only` with a value for every axis: the row's, the caller's, the chosen or the only one."""

    def value(axis: Axis) -> Value:
        if axis.name in row:
            return row[axis.name]
        if axis.name in fixed:
            return fixed[axis.name]
        return _chosen(kernel, axis, row) if axis.choose else axis.values[0]

    return tuple(map(value, kernel.axes))
