"""What a load would use and why not something else, without compiling or loading anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dimorph.declare.instantiations import InstantiationSet
from dimorph.errors import ArtifactCorrupt, DeclarationError, DimorphError, ToolchainError
from dimorph.plan.key_diff import differences
from dimorph.plan.key_record import KeyRecord
from dimorph.plan.load_plan import load_plan
from dimorph.plan.unit import Unit, case_unit, device_unit, entry_unit
from dimorph.resolve.levels import archs_here, compiler, levels, target_levels
from dimorph.resolve.missing import build_command
from dimorph.resolve.search import Resolution, search
from dimorph.resolve.wider import serving_set
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact, is_hex
from dimorph.store.layers import Layer, layers
from dimorph.toolchain.archs import by_name

# Combinations of values that are listed.
_MOST = 8


@dataclass(frozen=True)
class Verdict:
    """What serves one unit of a load.

    Attributes:
        unit: what is needed.
        key: its key for the best target level.
        artifact: what serves; None: nothing does yet.
        serves: where it is, or what a load would do.
        fails: whether a load would fail here.
        passed: a line for each place that is passed over.
        near: for places passed over, what they hold of this unit under another key, and the differences.
    """

    unit: Unit
    key: str
    artifact: Artifact | None
    serves: str
    fails: bool
    passed: tuple[str, ...]
    near: tuple[str, ...]


def explain(instantiations: InstantiationSet, settings: Settings, policy: str) -> list[Verdict]:
    """What a load of these values would use: for the entry, then for each case, then for what they share.

    A dispatching module looks for its cases when they are first called.

    Raises:
        DeclarationError: a source is missing, or one that cannot be keyed.
        ToolchainError: no target level, or none of the name in the settings.
    """
    serving = serving_set(instantiations, settings, policy)
    units = load_plan(serving, archs_here(settings), instantiations)
    held: dict[Path, list[Artifact]] = {}
    return [_verdict(unit, settings, policy, [units[0].kernel.root], held) for unit in units]


def _verdict(
    unit: Unit, settings: Settings, policy: str, beside: list[Path], held: dict[Path, list[Artifact]]
) -> Verdict:
    target = levels(unit, settings)[0]
    key = unit.key(target, settings)
    found = search(unit, settings, policy, beside)
    if isinstance(found, Resolution):
        meta = found.artifact.meta
        serves, fails = f"{found.place}, for {meta.target}, made by {meta.toolchain}", False
        artifact, passed = found.artifact, found.passed
    else:
        serves, fails = _without(unit, settings, policy, target.name)
        artifact, passed = None, tuple(found)
    searched = layers(unit.kernel.root, settings, beside)[: len(passed)]
    near = tuple(line for layer in searched for line in _near(layer, unit, settings, held))
    return Verdict(unit, key, artifact, serves, fails, passed, near)


def _without(unit: Unit, settings: Settings, policy: str, target: str) -> tuple[str, bool]:
    """What happens where there is no artifact; whether that is a failure."""
    mend = f"build it: {build_command(unit.kernel, unit.values, unit.archs[:1])}"
    if policy == "aot":
        return f"fails, as the policy is aot, which never compiles; {mend}", True
    try:
        used = compiler(unit, settings)
    except ToolchainError as error:
        return f"fails: {error}; or {mend}", True
    return f"would be compiled by {used.command[0]} for {target}", False


def _near(layer: Layer, unit: Unit, settings: Settings, held: dict[Path, list[Artifact]]) -> Iterator[str]:
    """What a place holds of the same unit under another key: the newest, and in what its key differs.

    Args:
        held: what places hold, remembered from one unit to the next.
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
        # One for a level that counts here says more than a newer one for another.
        closest = max(others, key=lambda a: (a.meta.target in keys, a.meta.created_at()))
        level = next((target for target in targets if target.name == closest.meta.target), targets[0])
        yield f"{layer.name} holds it as {describe(closest)}, with another key:"
        yield from (f"  {line}" for line in _compared(closest, KeyRecord.of(unit, level, settings)))
    elif same and not any(a.meta.specialization == unit.values for a in same):
        values = sorted({_values(artifact) or "several values" for artifact in same})
        more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
        yield f"{layer.name} holds this {unit.kind} for: {'; '.join(values[:_MOST])}{more}"


def _compared(artifact: Artifact, now: KeyRecord) -> list[str]:
    try:
        lines = differences(KeyRecord.recorded(artifact), now)
    except (ArtifactCorrupt, OSError) as error:
        return [f"cannot be compared: {error}"]
    return lines or ["nothing that is recorded differs: another version of Dimorph made it"]


def describe(artifact: Artifact) -> str:
    """An artifact in words: the first digits of its key, when and for what it was made."""
    meta = artifact.meta
    return f"{meta.key[:12]} ({meta.target}, {meta.created_at():%Y-%m-%d %H:%M} UTC, {meta.toolchain})"


def _values(artifact: Artifact) -> str:
    return ", ".join(f"{name}={text}" for name, text in artifact.meta.specialization.items())


def _cases(instantiations: InstantiationSet) -> list[Unit]:
    return [case_unit(one) for one in instantiations if instantiations.kernel.case]


def against(instantiations: InstantiationSet, other: str, settings: Settings) -> list[str]:
    """In what the key of a recorded artifact differs from that of its unit now.

    Args:
        instantiations: the values whose entry or case is compared, by the kind of the artifact.
        other: the directory of an artifact, or the first digits of a key in a place where loads look.

    Raises:
        DimorphError: there is no such artifact, or several.
        DeclarationError: it is of another kernel, or of a combination that is not among the values.
    """
    entry = entry_unit(instantiations)
    artifact = _artifact(entry, other, settings)
    meta = artifact.meta
    if meta.kernel != entry.kernel.name:
        raise DeclarationError(f"{other}: expected an artifact of kernel {entry.kernel.name}, got one of {meta.kernel}")
    units = [entry] if meta.kind == "entry" else _cases(instantiations)
    if meta.kind == "device":
        units = [device_unit(specialization, (by_name(meta.target),)) for specialization in instantiations]
    unit = next((u for u in units if u.values == meta.specialization), units[0] if len(units) == 1 else None)
    if unit is None:
        raise DeclarationError(f"{other}: it is for {_values(artifact)}, which is not among the values asked for")
    level = next((t for t in levels(unit, settings) if t.name == meta.target), levels(unit, settings)[0])
    key = unit.key(level, settings)
    lines = [f"then: {describe(artifact)}", f"now:  {key[:12]} ({unit.label}, {level.name})"]
    if key == meta.key:
        return [*lines, "the keys are equal"]
    return [*lines, *_compared(artifact, KeyRecord.of(unit, level, settings))]


def between(first: InstantiationSet, second: InstantiationSet, settings: Settings) -> list[str]:
    """In what the keys of two sets of values differ: of their entries, and of their cases where each has one."""
    level = target_levels(settings)[0]
    pairs = [(entry_unit(first), entry_unit(second))]
    if first.specialized and second.specialized:
        pairs += zip(_cases(first), _cases(second), strict=True)
    lines = []
    for one, other in pairs:
        keys = [unit.key(level, settings)[:12] for unit in (one, other)]
        lines.append(f"{keys[0]} ({one.label}), {keys[1]} ({other.label}):")
        changed = differences(KeyRecord.of(one, level, settings), KeyRecord.of(other, level, settings))
        lines += [f"  {line}" for line in changed or ["the keys are equal"]]
    return lines


def _artifact(unit: Unit, other: str, settings: Settings) -> Artifact:
    if Path(other).is_dir():
        return Artifact.load(Path(other))
    if len(other) < 4 or not is_hex(other, len(other)):
        raise DimorphError(f"{other}: expected the directory of an artifact, or at least 4 digits of a key")
    held = [item for layer in layers(unit.kernel.root, settings) for item in layer.store.entries()]
    found = [item for item in held if isinstance(item, Artifact) and item.meta.key.startswith(other)]
    if len({artifact.meta.key for artifact in found}) != 1:
        names = "; ".join(describe(artifact) for artifact in found[:5])
        raise DimorphError(f"{other}: expected the start of one key, found {names or 'none'}")
    return found[0]
