"""Search the layers for the artifact of a unit, and record why each layer that was passed over did not serve."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dimorph._lazy import logger
from dimorph.errors import StoreRefused, ToolchainError, no_descriptors
from dimorph.plan.key import FFI_ABI
from dimorph.plan.unit import Unit
from dimorph.resolve.environment import warn_of_compiler
from dimorph.resolve.levels import MissingDependency, compiler, levels
from dimorph.resolve.reads import changed
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.store.layers import Layer, fallback_stores, layers, memo_dir
from dimorph.store.store import Store
from dimorph.toolchain import archs, cuda, nvidia_driver
from dimorph.toolchain.compiler import Compiler, Level

_log = logger("dimorph")


@dataclass(frozen=True)
class Resolution:
    """The artifact that serves a unit, the layer that it came from, and why earlier layers did not serve.

    Attributes:
        unit: the entry, case, device code or thread pool that the load needs.
        artifact: the artifact that serves.
        place: the layer that holds the artifact, `packaged`, `store`, `shared store` or `remote store`, or
            `built`; with the directory.
        passed: for each layer that did not serve, a line with the reason.
    """

    unit: Unit
    artifact: Artifact
    place: str
    passed: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<dimorph.Resolution {self.unit.label}: {self.place}, {self.artifact.meta.target}>"

    def __str__(self) -> str:
        why = f"; {'; '.join(self.passed)}" if self.passed else ""
        target, toolchain = self.artifact.meta.target, self.artifact.meta.toolchain
        return f"{self.unit.label}: {self.place}, {target}, {toolchain}{why}"


def search(
    unit: Unit,
    settings: Settings,
    policy: str,
    beside: Sequence[Path] = (),
    *,
    read_only: bool = False,
    every_level: bool = False,
) -> Resolution | list[str]:
    """Search for the artifact of a unit without compiling; return a reason for each layer if none holds it.

    Args:
        unit: the unit to search for.
        settings: the stores and target levels to search.
        policy: `auto`, `aot` or `jit`.
        beside: source directories of other kernels whose packaged artifacts may hold it.
        read_only: True to change nothing in any store, and to ask no remote store.
        every_level: True to take an artifact for another level than the best, where the best could be compiled.
    """
    passed: list[str] = []
    fitting = levels(unit, settings)
    # Device code has dozens of architectures that could serve, and mostly the first does: compute keys when needed.
    key_of = functools.cache(lambda level: unit.key(level, settings))
    # Packaged artifacts are searched first, and where they serve, nothing of a compiler is needed.
    available = functools.cache(lambda: _available_compiler(unit, settings, keep=not read_only))
    frozen = read_only or policy == "aot"
    for layer in layers(unit.kernel.root, settings, beside, read_only=frozen, fetch=not read_only):
        if policy == "jit" and layer.any_compiler:
            passed.append(f"{layer.name}: policy is jit")
            continue
        # Where a compiler is installed, an artifact of the user's store serves only if a build would make the same: for
        # the best level, by that compiler.
        try:
            required = None if layer.any_compiler or policy == "aot" else available()
        except MissingDependency as error:  # the store may hold what was made with another version of it
            passed.append(f"{layer.name}: {error}")
            continue
        best_alone = required and not every_level
        artifact, why = _search_layer(
            layer, fitting[:1] if best_alone else fitting, key_of, required, unit, not read_only
        )
        if artifact:
            return Resolution(unit, artifact, layer.name, tuple(passed))
        passed.append(f"{layer.name}: {why}")
    return passed


def held_for_other_archs(unit: Unit, settings: Settings) -> Iterator[str]:
    """Yield a line for each layer that holds a unit of device code only for architectures that no GPU here runs."""
    if unit.kind != "device":
        return
    for layer in layers(unit.kernel.root, settings, read_only=True):
        try:
            there = [arch.name for arch in archs.every() if layer.store.find(unit.key(arch, settings))]
        except OSError:
            continue  # the line of that layer already says so
        if there:
            yield f"{layer.name} has it only for {', '.join(there)}, which the GPU of this machine does not run"


def _available_compiler(unit: Unit, settings: Settings, *, keep: bool) -> Compiler | None:
    """Return the compiler that a build would use; None if there is none.

    Raises:
        MissingDependency: there is one, but not a library that the kernel depends on.
    """
    try:
        return compiler(unit, settings, keep=keep)
    except MissingDependency:
        raise
    except ToolchainError as error:
        if settings.nvcc if unit.kind == "device" else settings.cxx:
            warn_of_compiler(str(error))
        _log.info("artifacts made by any compiler serve, because nothing can be compiled here: %s", error)
        return None


def _search_layer(
    layer: Layer,
    fitting: Sequence[Level],
    key_of: Callable[[Level], str],
    required: Compiler | None,
    unit: Unit,
    keep: bool,
) -> tuple[Artifact | None, str]:
    """Return an artifact of one layer for the best level that it holds; or None, and why there is none.

    Args:
        layer: the layer to search.
        fitting: the target levels or architectures that may serve, best first.
        key_of: returns the unit's key for one of them.
        required: the compiler that must have made the artifact, from files that are still the same; None: any compiler.
        unit: the unit.
        keep: as for `changed`.
    """
    why = "not there"
    stores = (layer.store, *(() if layer.any_compiler else fallback_stores()))
    if layer.any_compiler and not layer.fetches and not os.path.lexists(layer.store.root):
        return None, why
    for level, store in itertools.product(fitting, stores):
        key = key_of(level)
        try:
            artifact = store.find(key)
            if artifact is None:
                continue
            if required:
                # Computed only now, because the first identification of a compiler takes a while.
                identity = required.identity(memo_dir(layer.store), keep=layer.store.writable)
                why = f"made by {artifact.meta.toolchain}, the compiler here is {identity.description}"
                if artifact.meta.toolchain_id != identity.id:
                    artifact = store.find(key, identity.id)
                if artifact and (stale := changed(artifact, unit, required, memo_dir(store), keep=keep)):
                    artifact, why = None, stale
            if artifact and (too_new := _driver_too_old(artifact)):
                why = too_new
            elif artifact and artifact.meta.ffi_abi == FFI_ABI:
                return artifact, ""
            elif artifact:
                why = f"made for {artifact.meta.ffi_abi}, this process has {FFI_ABI}"
        except OSError as error:
            why = _unreadable(error)
    if why == "not there" and layer.any_compiler:
        # The directory exists, so it was built for other sources or values.
        why = _other_version(layer.store) or "nothing in it has the key of these sources and values"
    return None, why


def _other_version(store: Store) -> str | None:
    from dimorph.store import manifest  # imported late, because few loads read a manifest

    return manifest.other_version(store)


def _unreadable(error: OSError) -> str:
    """Return why a store does not serve; raise the error again if the store has no part in it."""
    if no_descriptors(error):
        raise error
    return f"refused: {error}" if isinstance(error, StoreRefused) else f"cannot be read: {error}"


def _driver_too_old(artifact: Artifact) -> str | None:
    """Return why the NVIDIA driver of this process cannot load an artifact; None if it can."""
    needs, there = artifact.meta.device, nvidia_driver.find() if artifact.meta.device else None
    if needs and there and needs.driver_version > there.version:
        return f"needs an NVIDIA driver for CUDA {needs.driver}, this one is for {cuda.describe(there.version)}"
    return None
