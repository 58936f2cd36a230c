"""Describe the artifacts of a unit that have other keys than the one that is searched for, and how the keys differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dimorph.errors import ArtifactCorrupt
from dimorph.plan.key_diff import differences
from dimorph.plan.key_record import KeyRecord
from dimorph.plan.unit import Unit
from dimorph.resolve.levels import levels
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.store.layers import Layer

# The most combinations of values that a line lists.
_MOST = 8


def near(layer: Layer, unit: Unit, settings: Settings, held: dict[Path, list[Artifact]]) -> Iterator[str]:
    """Describe what a layer holds of the same unit under other keys: the newest artifact, and how its key differs.

    Args:
        layer: the layer to search.
        unit: the unit that the load needs.
        settings: the settings of the load.
        held: the artifacts of stores that were already listed, by directory; extended here.
    """
    targets = levels(unit, settings)
    keys = {target.name: unit.key(target, settings) for target in targets}
    if layer.store.root not in held:
        try:
            held[layer.store.root] = [item for item in layer.store.entries() if isinstance(item, Artifact)]
        except OSError:
            held[layer.store.root] = []  # `passed` says why it cannot be read
    same = [a for a in held[layer.store.root] if (a.meta.kernel, a.meta.kind) == (unit.kernel.name, unit.kind)]
    others = [a for a in same if a.meta.specialization == unit.values and a.meta.key not in keys.values()]
    if others:
        # An artifact for a level of this load is closer than a newer one for another level.
        closest = max(others, key=lambda a: (a.meta.target in keys, a.meta.created_at()))
        level = next((target for target in targets if target.name == closest.meta.target), targets[0])
        yield f"{layer.name} holds it as {describe(closest)}, with another key:"
        yield from (f"  {line}" for line in compared(closest, KeyRecord.of(unit, level, settings)))
    elif same and not any(a.meta.specialization == unit.values for a in same):
        values = sorted({values_text(artifact) or "several values" for artifact in same})
        more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
        yield f"{layer.name} holds this {unit.kind} for: {'; '.join(values[:_MOST])}{more}"


def compared(artifact: Artifact, now: KeyRecord) -> list[str]:
    """Return lines that describe how the key of an artifact differs from another one."""
    try:
        lines = differences(KeyRecord.recorded(artifact), now)
    except (ArtifactCorrupt, OSError) as error:
        return [f"cannot be compared: {error}"]
    return lines or ["no recorded part of the key differs: another version of Dimorph made it"]


def describe(artifact: Artifact) -> str:
    """Describe an artifact in a few words: the first digits of its key, target, time and compiler."""
    meta = artifact.meta
    return f"{meta.key[:12]} ({meta.target}, {meta.created_at():%Y-%m-%d %H:%M} UTC, {meta.toolchain})"


def values_text(artifact: Artifact) -> str:
    """Return the values of an artifact's specialization, for people."""
    return ", ".join(f"{name}={text}" for name, text in artifact.meta.specialization.items())
