"""Which artifact serves: memory -> packaged -> stores -> build, with the reason for every step passed over."""

from __future__ import annotations

import itertools
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dimorph.artifact import Artifact
from dimorph.digest import FFI_ABI
from dimorph.errors import ArtifactCorrupt, MissingSpecialization, StoreRefused, ToolchainError
from dimorph.kernel import InstantiationSet, Kernel
from dimorph.places import PACKAGED, Candidate, candidates, fallback_stores, memo_dir, user_store
from dimorph.plan import Unit, case_units, entry_unit
from dimorph.settings import Settings
from dimorph.toolchain import host, targets
from dimorph.toolchain.host import HostToolchain
from dimorph.toolchain.targets import Target

_log = logging.getLogger("dimorph")


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
    from dimorph import manifest

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
    levels = target_levels(settings)
    keys = [unit.key(target, settings) for target in levels]
    toolchain = None if policy == "aot" else _compiler(settings)
    for place in candidates(unit, settings, beside):
        if policy == "jit" and place.any_compiler:
            passed.append(f"{place.name}: policy is jit")
            continue
        # What could be compiled here must be the best: the best level, by the compiler that is here now.
        ours = None if place.any_compiler else toolchain
        artifact, why = _search(place, keys[:1] if ours else keys, ours)
        if artifact:
            return Resolution(unit, artifact, place.name, tuple(passed))
        passed.append(f"{place.name}: {why}")
    return passed


def _compiler(settings: Settings) -> HostToolchain | None:
    """The compiler that a build would use; None if there is none."""
    try:
        return host.find(settings)
    except ToolchainError as error:
        _log.info("whatever compiler made it serves, because there is none here: %s", error)
        return None


def resolve(units: Sequence[Unit], settings: Settings, policy: str) -> list[Resolution]:
    """Finds or builds artifacts for units; what has to be built is built side by side.

    Raises:
        MissingSpecialization: one is nowhere and the policy is `aot`, or there is no compiler.
        BuildError: one could not be compiled.
    """
    # The thread pool is packaged with the kernel that needs it, which comes first.
    beside = [unit.kernel.root for unit in units[:1]]
    found = [find(unit, settings, policy, beside) for unit in units]
    missing = [(unit, why) for unit, why in zip(units, found, strict=True) if isinstance(why, list)]
    if missing and policy == "aot":
        raise _missing(*missing[0], "the policy is aot, which never compiles")
    built: dict[int, Resolution] = {}
    if missing:
        try:
            toolchain = host.find(settings)
        except ToolchainError as error:
            raise _missing(*missing[0], str(error)) from error
        target = target_levels(settings)[0]
        # Only a build needs what builds: without it a store hit in a new process is several milliseconds faster.
        from dimorph import build as builder

        jobs = [builder.Job(unit, target) for unit, _ in missing]
        artifacts = builder.build(jobs, toolchain, settings, user_store(settings))
        built = {
            id(unit): Resolution(unit, artifact, f"built ({artifact.path})", tuple(why))
            for (unit, why), artifact in zip(missing, artifacts, strict=True)
        }
    results = [r if isinstance(r, Resolution) else built[id(u)] for u, r in zip(units, found, strict=True)]
    for result in results:
        _log.info("%s", result)
    return results


def _search(place: Candidate, keys: Sequence[str], ours: HostToolchain | None) -> tuple[Artifact | None, str]:
    """An artifact in one place, best target first, or why there is none.

    Args:
        ours: the compiler that must have made it; None: any serves.
    """
    why = "not there"
    stores = (place.store, *(() if place.any_compiler else fallback_stores()))
    for key, store in itertools.product(keys, stores):
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
            if artifact and artifact.meta.ffi_abi == FFI_ABI:
                return artifact, ""
            if artifact:
                why = f"made for {artifact.meta.ffi_abi}, this is {FFI_ABI}"
        except StoreRefused as error:
            why = f"refused: {error}"
        except OSError as error:
            why = f"cannot be read: {error}"
    if why == "not there" and place.any_compiler and place.store.root.is_dir():
        # More than an empty store: the sources or values differ from those it was built for.
        why = "nothing in it has the key of these sources and values"
    return None, why


def _missing(unit: Unit, why: Sequence[str], reason: str) -> MissingSpecialization:
    kernel = unit.kernel
    command = build_command(kernel, unit.values)
    lines = [f"{unit.label} is not there: {reason}", *(f"  {line}" for line in why), f"  build it: {command}"]
    available = {axis.name: [axis.text(v) for v in axis.values] for axis in kernel.axes}
    return MissingSpecialization(
        "\n".join(lines), kernel=kernel.name, missing=unit.values, available=available, command=command
    )


def build_command(kernel: Kernel, values: Mapping[str, str]) -> str:
    """The command that builds what a call with these values needs ahead of time."""
    axes = [f"{name}={text}" for name, text in values.items()]
    what = f"{kernel.origin}:{kernel.name}"
    return shlex.join(["dimorph", "build", what, *axes, "--out", str(kernel.root / PACKAGED)])
