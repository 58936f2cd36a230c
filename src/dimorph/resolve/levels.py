"""The target levels and architectures that may serve on this machine, and the compilers for them."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph.declare.instantiations import Specialization
from dimorph.plan.load_plan import DeviceArchs, declared_archs
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.toolchain import archs, cuda, host, nvidia_driver, targets
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.compiler import Compiler, Level
from dimorph.toolchain.targets import Target


def target_levels(settings: Settings) -> tuple[Target, ...]:
    """Return the target levels that may serve, best first."""
    return (targets.by_name(settings.target),) if settings.target else targets.runnable()


def levels(unit: Unit, settings: Settings) -> tuple[Level, ...]:
    """Return the target levels or architectures that may serve a unit, best first."""
    return unit.archs or target_levels(settings)


def archs_here(settings: Settings) -> DeviceArchs:
    """Return the architectures wanted on this machine: for each kind of GPU there is, or the one named.

    There are none where nothing here can run a specialization's device code: its launches then say so.
    """

    def wanted(specialization: Specialization) -> Sequence[tuple[Arch, ...]]:
        declared = declared_archs(specialization)
        if settings.arch:
            return [archs.admitted((archs.by_name(settings.arch),), declared, specialization.kernel.name)]
        serving = [archs.serving(gpu, declared) for gpu in dict.fromkeys(nvidia_driver.gpus())]
        return [one for one in serving if one]

    return wanted


def compiler(unit: Unit, settings: Settings) -> Compiler:
    """Return the compiler that a build of a unit uses.

    Raises:
        ToolchainError: there is none.
    """
    return cuda.find(settings) if unit.kind == "device" else host.find(settings)
