"""Explain which artifacts a load would use, and why others do not serve, without compiling or loading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dimorph.declare.instantiations import InstantiationSet
from dimorph.errors import DeclarationError, DimorphError, ToolchainError
from dimorph.plan.key_diff import differences
from dimorph.plan.key_record import KeyRecord
from dimorph.plan.load_plan import load_plan
from dimorph.plan.unit import Unit, case_unit, device_unit, entry_unit
from dimorph.resolve.levels import archs_here, compiler, levels, target_levels
from dimorph.resolve.missing import build_command
from dimorph.resolve.near import compared, describe, near, values_text
from dimorph.resolve.search import Resolution, search
from dimorph.resolve.wider import serving_set
from dimorph.settings import Settings
from dimorph.store import links
from dimorph.store.artifact import Artifact, is_hex
from dimorph.store.layers import layers
from dimorph.toolchain.archs import by_name


@dataclass(frozen=True)
class Verdict:
    """The explanation for one unit of a load.

    Attributes:
        unit: the unit that the load needs.
        key: its key for the best target level.
        artifact: the artifact that serves; None if no layer holds one.
        serves: the layer that holds the artifact, or what a load would do without one.
        fails: True if a load would fail because of this unit.
        passed: for each layer that is passed over, a line with the reason.
        near: lines about artifacts of the unit under other keys in those layers, and how the keys differ.
    """

    unit: Unit
    key: str
    artifact: Artifact | None
    serves: str
    fails: bool
    passed: tuple[str, ...]
    near: tuple[str, ...]


def explain(instantiations: InstantiationSet, settings: Settings, policy: str) -> list[Verdict]:
    """Explain the load of a set: its entry, then each case, then the units that they share.

    The cases of a dispatching module are included, although a load searches for them only when they are called.

    Raises:
        DeclarationError: a source is missing or has no key.
        ToolchainError: the settings name an unknown target level or architecture, or this CPU runs no level.
    """
    serving = serving_set(instantiations, settings, policy, read_only=True)
    units = load_plan(serving, archs_here(settings), instantiations)
    held: dict[Path, list[Artifact]] = {}
    return [_verdict(unit, settings, policy, [units[0].kernel.root], held) for unit in units]


def _verdict(
    unit: Unit, settings: Settings, policy: str, beside: list[Path], held: dict[Path, list[Artifact]]
) -> Verdict:
    target = levels(unit, settings)[0]
    key = unit.key(target, settings)
    found = search(unit, settings, policy, beside, read_only=True)
    if isinstance(found, Resolution):
        meta = found.artifact.meta
        needs = "".join(f"; needs {link}" for link in links.read(found.artifact))
        serves, fails = f"{found.place}, for {meta.target}, made by {meta.toolchain}{needs}", False
        artifact, passed = found.artifact, found.passed
    else:
        serves, fails = _without(unit, settings, policy, target.name)
        artifact, passed = None, tuple(found)
    searched = layers(unit.kernel.root, settings, beside, read_only=True)[: len(passed)]
    others = tuple(line for layer in searched for line in near(layer, unit, settings, held))
    return Verdict(unit, key, artifact, serves, fails, passed, others)


def _without(unit: Unit, settings: Settings, policy: str, target: str) -> tuple[str, bool]:
    """Return what a load does for a unit without an artifact, and True if it fails."""
    mend = f"build it: {build_command(unit.kernel, unit.values, unit.archs[:1])}"
    if policy == "aot":
        return f"fails, because the policy is aot, which never compiles; {mend}", True
    try:
        used = compiler(unit, settings)
    except ToolchainError as error:
        return f"fails: {error}; or {mend}", True
    return f"would be compiled by {used.command[0]} for {target}", False


def _cases(instantiations: InstantiationSet) -> list[Unit]:
    return [case_unit(one) for one in instantiations if instantiations.kernel.case]


def against(instantiations: InstantiationSet, other: str, settings: Settings) -> list[str]:
    """List how the key of an existing artifact differs from the key that its unit has now.

    Args:
        instantiations: the set whose entry, case or device code is compared, as the artifact is one or the other.
        other: the directory of an artifact, or at least 4 leading digits of a key in a store that loads search.
        settings: the settings of the load.

    Raises:
        DimorphError: there is no such artifact, or several match.
        DeclarationError: the artifact is of another kernel, or of a combination outside the set.
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
        raise DeclarationError(f"{other}: it is for {values_text(artifact)}, which is not among the requested values")
    level = next((t for t in levels(unit, settings) if t.name == meta.target), levels(unit, settings)[0])
    key = unit.key(level, settings)
    lines = [f"then: {describe(artifact)}", f"now:  {key[:12]} ({unit.label}, {level.name})"]
    if key == meta.key:
        return [*lines, "the keys are equal"]
    return [*lines, *compared(artifact, KeyRecord.of(unit, level, settings))]


def between(first: InstantiationSet, second: InstantiationSet, settings: Settings) -> list[str]:
    """List how the keys of two sets differ: those of their entries, and of their cases if each set has one."""
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
    held = [item for layer in layers(unit.kernel.root, settings, read_only=True) for item in layer.store.entries()]
    found = [item for item in held if isinstance(item, Artifact) and item.meta.key.startswith(other)]
    if len({artifact.meta.key for artifact in found}) != 1:
        names = "; ".join(describe(artifact) for artifact in found[:5])
        raise DimorphError(f"{other}: expected the start of one key, found {names or 'none'}")
    return found[0]
