"""The units that a set of specializations needs when it is built ahead of time, listed without a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.plan.load_plan import declared_archs, load_plan
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.toolchain import archs, targets
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.compiler import Level


class Need(NamedTuple):
    """A unit, and the target level or architecture that it is needed for."""

    unit: Unit
    target: Level


def needs(
    instantiations: InstantiationSet, target_names: Sequence[str], arch_names: Sequence[str], settings: Settings
) -> dict[str, Need]:
    """Return everything that a set needs, by its key.

    Args:
        target_names: target levels; host code is needed for each.
        arch_names: GPU architectures; none: those that the kernel declares.

    Raises:
        DeclarationError: a source is missing or cannot be keyed, or is for none of the architectures.
        ToolchainError: there is no such target or architecture.
    """
    named = [archs.by_name(name) for name in arch_names]

    def wanted(specialization: Specialization) -> Sequence[tuple[Arch, ...]]:
        declared = declared_archs(specialization)
        what = f"kernel {specialization.kernel.name} ({specialization})"
        return [archs.admitted(named, declared, what) if named else declared]

    units = load_plan(instantiations, wanted)
    levels = [targets.by_name(name) for name in target_names]
    found = [Need(unit, level) for level in levels for unit in units if not unit.archs]
    found += [Need(unit, arch) for unit in units for arch in unit.archs]
    return {need.unit.key(need.target, settings): need for need in found}
