"""Kernels: the declaration that headers, keys, builds and manifests are derived from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimorph.declare.axes import IDENTIFIER, Axis, Value, check_names
from dimorph.declare.variant import declaring_file
from dimorph.errors import DeclarationError

if TYPE_CHECKING:
    from dimorph.aot import Report
    from dimorph.runtime.module import Module
    from dimorph.settings import Settings


@dataclass(frozen=True)
class Specialization:
    """One value for every axis of a kernel."""

    kernel: Kernel = field(repr=False)
    values: tuple[Value, ...]

    def __getitem__(self, axis: str) -> Value:
        return self.values[self.kernel.position(axis)]

    def texts(self) -> dict[str, str]:
        """Axis name -> value, as text."""
        return {axis.name: axis.text(value) for axis, value in zip(self.kernel.axes, self.values, strict=True)}

    def __str__(self) -> str:
        return ", ".join(f"{name}={text}" for name, text in self.texts().items()) or "no axes"

    def archs(self) -> tuple[str, ...]:
        """The GPU architectures that its device code is for."""
        archs = self.kernel.archs
        if not callable(archs):
            return archs
        return tuple(archs({axis.name: v for axis, v in zip(self.kernel.axes, self.values, strict=True)}))

    @property
    def namespace(self) -> str:
        """The C++ namespace of its case, so that an error or a stack trace says which one it is."""
        parts = [self.kernel.name, *self.texts().values()]
        return "__".join(re.sub(r"\W", "m", part) for part in parts)


@dataclass(frozen=True)
class InstantiationSet:
    """The values left on every axis, and which of their combinations exist.

    Attributes:
        values: for each axis in declaration order, the values left; none for a choice axis that nobody fixed.
        only: an explicit sparse list; None: every combination that the kernel's filter admits.
    """

    kernel: Kernel = field(repr=False)
    values: tuple[tuple[Value, ...], ...]
    only: tuple[tuple[Value, ...], ...] | None = None

    @property
    def specialized(self) -> bool:
        """Whether one value is left on every axis, so that the JIT form of the header serves."""
        return self.slots == 1

    @property
    def slots(self) -> int:
        """How many combinations of problem axes there are, existing or not."""
        count = 1
        for _, values in self.dispatched():
            count *= len(values)
        return count

    def dispatched(self) -> Iterator[tuple[Axis, tuple[Value, ...]]]:
        """The axes with several values left, in slot order."""
        for axis, values in zip(self.kernel.axes, self.values, strict=True):
            if len(values) > 1:
                yield axis, values

    def specialization(self, slot: int) -> Specialization | None:
        """The specialization of a slot, None if that combination is not in the set."""
        return self._complete(self._picks(slot))

    def picked(self, slot: int) -> dict[str, str]:
        """Axis name -> value, as text, of a slot: of the axes that are not chosen."""
        pairs = zip(self.kernel.axes, self._picks(slot), strict=True)
        return {axis.name: axis.text(value) for axis, value in pairs if value is not None}

    def __iter__(self) -> Iterator[Specialization]:
        for slot in range(self.slots):
            if found := self.specialization(slot):
                yield found

    def widened(self, axis_name: str, value: Value) -> InstantiationSet:
        """The same set with one more value on an axis."""
        position = self.kernel.position(axis_name)
        values = list(self.values)
        values[position] = (*values[position], value)
        return InstantiationSet(self.kernel, tuple(values), self.only)

    def _picks(self, slot: int) -> list[Value]:
        picks: list[Value] = []
        for values in reversed(self.values):
            count = max(len(values), 1)
            picks.append(values[slot % count] if values else None)
            slot //= count
        return picks[::-1]

    def _complete(self, picks: Sequence[Value]) -> Specialization | None:
        kernel = self.kernel
        problem = {a.name: v for a, v in zip(kernel.axes, picks, strict=True) if v is not None}
        complete = tuple(
            axis.value(axis.choose(problem)) if value is None and axis.choose else value
            for axis, value in zip(kernel.axes, picks, strict=True)
        )
        if self.only is not None:
            return Specialization(kernel, complete) if complete in self.only else None
        named = dict(zip((a.name for a in kernel.axes), complete, strict=True))
        return Specialization(kernel, complete) if kernel.where is None or kernel.where(named) else None


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel, declared once. Printable and immutable; nothing is read or compiled until it is loaded.

    Attributes:
        name: a C++ identifier.
        entry: the source that validates arguments and dispatches, relative to `root`.
        case: the sources compiled once for each specialization, relative to `root`; they make one translation unit.
        device: CUDA sources beside the case's, which launches what they define; relative to `root`, one unit too.
        archs: the GPU architectures that the device sources are for, e.g. `("sm_80", "sm_90a")`: what is built ahead of
            time, and what can run them. `sm_80` stands for every later GPU too, `sm_90a` for 9.0 alone. For kernels
            with several families of device code, a pure function of axis name -> value.
        axes: the compile-time parameters; axis order is slot order.
        functions: the functions that the cases define and the entry calls; default: the kernel's name.
        where: which combinations exist; gets axis name -> value.
        only: the combinations that exist, as an explicit list of axis name -> value.
        include_dirs: searched for headers after `root`, relative to it.
        root: the directory that the paths are relative to; default: that of `origin`.
        origin: the file that declares the kernel.
    """

    name: str
    entry: str
    case: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    archs: tuple[str, ...] | Callable[[Mapping[str, Value]], Sequence[str]] = ()
    axes: tuple[Axis, ...] = ()
    functions: tuple[str, ...] = ()
    where: Callable[[Mapping[str, Value]], bool] | None = field(default=None, repr=False)
    only: tuple[Mapping[str, Any], ...] | None = None
    include_dirs: tuple[str, ...] = ()
    root: Path = field(default=None, repr=False)  # type: ignore[assignment]  # set by __post_init__
    origin: Path = field(default_factory=lambda: declaring_file(3), repr=False)

    def __post_init__(self) -> None:
        for name in ("case", "device", "archs", "axes", "functions", "include_dirs", "only"):
            given = getattr(self, name)
            if (given is None and name == "only") or (callable(given) and name == "archs"):
                continue
            if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
                raise DeclarationError(f"kernel {self.name!r}: {name}: expected a list, got {given!r}")
            object.__setattr__(self, name, tuple(given))
        object.__setattr__(self, "functions", self.functions or ((self.name,) if self.case else ()))
        object.__setattr__(self, "root", Path(self.root or self.origin.parent).resolve())
        for path in (self.entry, *self.case, *self.device, *self.include_dirs):
            if Path(path).is_absolute():
                raise DeclarationError(f"kernel {self.name!r}: {path}: expected a path relative to `root`")
        for name in (self.name, *self.functions):
            if not IDENTIFIER.match(name):
                raise DeclarationError(f"kernel {self.name!r}: {name!r} is not a C++ identifier")
        names = [axis.name for axis in self.axes]
        binds = [bind for axis in self.axes for bind in axis.binds]
        for what, given in (("axes", names), ("bound names", binds)):
            if twice := [n for n in given if given.count(n) > 1]:
                raise DeclarationError(f"kernel {self.name!r}: two {what} are called {twice[0]!r}")
        if sum(axis.kind == "variant" for axis in self.axes) > 1:
            raise DeclarationError(f"kernel {self.name!r}: it has two variant axes; one is possible")
        self._check_sources()
        if self.only is not None:
            object.__setattr__(self, "only", tuple(self._checked_row(row) for row in self.only))

    def position(self, axis_name: str) -> int:
        """Where an axis stands.

        Raises:
            DeclarationError: there is no such axis.
        """
        for position, axis in enumerate(self.axes):
            if axis.name == axis_name:
                return position
        names = ", ".join(axis.name for axis in self.axes) or "none"
        raise DeclarationError(f"kernel {self.name}: no axis is called {axis_name!r}; there are: {names}")

    def instantiations(self, **values: object) -> InstantiationSet:
        """The set that is left when axes are fixed to a value, or narrowed or widened to a list of values.

        An axis that is not named keeps its declared values; a choice axis that is not named is chosen. With every
        problem axis at one value the result is a single specialization.

        Raises:
            DeclarationError: an unknown axis, or a value that the axis neither declares nor accepts.
        """
        for name in values:
            self.position(name)
        left: list[tuple[Value, ...]] = []
        for axis in self.axes:
            if axis.name in values:
                left.append(_several(axis, values[axis.name]))
            else:
                left.append(() if axis.choose else self._listed_values(axis))
        everything = InstantiationSet(self, tuple(left))
        if self.only is not None:
            fixed = {axis.name: now[0] for axis, now in zip(self.axes, left, strict=True) if axis.choose and now}
            rows = tuple(self._complete_row(row, fixed) for row in self.only)
            listed = InstantiationSet(self, tuple(left), rows)
            if next(iter(listed), None) is not None:
                return listed
            # Whoever names values that the list lacks wants just those.
        if next(iter(everything), None) is None:
            asked = ", ".join(f"{n}={v}" for n, v in values.items()) or "the declared values"
            raise DeclarationError(f"kernel {self.name}: no combination is left with {asked}")
        return everything

    def load(self, *, policy: str | None = None, settings: Settings | None = None, **values: object) -> Module:
        """Loads the kernel for some values of its axes: `kernel.load(dtype="float32", head_dim=[64, 128])`.

        With every axis at one value this is a specialized module, otherwise one that dispatches at run time. What
        is needed and nowhere to be found is compiled, unless `policy` (default: the settings') is `aot`. `settings`
        stand in for those of the environment.

        Raises:
            DeclarationError: an unknown axis or a value that it does not accept.
            MissingSpecialization: it is not there and may not be compiled.
            BuildError, ToolchainError: it could not be compiled.
        """
        from dimorph.runtime.module import load

        return load(self.instantiations(**values), policy, settings)

    def build(
        self,
        out: Path | str | None = None,
        /,
        *,
        targets: Sequence[str] | None = None,
        archs: Sequence[str] | None = None,
        settings: Settings | None = None,
        **values: object,
    ) -> Report:
        """Builds ahead of time what `load` with these values needs; see `dimorph.aot.build`.

        Args:
            out: the directory; default: `_dimorph` beside the sources, where `load` looks first.
            targets: names of target levels; default: the best of this machine.
            archs: names of GPU architectures; default: those that the kernel declares.
            settings: stand in for those of the environment.
        """
        from dimorph import aot

        return aot.build(self.instantiations(**values), out, targets=targets, archs=archs, settings=settings)

    def _check_sources(self) -> None:
        for what, given in (("axes", self.axes), ("device sources", self.device)):
            if given and not self.case:
                raise DeclarationError(f"kernel {self.name!r}: it has {what} but no case sources to compile for them")
        if self.device and not self.archs:
            raise DeclarationError(f"kernel {self.name!r}: it has device sources but no `archs` to compile them for")

    def _listed_values(self, axis: Axis) -> tuple[Value, ...]:
        """The declared values; with a sparse list, those that stand in it."""
        if self.only is None:
            return axis.values
        rows = [row[axis.name] for row in self.only if axis.name in row]
        return tuple(dict.fromkeys([*(v for v in axis.values if v in rows), *rows])) or axis.values

    def _checked_row(self, row: Mapping[str, Any]) -> dict[str, Value]:
        for name in row:
            self.position(name)
        for axis in self.axes:
            if axis.name not in row and not axis.choose and len(axis.values) != 1:
                raise DeclarationError(f"kernel {self.name}: a row of `only` gives no value for axis {axis.name}")
        return {axis.name: axis.value(row[axis.name]) for axis in self.axes if axis.name in row}

    def _complete_row(self, row: Mapping[str, Value], fixed: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(
            row[axis.name]
            if axis.name in row
            else fixed[axis.name]
            if axis.name in fixed
            else axis.value(axis.choose(row))
            if axis.choose
            else axis.values[0]
            for axis in self.axes
        )


def _several(axis: Axis, given: object) -> tuple[Value, ...]:
    many = isinstance(given, list) or (
        isinstance(given, (tuple, set, frozenset)) and not (axis.kind == "tuple" and isinstance(given, tuple))
    )
    values = tuple(dict.fromkeys(axis.value(v) for v in (given if many else [given])))  # type: ignore[attr-defined]
    if not values:
        raise DeclarationError(f"axis {axis.name}: expected at least one value, got none")
    if axis.kind == "variant":
        check_names(axis.name, values)
    if axis.choose and len(values) > 1:
        raise DeclarationError(f"axis {axis.name}: a choice axis can be fixed to one value, got {axis.texts(values)}")
    return values
