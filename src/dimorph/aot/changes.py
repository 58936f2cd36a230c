"""Say why a build ahead of time cannot reuse what its directory holds, and what it changes there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dimorph.errors import counted
from dimorph.plan.key_record import KeyRecord
from dimorph.plan.unit import Unit
from dimorph.resolve.near import compared
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.store.manifest import Built, Row
from dimorph.store.store import Store
from dimorph.toolchain.compiler import Level


class Earlier:
    """The artifacts of a directory before a build, listed when they are first asked for.

    Args:
        store: the store of the directory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: list[Artifact] | None = None

    def why(self, unit: Unit, target: Level, key: str, settings: Settings) -> list[str]:
        """Return lines about the artifact of the same unit that is closest to one that was not found."""
        if self._held is None:
            self._held = [item for item in self._store.entries() if isinstance(item, Artifact)]
        what = (unit.kernel.name, unit.kind)
        same = [held for held in self._held if (held.meta.kernel, held.meta.kind) == what]
        if not same:
            return [f"the directory held no {unit.kind} of {unit.kernel.name}"]
        alike = [held for held in same if held.meta.specialization == unit.values]
        if not alike:
            return [f"the directory held no {unit.kind} for these values"]
        here = [held for held in alike if held.meta.target == target.name]
        if not here:
            return [f"the directory held it for {', '.join(sorted({held.meta.target for held in alike}))} only"]
        closest = max(here, key=lambda held: (held.meta.key == key, held.meta.created_at()))
        if closest.meta.key == key:
            return [f"the directory held it as made by {closest.meta.toolchain}"]
        now = KeyRecord.of(unit, target, settings)
        return [f"the directory held it with another key, {closest.meta.key[:12]}:", *compared(closest, now)]


def changes(before: Built | None, now: Built) -> Iterator[str]:
    """Yield lines that compare a set with its build before, by values, specializations, artifacts and sizes."""
    if before is None:
        yield "this set was not built into the directory before"
        return
    for name in {**before.values, **now.values}:
        old, new = before.values.get(name, []), now.values.get(name, [])
        yield from _listed(f"axis {name}", old, new)
    yield from _listed("target", before.targets + before.archs, now.targets + now.archs)
    if before.cxxflags != now.cxxflags:
        yield f"flags: {' '.join(before.cxxflags) or 'none'}, now {' '.join(now.cxxflags) or 'none'}"
    old_rows, new_rows = _by_unit(before), _by_unit(now)
    added, gone = new_rows.keys() - old_rows, old_rows.keys() - new_rows
    other = [name for name in new_rows.keys() & old_rows if new_rows[name].address != old_rows[name].address]
    for what, names in (("new", added), ("gone", gone), ("built again", other)):
        if names:
            yield f"{counted(len(names), 'artifact')} {what}"
    sizes = [sum(row.bytes for row in built.artifacts) for built in (before, now)]
    if sizes[0] != sizes[1]:
        yield f"size: {sizes[0] / 1000:.1f} kB, now {sizes[1] / 1000:.1f} kB"


def _listed(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for word, names in (("new", [n for n in new if n not in old]), ("gone", [n for n in old if n not in new])):
        if names:
            yield f"{what}: {word}: {', '.join(names)}"


def _by_unit(built: Built) -> Mapping[tuple[str, ...], Row]:
    rows = built.artifacts
    return {(row.kind, row.kernel, row.target, *(f"{n}={v}" for n, v in row.values.items())): row for row in rows}
