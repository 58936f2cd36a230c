"""Which artifact serves: memory -> packaged -> stores -> build, with the reason for every step passed over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dimorph import build as builder
from dimorph.artifact import Artifact
from dimorph.digest import FFI_ABI
from dimorph.errors import MissingSpecialization, StoreRefused, ToolchainError
from dimorph.kernel import Kernel
from dimorph.plan import Unit
from dimorph.settings import Settings
from dimorph.store import Store
from dimorph.toolchain import host, targets
from dimorph.toolchain.targets import Target

_log = logging.getLogger("dimorph")

# The directory of a package's artifacts, beside its kernels' sources.
PACKAGED = "_dimorph"


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


@dataclass(frozen=True)
class Candidate:
    """A place where artifacts may be.

    Attributes:
        name: for people.
        store: the directory.
        any_compiler: whether an artifact serves whichever compiler made it. Packaged and shared ones do: whoever
            made them chose the compiler. What was compiled here must match the compiler that is here now.
    """

    name: str
    store: Store
    any_compiler: bool


def candidates(unit: Unit, settings: Settings) -> list[Candidate]:
    """The places that are searched for a unit, in order."""
    packaged = unit.kernel.root / PACKAGED
    places = [Candidate(f"packaged ({packaged})", Store(packaged, writable=False, private=False), True)]
    places.append(Candidate(f"store ({settings.store})", user_store(settings), False))
    places += [
        Candidate(f"shared store ({root})", Store(root, writable=False, private=False), True)
        for root in settings.shared_stores
    ]
    return places


def user_store(settings: Settings) -> Store:
    """The store that builds go into."""
    return Store(settings.store)


def target_levels(settings: Settings) -> tuple[Target, ...]:
    """The target levels that may serve, best first."""
    return (targets.by_name(settings.target),) if settings.target else targets.runnable()


def find(unit: Unit, settings: Settings, policy: str) -> Resolution | list[str]:
    """Looks for an artifact without compiling; the reasons if there is none."""
    passed: list[str] = []
    keys = [(target, unit.key(target, settings)) for target in target_levels(settings)]
    for place in candidates(unit, settings):
        if policy == "jit" and place.any_compiler:
            passed.append(f"{place.name}: policy is jit")
            continue
        artifact, why = _search(place, keys, settings)
        if artifact:
            return Resolution(unit, artifact, place.name, tuple(passed))
        passed.append(f"{place.name}: {why}")
    return passed


def resolve(units: Sequence[Unit], settings: Settings, policy: str) -> list[Resolution]:
    """Finds or builds artifacts for units; what has to be built is built side by side.

    Raises:
        MissingSpecialization: one is nowhere and the policy is `aot`, or there is no compiler.
        BuildError: one could not be compiled.
    """
    found = [find(unit, settings, policy) for unit in units]
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


def _search(place: Candidate, keys: Sequence[tuple[Target, str]], settings: Settings) -> tuple[Artifact | None, str]:
    """An artifact in one place, best target first, or why there is none."""
    why = "not there"
    for _, key in keys:
        try:
            artifact = _newest(place.store, key)
            if artifact is None:
                continue
            if artifact.meta.ffi_abi != FFI_ABI:
                why = f"made for {artifact.meta.ffi_abi}, this is {FFI_ABI}"
                continue
            if place.any_compiler:
                return artifact, ""
            artifact, why = _same_compiler(place.store, key, artifact, settings)
            if artifact:
                return artifact, ""
        except StoreRefused as error:
            why = f"refused: {error}"
        except OSError as error:
            why = f"cannot be read: {error}"
    return None, _stale(place, keys, why)


def _newest(store: Store, key: str) -> Artifact | None:
    for place in (store, *(builder.fallback_stores() if store.writable else ())):
        if artifact := place.find(key):
            return artifact
    return None


def _same_compiler(store: Store, key: str, artifact: Artifact, settings: Settings) -> tuple[Artifact | None, str]:
    try:
        identity = host.find(settings).identity(builder.memo_dir(store))
    except ToolchainError as error:
        _log.info("no compiler to compare with (%s): what %s made serves", error, artifact.meta.toolchain)
        return artifact, ""
    if artifact.meta.toolchain_id == identity.id:
        return artifact, ""
    for place in (store, *builder.fallback_stores()):
        if same := place.find(key, identity.id):
            return same, ""
    return None, f"made by {artifact.meta.toolchain}, the compiler here is {identity.description}"


def _stale(place: Candidate, keys: Sequence[tuple[Target, str]], why: str) -> str:
    """Packaged artifacts without the right key say more than an empty store: the sources beside them differ."""
    if why == "not there" and place.any_compiler and place.store.root.is_dir():
        names = ", ".join(target.name for target, _ in keys)
        return f"there, but nothing in it has the key of these sources and values for {names}"
    return why


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
    axes = "".join(f" {name}={text}" for name, text in values.items())
    return f"dimorph build {kernel.origin}:{kernel.name}{axes} --out {kernel.root / PACKAGED}"
