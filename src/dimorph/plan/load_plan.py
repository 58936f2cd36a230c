"""The load plan: every unit that a load needs. Loading, building ahead of time, explain and the editor all use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.plan.pool import pool_unit
from dimorph.plan.unit import Unit, case_unit, device_unit, entry_unit
from dimorph.source.include_scan import Files
from dimorph.toolchain import archs
from dimorph.toolchain.archs import Arch

# A specialization with device code -> for each kind of GPU, the architectures that can serve it, best first.
DeviceArchs = Callable[[Specialization], Sequence[tuple[Arch, ...]]]


def load_plan(
    instantiations: InstantiationSet,
    device_archs: DeviceArchs,
    specializations: Iterable[Specialization] | None = None,
    files: Files | None = None,
) -> list[Unit]:
    """Plan the entry of a set, its cases with their device code, and the thread pool where one of them uses it.

    Args:
        instantiations: the set whose entry is planned.
        device_archs: returns the architectures to plan a specialization's device code for.
        specializations: the specializations whose cases are planned; default: all of the set.
        files: the files already read for this load; default: none.

    Raises:
        DeclarationError: a source is missing, or it includes a file that cannot be determined.
    """
    files = files or Files()
    units = [entry_unit(instantiations, files)]
    for specialization in instantiations if specializations is None else specializations:
        units += _case(specialization, device_archs, files)
    return _with_pool(units)


def case_plan(specialization: Specialization, device_archs: DeviceArchs, files: Files | None = None) -> list[Unit]:
    """Plan one case with its device code, and the thread pool if the case uses it; see `load_plan`."""
    return _with_pool(_case(specialization, device_archs, files or Files()))


def declared_archs(specialization: Specialization) -> tuple[Arch, ...]:
    """Return the architectures that the device code of a specialization supports.

    Raises:
        ToolchainError: a name that the kernel declares is not the name of an architecture.
    """
    return tuple(archs.by_name(name) for name in specialization.archs())


def _case(specialization: Specialization, device_archs: DeviceArchs, files: Files) -> list[Unit]:
    kernel = specialization.kernel
    if not kernel.case:
        return []
    wanted = device_archs(specialization) if kernel.device else ()
    return [case_unit(specialization, files), *(device_unit(specialization, levels, files) for levels in wanted)]


def _with_pool(units: list[Unit]) -> list[Unit]:
    return [*units, pool_unit()] if any(unit.parallel for unit in units) else units
