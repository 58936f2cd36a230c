"""Which artifact serves: memory -> packaged -> stores -> build, with the reason for every step passed over."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dimorph.errors import ArtifactCorrupt, MissingSpecialization, StoreRefused, ToolchainError
from dimorph.kernel import InstantiationSet, Kernel, Specialization
from dimorph.logs import logger
from dimorph.plan.key import FFI_ABI
from dimorph.plan.unit import Level, Unit, case_units, declared_archs, device_unit, entry_unit
from dimorph.settings import Settings
from dimorph.source.include_scan import Files
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED, Candidate, candidates, fallback_stores, memo_dir, user_store
from dimorph.toolchain import archs, cuda, host, targets
from dimorph.toolchain import nvidia_driver as driver
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.cuda import CudaToolchain
from dimorph.toolchain.host import HostToolchain
from dimorph.toolchain.targets import Target

_log = logger("dimorph")


@dataclass(frozen=True)
class Resolution:
    """Which artifact serves a unit, where it came from, and why what comes earlier did not.

    Attributes:
        unit: what was asked for.
        artifact: what serves.
        place: `packaged`, `store`, `shared store` or `built`, with the directory.
        passed: one line for each place that did not serve.
    """

    unit: Unit = field(repr=False)
    artifact: Artifact
    place: str
    passed: tuple[str, ...]

    def __str__(self) -> str:
        why = f"; {'; '.join(self.passed)}" if self.passed else ""
        target, toolchain = self.artifact.meta.target, self.artifact.meta.toolchain
        return f"{self.unit.label}: {self.place}, {target}, {toolchain}{why}"


def target_levels(settings: Settings) -> tuple[Target, ...]:
    """The target levels that may serve, best first."""
    return (targets.by_name(settings.target),) if settings.target else targets.runnable()


def levels(unit: Unit, settings: Settings) -> tuple[Level, ...]:
    """The target levels or architectures that may serve a unit, best first."""
    return unit.archs or target_levels(settings)


def device_units(specialization: Specialization, settings: Settings, files: Files | None = None) -> list[Unit]:
    """The device code of a specialization: for each kind of GPU there is that can run it, or for the one named.

    None where the kernel has no device code, or nothing here can run it: its launches then say so.

    Args:
        files: those that units of the same load have read.
    """
    if not specialization.kernel.device:
        return []
    declared = declared_archs(specialization)
    if settings.arch:
        named = archs.admitted((archs.by_name(settings.arch),), declared, f"{specialization.kernel.name}")
        return [device_unit(specialization, named, files)]
    found = driver.find()
    serving = [archs.serving(gpu, declared) for gpu in dict.fromkeys(found.gpus if found else ())]
    return [device_unit(specialization, one, files) for one in serving if one]


def serving(instantiations: InstantiationSet, settings: Settings, policy: str) -> InstantiationSet:
    """The set whose entry serves a load: `instantiations`, or one around it that was built ahead of time.

    A build ahead of time makes one entry for a whole set, because an entry takes as long to compile as a small
    case. What was built for all values then serves a load of some or one of them.
    """
    kernel = instantiations.kernel
    if policy == "jit" or not (policy == "aot" or settings.shared_stores or (kernel.root / PACKAGED).is_dir()):
        return instantiations

    def there(unit: Unit) -> bool:
        return isinstance(find(unit, settings, policy), Resolution)

    if there(entry_unit(instantiations)):
        return instantiations
    if instantiations.specialized and not all(there(unit) for unit in case_units(instantiations)):
        return instantiations  # its error then names what was asked for
    for around in _around(instantiations, settings):
        beyond_list = around.only is not None and instantiations.only is None
        if around.values != instantiations.values and not beyond_list and there(entry_unit(around)):
            _log.info("%s: no entry has just the values asked for; one that has others too serves", kernel.name)
            return around
    return instantiations


def _around(instantiations: InstantiationSet, settings: Settings) -> Iterator[InstantiationSet]:
    """Sets that hold another: that of the declared values, then those that manifests tell of."""
    kernel = instantiations.kernel
    declared = zip(kernel.axes, instantiations.values, kernel.instantiations().values, strict=True)
    yield kernel.instantiations(**{axis.name: [*now] for axis, now, all_ in declared if not set(now) <= set(all_)})
    from dimorph.store import manifest

    for root in (kernel.root / PACKAGED, *settings.shared_stores):
        try:
            record = manifest.read(root).kernels.get(manifest.identity(kernel))
        except (OSError, ArtifactCorrupt) as error:
            _log.info("%s: its manifest is not used: %s", root, error)
            continue
        for built in record.built if record else ():
            if around := manifest.holding(built, instantiations):
                yield around


def find(unit: Unit, settings: Settings, policy: str, beside: Sequence[Path] = ()) -> Resolution | list[str]:
    """Looks for an artifact without compiling; the reasons if there is none.

    Args:
        beside: roots of other kernels whose packaged artifacts may hold it.
    """
    passed: list[str] = []
    fitting = levels(unit, settings)
    # Device code has dozens of levels that could serve, and mostly the first does.
    key_of = functools.cache(lambda level: unit.key(level, settings))
    toolchain = None if policy == "aot" else _compiler(unit, settings)
    for place in candidates(unit, settings, beside):
        if policy == "jit" and place.any_compiler:
            passed.append(f"{place.name}: policy is jit")
            continue
        # What could be compiled here must be the best: the best level, by the compiler that is here now.
        ours = None if place.any_compiler else toolchain
        artifact, why = _search(place, fitting[:1] if ours else fitting, key_of, ours)
        if artifact:
            return Resolution(unit, artifact, place.name, tuple(passed))
        passed.append(f"{place.name}: {why}")
    return passed


def _compiler(unit: Unit, settings: Settings) -> HostToolchain | CudaToolchain | None:
    """The compiler that a build would use; None if there is none."""
    try:
        return compiler(unit, settings)
    except ToolchainError as error:
        _log.info("whatever compiler made it serves, because there is none here: %s", error)
        return None


def compiler(unit: Unit, settings: Settings) -> HostToolchain | CudaToolchain:
    """The compiler that a build of a unit uses.

    Raises:
        ToolchainError: there is none.
    """
    return cuda.find(settings) if unit.kind == "device" else host.find(settings)


def resolve(units: Sequence[Unit], settings: Settings, policy: str, refusal: str | None = None) -> list[Resolution]:
    """Finds or builds artifacts for units; what has to be built is built side by side.

    Args:
        refusal: why nothing may be compiled just now; None: it may.

    Returns:
        The artifacts, in the order of `units`. Device code that is there for one kind of GPU is left out for another.

    Raises:
        MissingSpecialization: one is nowhere and the policy is `aot`, or there is no compiler.
        BuildError: one could not be compiled.
    """
    if policy == "aot":
        refusal = "the policy is aot, which never compiles"
    # The thread pool is packaged with the kernel that needs it, which comes first.
    beside = [unit.kernel.root for unit in units[:1]]
    found = [find(unit, settings, policy, beside) for unit in units]
    missing = [(unit, why) for unit, why in zip(units, found, strict=True) if isinstance(why, list)]
    if missing and refusal:
        served = any(isinstance(r, Resolution) and r.unit.kind == "device" for r in found)
        needed = [(unit, why) for unit, why in missing if not (served and unit.kind == "device")]
        if needed:
            unit, why = needed[0]
            raise _missing(unit, [*why, *_other_archs(unit, settings)], refusal)
        missing = []
    built = _built(missing, settings) if missing else {}
    results = [
        r if isinstance(r, Resolution) else built[id(u)]
        for u, r in zip(units, found, strict=True)
        if isinstance(r, Resolution) or id(u) in built
    ]
    for result in results:
        _log.info("%s", result)
    return results


def _built(missing: Sequence[tuple[Unit, list[str]]], settings: Settings) -> dict[int, Resolution]:
    """What was nowhere, compiled; by the identity of its unit."""
    compilers: dict[bool, HostToolchain | CudaToolchain] = {}
    for unit, why in missing:
        level = levels(unit, settings)[0]
        try:
            found = compiler(unit, settings)
            if isinstance(found, CudaToolchain) and isinstance(level, Arch):
                _check_driver(found, level)
        except ToolchainError as error:
            raise _missing(unit, why, str(error)) from error
        compilers[isinstance(found, CudaToolchain)] = found
    # Only a build needs what builds: without it a store hit in a new process is several milliseconds faster.
    from dimorph.resolve import build as builder

    # Device code takes longest, so where there are few cores it goes first.
    missing = sorted(missing, key=lambda one: one[0].kind != "device")
    jobs = [builder.Job(unit, levels(unit, settings)[0]) for unit, _ in missing]
    artifacts = builder.build(jobs, compilers.values(), settings, user_store(settings))
    return {
        id(unit): Resolution(unit, artifact, f"built ({artifact.path})", tuple(why))
        for (unit, why), artifact in zip(missing, artifacts, strict=True)
    }


def _check_driver(compiler: CudaToolchain, arch: Arch) -> None:
    """Refuses to compile what the driver of this process would not load."""
    needed, there = compiler.oldest_driver(arch), driver.find()
    if there and needed > there.version:
        raise ToolchainError(
            f"{compiler.program} is of CUDA {cuda.describe(compiler.version)}: for {arch.name} it needs a driver for "
            f"CUDA {cuda.describe(needed)}, the one here is for {cuda.describe(there.version)}; update the driver, or "
            f"install an older compiler: pip install 'nvidia-cuda-nvrtc-cu{there.version[0]}'"
        )


def _search(
    place: Candidate,
    fitting: Sequence[Level],
    key_of: Callable[[Level], str],
    ours: HostToolchain | CudaToolchain | None,
) -> tuple[Artifact | None, str]:
    """An artifact in one place, best target first, or why there is none.

    Args:
        fitting: the target levels or architectures that may serve, best first.
        key_of: the key for one of them.
        ours: the compiler that must have made it; None: any serves.
    """
    why = "not there"
    stores = (place.store, *(() if place.any_compiler else fallback_stores()))
    if place.any_compiler and not place.store.root.is_dir():
        return None, why
    for level, store in itertools.product(fitting, stores):
        key = key_of(level)
        try:
            artifact = store.find(key)
            if artifact is None:
                continue
            if ours:
                # Asked for only now: telling a compiler's identity for the first time takes a while.
                identity = ours.identity(memo_dir(place.store))
                why = f"made by {artifact.meta.toolchain}, the compiler here is {identity.description}"
                if artifact.meta.toolchain_id != identity.id:
                    artifact = store.find(key, identity.id)
            if artifact and (too_new := _driver_too_old(artifact)):
                why = too_new
            elif artifact and artifact.meta.ffi_abi == FFI_ABI:
                return artifact, ""
            elif artifact:
                why = f"made for {artifact.meta.ffi_abi}, this is {FFI_ABI}"
        except StoreRefused as error:
            why = f"refused: {error}"
        except OSError as error:
            why = f"cannot be read: {error}"
    if why == "not there" and place.any_compiler:
        # More than an empty store: the sources or values differ from those it was built for.
        why = "nothing in it has the key of these sources and values"
    return None, why


def _driver_too_old(artifact: Artifact) -> str | None:
    """Why the driver of this process does not load an artifact, if it does not."""
    needs, there = artifact.meta.device, driver.find() if artifact.meta.device else None
    if needs and there and needs.driver_version > there.version:
        return f"needs a driver for CUDA {needs.driver}, this one is for {cuda.describe(there.version)}"
    return None


def _other_archs(unit: Unit, settings: Settings) -> Iterator[str]:
    """What places hold of device code, for GPUs other than those that there are."""
    if unit.kind != "device":
        return
    for place in candidates(unit, settings):
        try:
            there = [arch.name for arch in archs.every() if place.store.find(unit.key(arch, settings))]
        except OSError:
            continue  # the line of that place says so
        if there:
            yield f"{place.name} has it for {', '.join(there)} alone, which the GPU here does not run"


def _missing(unit: Unit, why: Sequence[str], reason: str) -> MissingSpecialization:
    kernel = unit.kernel
    command = build_command(kernel, unit.values, unit.archs[:1])
    what = f"{unit.label} for {unit.archs[0].name}" if unit.archs else unit.label
    lines = [f"{what} is not there: {reason}", *(f"  {line}" for line in why), f"  build it: {command}"]
    available = {axis.name: [axis.text(v) for v in axis.values] for axis in kernel.axes}
    return MissingSpecialization(
        "\n".join(lines), kernel=kernel.name, missing=unit.values, available=available, command=command
    )


def build_command(kernel: Kernel, values: Mapping[str, str], levels: Sequence[Arch] = ()) -> str:
    """The command that builds what a call with these values needs ahead of time, for architectures that it names."""
    axes = [f"{name}={text}" for name, text in values.items()]
    axes += [word for arch in levels for word in ("--arch", arch.name)]
    what = f"{kernel.origin}:{kernel.name}"
    return shlex.join(["dimorph", "build", what, *axes, "--out", str(kernel.root / PACKAGED)])
