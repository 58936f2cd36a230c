"""GPU architectures: what device code is compiled for, by nvcc's names, and which GPU runs what.

`sm_90` is machine code; within a major version it also runs on later minor ones. `sm_90a` is machine code that runs
on 9.0 alone and may use everything 9.0 has; `sm_100f` runs on its family. `compute_90` is PTX, which the driver of
any later GPU compiles when it loads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dimorph.errors import DeclarationError, ToolchainError

_NAME = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)\Z")
# Compute capabilities there are, oldest first: what artifacts for older GPUs are looked for by. Any other can be named.
_KNOWN = ((7, 5), (8, 0), (8, 6), (8, 7), (8, 8), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1))

# And the first that has code of each kind.
_SUFFIXES = (("", (0, 0)), ("a", (9, 0)), ("f", (10, 0)))

# The compute capability of a GPU: (major, minor).
Capability = tuple[int, int]


class Arch(NamedTuple):
    """One architecture.

    Attributes:
        name: e.g. `sm_90a`.
        capability: the compute capability that it is made for.
        suffix: `a`, `f` or nothing.
        ptx: whether it is PTX, not machine code.
    """

    name: str
    capability: Capability
    suffix: str
    ptx: bool

    @property
    def rank(self) -> tuple[bool, Capability, str]:
        """Of two that run on a GPU, the one that ranks higher is the better one."""
        # Machine code before PTX, the newer before the older, more of the GPU's own instructions before fewer.
        return not self.ptx, self.capability, {"a": "2", "f": "1", "": "0"}[self.suffix]

    def runs_on(self, gpu: Capability) -> bool:
        """Whether code for it runs on a GPU."""
        if self.suffix == "a":
            return gpu == self.capability
        if self.ptx and not self.suffix:
            return gpu >= self.capability
        return gpu[0] == self.capability[0] and gpu >= self.capability

    def admits(self, other: Arch) -> bool:
        """Whether sources that are declared for this architecture can be compiled for another."""
        if self.suffix == "a":
            return other.capability == self.capability and other.suffix == "a"
        if self.suffix == "f":
            same_family = other.capability[0] == self.capability[0] and other.capability >= self.capability
            return same_family and other.suffix != ""
        return other.capability >= self.capability


def by_name(name: str) -> Arch:
    """The architecture of that name.

    Raises:
        ToolchainError: it is not the name of one.
    """
    match = _NAME.match(name)
    if match is None:
        raise ToolchainError(f"arch: expected a name such as sm_80, sm_90a or compute_90, got {name!r}")
    return Arch(name, (int(match[2]), int(match[3])), match[4], match[1] == "compute")


def of_capability(gpu: Capability, suffix: str = "", *, ptx: bool = False) -> Arch:
    """The architecture of a compute capability."""
    return by_name(f"{'compute' if ptx else 'sm'}_{gpu[0]}{gpu[1]}{suffix}")


def every(*more: Capability) -> list[Arch]:
    """The architectures of all GPUs known here, and of those given; best first."""
    found = [
        of_capability(capability, suffix, ptx=ptx)
        for capability in {*_KNOWN, *more}
        for suffix, first in _SUFFIXES
        if capability >= first
        for ptx in (False, True)
    ]
    return sorted(found, key=lambda arch: arch.rank, reverse=True)


def serving(gpu: Capability, declared: Sequence[Arch]) -> tuple[Arch, ...]:
    """What may serve a GPU, best first; what is compiled for it comes first. Empty: it cannot run such sources.

    Args:
        gpu: its compute capability.
        declared: what the sources are declared for.
    """
    own = next((arch for arch in declared if arch.suffix == "a" and arch.runs_on(gpu)), None)
    first = own or of_capability(gpu)
    fitting = [arch for arch in (first, *every(gpu)) if arch.runs_on(gpu) and any(one.admits(arch) for one in declared)]
    return tuple(dict.fromkeys(fitting))


def admitted(named: Sequence[Arch], declared: Sequence[Arch], what: str) -> tuple[Arch, ...]:
    """Those of the architectures named that sources can be compiled for.

    Args:
        named: what was asked for.
        declared: what the sources are declared for.
        what: whose sources, for the message.

    Raises:
        DeclarationError: none of them.
    """
    found = tuple(arch for arch in named if any(one.admits(arch) for one in declared))
    if not found:
        asked, there = (", ".join(arch.name for arch in archs) for archs in (named, declared))
        raise DeclarationError(f"{what}: its device code is for {there}; none of the architectures named is: {asked}")
    return found
