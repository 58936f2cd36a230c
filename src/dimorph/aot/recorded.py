"""From a record of use to the sets of kernels that a build makes: exactly the recorded cases, and entries for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from dimorph import _cxxflags
from dimorph.aot.discover import find_kernel, find_variant
from dimorph.declare.axis import Value
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.declare.reference import Reference
from dimorph.declare.variant import Variant
from dimorph.errors import ArtifactCorrupt, DeclarationError, ToolchainError
from dimorph.store.use import Use
from dimorph.toolchain import archs, targets

# The most combinations of one entry that has cases for few of them: it takes some seconds to compile.
_MOST = 4096

_Row = tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Found:
    """A line of a record with the set that it means today.

    Attributes:
        use: the line.
        wanted: the values that a load asked for, or the one specialization of a case.
    """

    use: Use
    wanted: InstantiationSet


@dataclass
class Part:
    """A set to build.

    Attributes:
        wanted: the set; its `only` lists the recorded cases.
        targets: the target levels that it was recorded for.
        archs: the architectures that device code was recorded for.
        debug, cxxflags: the settings that it was recorded with.
    """

    wanted: InstantiationSet
    targets: list[str]
    archs: list[str]
    debug: bool
    cxxflags: tuple[str, ...]


@dataclass
class _Kernel:
    """The cases of one kernel in a record that have the same settings, so that one build makes them."""

    sets: list[InstantiationSet] = field(default_factory=list)
    cases: list[InstantiationSet] = field(default_factory=list)
    targets: dict[str, None] = field(default_factory=dict)
    archs: dict[str, None] = field(default_factory=dict)


def find(uses: Iterable[Use]) -> tuple[list[Found], list[str]]:
    """Find the kernels and variants of a record again.

    Returns:
        The lines that were found; and for each other one, why it was not, and what to do.
    """
    found, problems = [], []
    kernels: dict[Reference, Declaration | str] = {}
    variants: dict[Reference, Variant] = {}  # a file in no package is run anew each time
    for use in uses:
        if use.found not in kernels:
            try:
                kernels[use.found] = find_kernel(use.found, use.kernel)
            except DeclarationError as error:
                kernels[use.found] = str(error)
        kernel = kernels[use.found]
        if isinstance(kernel, str):
            problems.append(f"{use.label}: {kernel}")
            continue
        try:
            found.append(Found(use, _wanted(kernel, use, variants)))
        except (DeclarationError, ArtifactCorrupt, ToolchainError) as error:
            problems.append(f"{use.label}: {error}")
    return found, list(dict.fromkeys(problems))


def parts(found: Iterable[Found]) -> list[Part]:
    """Return the sets to build: every recorded case once for each level, and entries that serve every recorded load.

    An entry takes as long to compile as a small case. So loads of one specialization share an entry, as after any build
    ahead of time (`resolve.wider`), and a set that lies within another has no entry of its own.
    """
    kernels: dict[tuple[int, bool, tuple[str, ...]], _Kernel] = {}
    for one in found:
        use = one.use
        here = kernels.setdefault((id(one.wanted.kernel), use.debug, tuple(use.cxxflags)), _Kernel())
        (here.sets if use.kind == "entry" else here.cases).append(one.wanted)
        here.targets[use.target] = None
        here.archs |= dict.fromkeys(use.archs)
    made = []
    for (_, debug, flags), kernel in kernels.items():
        for wanted in _sets(kernel):
            made.append(Part(wanted, list(kernel.targets), list(kernel.archs), debug, flags))
    return made


def _sets(recorded: _Kernel) -> Iterator[InstantiationSet]:
    kernel = (recorded.sets + recorded.cases)[0].kernel
    single = [one.values for one in recorded.sets if one.specialized] if kernel.case else []
    joined = [one for group in _alike(kernel, single) for one in _joined(kernel, list(dict.fromkeys(group)))]
    candidates = [one.values for one in recorded.sets if not one.specialized or not kernel.case] + joined
    # Of a load that was killed before its case was recorded, too.
    alone = [*recorded.cases, *(InstantiationSet(kernel, row) for row in single)]
    cases = {one.values: next(iter(one)).values for one in alone}
    for values in list(dict.fromkeys(candidates)):
        if not any(other != values and _within(values, other) for other in candidates):
            held = [case for given, case in cases.items() if _within(given, values)]
            yield InstantiationSet(kernel, values, tuple(held) if kernel.case else None)


def _alike(kernel: Declaration, rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Group rows that have the same on each choice axis, chosen or fixed: only such rows can be in one set."""
    groups: dict[_Row, list[_Row]] = {}
    for row in rows:
        fixed = tuple(values for axis, values in zip(kernel.axes, row, strict=True) if axis.choose)
        groups.setdefault(fixed, []).append(row)
    yield from groups.values()


def _joined(kernel: Declaration, rows: Sequence[_Row]) -> list[_Row]:
    """Return the values of one set that has all rows; of several sets, if most of its combinations would be unused.

    Two variants of one name cannot be in one set either.
    """
    union = tuple(tuple(dict.fromkeys(value for row in rows for value in row[at])) for at in range(len(rows[0])))
    twice = [
        at
        for at, (axis, values) in enumerate(zip(kernel.axes, union, strict=True))
        if len({axis.text(value) for value in values}) < len(values)
    ]
    if not twice and prod(max(len(values), 1) for values in union) <= _MOST:
        return [union]
    axis = twice[0] if twice else max(range(len(union)), key=lambda at: len(union[at]))
    half = set(union[axis][: len(union[axis]) // 2])
    first = [row for row in rows if row[axis][0] in half]
    return _joined(kernel, first) + _joined(kernel, [row for row in rows if row[axis][0] not in half])


def _within(values: _Row, other: _Row) -> bool:
    return all(bool(one) == bool(more) and set(one) <= set(more) for one, more in zip(values, other, strict=True))


def _wanted(kernel: Declaration, use: Use, variants: dict[Reference, Variant]) -> InstantiationSet:
    """Return the set that a line means with the present declaration.

    Args:
        kernel: the kernel.
        use: the line.
        variants: those that were found so far; extended here.

    Raises:
        DeclarationError: the kernel has other axes, does not accept a value, or a variant is not found again.
        ArtifactCorrupt: the description of a variant cannot be read, or a flag is not admitted.
        ToolchainError: there is no such target level or architecture.
    """
    targets.by_name(use.target)
    for name in use.archs:
        archs.by_name(name)
    if refused := [flag for flag in use.cxxflags if _cxxflags.refused(flag)]:
        raise ArtifactCorrupt(f"the flag {refused[0]} is not admitted: the record was edited, record again")
    if set(use.values) != {axis.name for axis in kernel.axes}:
        there, asked = ", ".join(axis.name for axis in kernel.axes), ", ".join(use.values)
        raise DeclarationError(f"the kernel has the axes {there} now, the record has {asked}: record again")
    for name, reference in use.variants.items():
        if reference not in variants:
            variants[reference] = find_variant(reference, name)
    own = {name: variants[reference] for name, reference in use.variants.items()}
    given = {name: [own.get(text, text) for text in texts] for name, texts in use.values.items() if texts}
    found = instantiate(kernel, given)
    if [bool(values) for values in found.values] != [bool(use.values[axis.name]) for axis in kernel.axes]:
        raise DeclarationError("another axis is a choice axis now: record again")
    return replace(found, only=None) if use.kind == "case" else found
