"""The target levels and architectures that may serve on this machine, and the compilers for them."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph.declare.instantiations import Specialization
from dimorph.errors import ToolchainError
from dimorph.plan.load_plan import DeviceArchs, declared_archs
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.store.layers import memo_dir, user_store
from dimorph.toolchain import archs, cuda, host, nvidia_driver, targets
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.compiler import Compiler, Level
from dimorph.toolchain.host import HostCompiler
from dimorph.toolchain.targets import Target


def target_levels(settings: Settings) -> tuple[Target, ...]:
    """Return the target levels that may serve, best first."""
    return (targets.by_name(settings.target),) if settings.target else targets.runnable()


def levels(unit: Unit, settings: Settings) -> tuple[Level, ...]:
    """Return the target levels or architectures that may serve a unit, best first."""
    return unit.archs or target_levels(settings)


def archs_here(settings: Settings) -> DeviceArchs:
    """Return the function that gives the architectures to load a specialization's device code for.

    For each kind of GPU of this machine it gives a tuple of the declared architectures that serve, best first; with
    `settings.arch`, one tuple with that architecture. A GPU that runs none of them has no tuple: a launch on it raises
    an error.
    """

    def wanted(specialization: Specialization) -> Sequence[tuple[Arch, ...]]:
        declared = declared_archs(specialization)
        if settings.arch:
            return [archs.admitted((archs.by_name(settings.arch),), declared, specialization.kernel.name)]
        serving = [archs.serving(gpu, declared) for gpu in dict.fromkeys(nvidia_driver.gpus())]
        return [one for one in serving if one]

    return wanted


class MissingDependency(ToolchainError):
    """A compiler is there, but a library that the kernel depends on is not."""


def compiler(unit: Unit, settings: Settings, *, identify: bool = False, keep: bool = True) -> Compiler:
    """Return the compiler that builds a unit, with the dependencies of its kernel.

    A compiler that is known to be too old is passed over. It is known once it was identified.

    Args:
        unit: the unit to build.
        settings: the settings that name a compiler, or where to search for one.
        identify: identify compilers that are not known yet, which may start processes.
        keep: False to change nothing in the store.

    Raises:
        MissingDependency: a dependency is missing; the message says what to install.
        ToolchainError: there is no usable compiler.
    """
    used = cuda.find(settings) if unit.kind == "device" else _host(settings, identify=identify)
    if not unit.kernel.dependencies:
        return used
    from dimorph.resolve import dependencies  # here, because few kernels have any
    from dimorph.toolchain.with_dependencies import WithDependencies

    memo = memo_dir(user_store(settings, read_only=not identify))
    try:
        return WithDependencies(used, dependencies.found(unit.kernel, settings, memo, keep=keep))
    except ToolchainError as error:
        raise MissingDependency(str(error)) from error


def _host(settings: Settings, *, identify: bool) -> HostCompiler:
    old: list[str] = []
    for candidate in host.candidates(settings):
        if candidate in _new_enough:
            return candidate
        # Only a build may make the store.
        memo = memo_dir(user_store(settings, read_only=not identify))
        known = candidate.identity(memo) if identify else candidate.known_identity(memo)
        problem = host.too_old(candidate, known.description) if known else None
        if not problem:
            if known:
                _new_enough.add(candidate)
            return candidate
        old.append(problem)
    raise ToolchainError(f"{'; '.join(old)}. Install a newer one, or `pip install ziglang`, or name one in DIMORPH_CXX")


# Each unit of a load asks, and a compiler does not get older.
_new_enough: set[HostCompiler] = set()
