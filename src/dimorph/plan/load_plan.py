"""Every unit that a load needs. Loading, building ahead, explain and the editor all read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.plan.pool import pool_unit
from dimorph.plan.unit import Unit, case_unit, device_unit, entry_unit
from dimorph.source.include_scan import Files
from dimorph.toolchain import archs
from dimorph.toolchain.archs import Arch

# A specialization with device code -> the architectures it is wanted for: one tuple for each kind of GPU, best first.
DeviceArchs = Callable[[Specialization], Sequence[tuple[Arch, ...]]]


def load_plan(
    instantiations: InstantiationSet,
    device_archs: DeviceArchs,
    specializations: Iterable[Specialization] | None = None,
    files: Files | None = None,
) -> list[Unit]:
    """Plan the entry of a set, its cases with their device code, and the thread pool where one of them uses it.

    Args:
        device_archs: says which device code is wanted.
        specializations: the ones whose cases are wanted; default: all of the set.
        files: the files that have been read for this load.

    Raises:
        DeclarationError: a source is missing, or one that cannot be keyed.
    """
    files = files or Files()
    units = [entry_unit(instantiations, files)]
    for specialization in instantiations if specializations is None else specializations:
        units += _case(specialization, device_archs, files)
    return _with_pool(units)


def case_plan(specialization: Specialization, device_archs: DeviceArchs, files: Files | None = None) -> list[Unit]:
    """Plan one case with its device code, and the thread pool where it uses it; see `load_plan`."""
    return _with_pool(_case(specialization, device_archs, files or Files()))


def declared_archs(specialization: Specialization) -> tuple[Arch, ...]:
    """Return the architectures that the device code of a specialization is for.

    Raises:
        ToolchainError: the kernel declares a name that is none.
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
