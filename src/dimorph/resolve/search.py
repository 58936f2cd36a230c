"""Search the layers of stores for the artifact of a unit, with the reason for every layer passed over."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dimorph._lazy import logger
from dimorph.errors import StoreRefused, ToolchainError
from dimorph.plan.key import FFI_ABI
from dimorph.plan.unit import Unit
from dimorph.resolve.levels import compiler, levels
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.store.layers import Layer, fallback_stores, layers, memo_dir
from dimorph.toolchain import archs, cuda, nvidia_driver
from dimorph.toolchain.compiler import Compiler, Level

_log = logger("dimorph")


@dataclass(frozen=True)
class Resolution:
    """The artifact that serves a unit, where it came from, and why earlier layers did not serve.

    Attributes:
        unit: the unit that was asked for.
        artifact: the artifact that serves.
        place: `packaged`, `store`, `shared store` or `built`, with the directory.
        passed: one line for each layer that did not serve.
    """

    unit: Unit = field(repr=False)
    artifact: Artifact
    place: str
    passed: tuple[str, ...]

    def __str__(self) -> str:
        why = f"; {'; '.join(self.passed)}" if self.passed else ""
        target, toolchain = self.artifact.meta.target, self.artifact.meta.toolchain
        return f"{self.unit.label}: {self.place}, {target}, {toolchain}{why}"


def search(unit: Unit, settings: Settings, policy: str, beside: Sequence[Path] = ()) -> Resolution | list[str]:
    """Look for an artifact without compiling; return the reasons if there is none.

    Args:
        beside: roots of other kernels whose packaged artifacts may hold it.
    """
    passed: list[str] = []
    fitting = levels(unit, settings)
    # Device code has dozens of levels that could serve, and mostly the first does.
    key_of = functools.cache(lambda level: unit.key(level, settings))
    available = None if policy == "aot" else _available_compiler(unit, settings)
    for layer in layers(unit.kernel.root, settings, beside):
        if policy == "jit" and layer.any_compiler:
            passed.append(f"{layer.name}: policy is jit")
            continue
        # An artifact that could be compiled here must be the best: the best level, by the compiler that is here now.
        required = None if layer.any_compiler else available
        artifact, why = _search_layer(layer, fitting[:1] if required else fitting, key_of, required)
        if artifact:
            return Resolution(unit, artifact, layer.name, tuple(passed))
        passed.append(f"{layer.name}: {why}")
    return passed


def held_for_other_archs(unit: Unit, settings: Settings) -> Iterator[str]:
    """Yield a line for each layer that holds a unit of device code for GPUs other than those that there are."""
    if unit.kind != "device":
        return
    for layer in layers(unit.kernel.root, settings):
        try:
            there = [arch.name for arch in archs.every() if layer.store.find(unit.key(arch, settings))]
        except OSError:
            continue  # the line of that layer says so
        if there:
            yield f"{layer.name} has it for {', '.join(there)} alone, which the GPU here does not run"


def _available_compiler(unit: Unit, settings: Settings) -> Compiler | None:
    """Return the compiler that a build would use; None if there is none."""
    try:
        return compiler(unit, settings)
    except ToolchainError as error:
        _log.info("whatever compiler made it serves, because there is none here: %s", error)
        return None


def _search_layer(
    layer: Layer, fitting: Sequence[Level], key_of: Callable[[Level], str], required: Compiler | None
) -> tuple[Artifact | None, str]:
    """Return an artifact of one layer, best target first, or why there is none.

    Args:
        fitting: the target levels or architectures that may serve, best first.
        key_of: the key for one of them.
        required: the compiler that must have made it; None: any serves.
    """
    why = "not there"
    stores = (layer.store, *(() if layer.any_compiler else fallback_stores()))
    if layer.any_compiler and not layer.store.root.is_dir():
        return None, why
    for level, store in itertools.product(fitting, stores):
        key = key_of(level)
        try:
            artifact = store.find(key)
            if artifact is None:
                continue
            if required:
                # Asked for only now: telling a compiler's identity for the first time takes a while.
                identity = required.identity(memo_dir(layer.store))
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
    if why == "not there" and layer.any_compiler:
        # More than an empty store: the sources or values differ from those it was built for.
        why = "nothing in it has the key of these sources and values"
    return None, why


def _driver_too_old(artifact: Artifact) -> str | None:
    """Say why the NVIDIA driver of this process does not load an artifact; None where it does."""
    needs, there = artifact.meta.device, nvidia_driver.find() if artifact.meta.device else None
    if needs and there and needs.driver_version > there.version:
        return f"needs a driver for CUDA {needs.driver}, this one is for {cuda.describe(there.version)}"
    return None
