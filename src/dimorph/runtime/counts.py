"""The counts that a dispatcher keeps for a record of use: how often each case was called, and where it came from."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from dimorph.plan.pool import POOL
from dimorph.resolve.search import Resolution


class Counts:
    """The calls of each case function of an entry, by function and slot; C++ counts them.

    Attributes:
        calls: the memory that C++ counts in.
    """

    def __init__(self, slots: int, functions: int) -> None:
        self.calls = (ctypes.c_int64 * (slots * functions))()
        self._slots = slots

    def of(self, slot: int) -> int:
        """Return how often functions of the case of a slot were called so far."""
        return sum(self.calls[slot :: self._slots])


class Opened(NamedTuple):
    """How an entry or a case came into the process.

    Attributes:
        own: the artifact of the entry or the case.
        archs: of a case, the architectures of its device code.
        seconds: the time that it took, together with what was loaded beside it.
    """

    own: Resolution
    archs: tuple[str, ...]
    seconds: float


def opened_as(resolved: Sequence[Resolution], case: int, seconds: float) -> dict[int | None, Opened]:
    """Return how what was loaded together came: under None the entry, under its slot the case."""
    archs = tuple(sorted(one.artifact.meta.target for one in resolved if one.unit.kind == "device"))
    found: dict[int | None, Opened] = {}
    for one in resolved:
        if one.unit.kind == "case":
            found[case] = Opened(one, archs, seconds)
        elif one.unit.kind == "entry" and one.unit.kernel is not POOL:
            found[None] = Opened(one, (), seconds)
    return found
