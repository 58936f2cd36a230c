"""Another case that serves a call while its own is compiled, because no store has it (`Settings.on_miss`: `serve`)."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from dimorph._fork import ForkSafeLock
from dimorph.declare.instantiations import Specialization
from dimorph.errors import DeclarationError, ToolchainError
from dimorph.plan.load_plan import DeviceArchs, case_plan
from dimorph.plan.pool import POOL
from dimorph.plan.unit import Unit
from dimorph.resolve.search import Resolution, search
from dimorph.runtime import ffi, library
from dimorph.settings import Settings
from dimorph.source.signature import Signature
from dimorph.toolchain import cuda

_HANDLE = re.compile(r"\b(?:New)?Handle\b")


class Found(NamedTuple):
    """The artifacts that serve a load at once, and the units that it still waits for.

    Attributes:
        what: what serves, for the log.
        resolutions: the artifacts that serve.
        units: the units that are still to be found or built, before those.
    """

    what: str
    resolutions: list[Resolution]
    units: list[Unit]


class StandIn:
    """A loaded case that serves instead of another one, until that is there.

    The entry gets copies of its case functions. They stay where they are, and `change` lets them call the other case,
    so a call costs what it always costs.
    """

    def __init__(self, case: library.Case) -> None:
        self._case = case
        self._functions: dict[str, ffi.CaseFunction] = {}
        self._lock = ForkSafeLock()

    def function(self, name: str) -> int:
        """Return the address of the CaseFunction for an exported function of the kernel."""
        with self._lock():
            if name not in self._functions:
                given = ffi.CaseFunction.from_address(self._case.function(name))
                self._functions[name] = ffi.CaseFunction(given.tag, given.signature, given.invoke)
            return ctypes.addressof(self._functions[name])

    def change(self, exact: library.Case) -> None:
        """Let every function call the case that this one served instead of.

        Raises:
            DeclarationError: its functions have other types, so it cannot be called in place of this one.
        """
        with self._lock():
            found = {name: ffi.CaseFunction.from_address(exact.function(name)) for name in self._functions}
            for name, function in self._functions.items():
                if found[name].tag != function.tag:
                    raise DeclarationError(f"{name}: the parameters have other types in the case that served instead")
            for name, function in self._functions.items():
                function.invoke = found[name].invoke
            self._case = exact


def find(
    wanted: Specialization,
    units: Sequence[Unit],
    exports: Mapping[str, Signature],
    archs: DeviceArchs,
    settings: Settings,
    policy: str,
) -> Found | None:
    """Find what computes the same as a case that is in no store, without waiting for its compile.

    First its code for another target level, or another case that the kernel's `covers` names, if a store has it; then
    device code of a first tier, which is compiled in less time. The case of a kernel with handles is not replaced,
    because a handle belongs to the case that made it.

    Args:
        wanted: the specialization whose case is among the units.
        units: the units of the load.
        exports: the functions of the entry.
        archs: the architectures of device code for this machine.
        settings: the stores and compilers.
        policy: the policy of the load.

    Returns:
        What serves; None: the case is there, or nothing serves instead.

    Raises:
        DeclarationError: `covers` returned what is no specialization.
    """
    beside = [unit.kernel.root for unit in units[:1]]

    def there(unit: Unit, *, every_level: bool = False) -> Resolution | None:
        found = search(unit, settings, policy, beside, every_level=every_level)
        return found if isinstance(found, Resolution) else None

    lacking = [unit for unit in units if unit.kind != "entry" and not there(unit)]
    if not lacking or any(_HANDLE.search(str(signature)) for signature in exports.values()):
        return None
    if wanted.kernel.covers is not None:
        for other in (wanted, *wanted.covering()):
            plan = [unit for unit in case_plan(other, archs) if not (unit.kernel is POOL and library.pool_runs())]
            served = [one for one in (there(unit, every_level=True) for unit in plan) if one]
            if len(served) == len(plan):
                targets = ", ".join(dict.fromkeys(one.artifact.meta.target for one in served))
                entries = [unit for unit in units if unit.kind == "entry" and unit.kernel is not POOL]
                return Found(f"{other}, for {targets}", served, entries)
    quick = [unit for unit in lacking if unit.kind == "device"]
    if quick and not settings.debug and _has_first_tier(settings):
        tiers = [replace(unit, first_tier=True) if unit in quick else unit for unit in units]
        return Found("its first tier", [], tiers)
    return None


def _has_first_tier(settings: Settings) -> bool:
    try:
        return cuda.find(settings).has_first_tier
    except ToolchainError:
        return False  # the load says what is missing
