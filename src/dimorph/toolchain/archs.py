"""GPU architectures, by nvcc's names, and the GPUs that run code for them.

`sm_90` is machine code; it runs on GPUs of the same major version and the same or a later minor one. `sm_90a` is
machine code that runs on 9.0 alone and may use all instructions of 9.0. `sm_100f` runs where `sm_100` does and may use
the instructions that these GPUs share. `compute_90` is PTX, which the NVIDIA driver compiles at load time for 9.0 and
any later GPU.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dimorph.errors import DeclarationError, ToolchainError

_NAME = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)\Z")
# The known compute capabilities, oldest first. A search for artifacts tries the older ones that a GPU can run. The user
# can name others.
_KNOWN = ((7, 5), (8, 0), (8, 6), (8, 7), (8, 8), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1))

# Each suffix of architecture names, with the first compute capability that has it.
_SUFFIXES = (("", (0, 0)), ("a", (9, 0)), ("f", (10, 0)))

# The compute capability of a GPU: (major, minor).
Capability = tuple[int, int]


class Arch(NamedTuple):
    """One architecture.

    Attributes:
        name: e.g. `sm_90a`.
        capability: its compute capability.
        suffix: `a`, `f` or empty.
        ptx: True for PTX, False for machine code.
    """

    name: str
    capability: Capability
    suffix: str
    ptx: bool

    @property
    def rank(self) -> tuple[bool, Capability, str]:
        """The sort key of architectures: of two that run on a GPU, the better one has the higher rank."""
        # Machine code is better than PTX, newer code than older, and more of the GPU's instructions than fewer.
        return not self.ptx, self.capability, {"a": "2", "f": "1", "": "0"}[self.suffix]

    def runs_on(self, gpu: Capability) -> bool:
        """Return True if code for this architecture runs on a GPU."""
        if self.suffix == "a":
            return gpu == self.capability
        if self.ptx and not self.suffix:
            return gpu >= self.capability
        return gpu[0] == self.capability[0] and gpu >= self.capability

    def admits(self, other: Arch) -> bool:
        """Return True if sources declared for this architecture can be compiled for `other`."""
        if self.suffix == "a":
            return other.capability == self.capability and other.suffix == "a"
        if self.suffix == "f":
            same_family = other.capability[0] == self.capability[0] and other.capability >= self.capability
            return same_family and other.suffix != ""
        return other.capability >= self.capability


def by_name(name: str) -> Arch:
    """Return the architecture of that name.

    Raises:
        ToolchainError: `name` is not the name of an architecture.
    """
    match = _NAME.match(name)
    if match is None:
        raise ToolchainError(f"arch: expected a name such as sm_80, sm_90a or compute_90, got {name!r}")
    return Arch(name, (int(match[2]), int(match[3])), match[4], match[1] == "compute")


def of_capability(gpu: Capability, suffix: str = "", *, ptx: bool = False) -> Arch:
    """Return the architecture of a compute capability, with a suffix or as PTX where asked."""
    return by_name(f"{'compute' if ptx else 'sm'}_{gpu[0]}{gpu[1]}{suffix}")


def every(*more: Capability) -> list[Arch]:
    """Return all architectures of the known compute capabilities and of those in `more`, best first."""
    found = [
        of_capability(capability, suffix, ptx=ptx)
        for capability in {*_KNOWN, *more}
        for suffix, first in _SUFFIXES
        if capability >= first
        for ptx in (False, True)
    ]
    return sorted(found, key=lambda arch: arch.rank, reverse=True)


def serving(gpu: Capability, declared: Sequence[Arch]) -> tuple[Arch, ...]:
    """Return the architectures whose code can serve a GPU; empty if the GPU cannot run such sources.

    The first is the one to compile for, the others follow best first.

    Args:
        gpu: the compute capability of the GPU.
        declared: the architectures that the sources are declared for.
    """
    own = next((arch for arch in declared if arch.suffix == "a" and arch.runs_on(gpu)), None)
    first = own or of_capability(gpu)
    fitting = [arch for arch in (first, *every(gpu)) if arch.runs_on(gpu) and any(one.admits(arch) for one in declared)]
    return tuple(dict.fromkeys(fitting))


def admitted(named: Sequence[Arch], declared: Sequence[Arch], what: str) -> tuple[Arch, ...]:
    """Return those of the named architectures that sources can be compiled for.

    Args:
        named: the architectures asked for.
        declared: the architectures that the sources are declared for.
        what: the owner of the sources, for the message.

    Raises:
        DeclarationError: the sources can be compiled for none of them.
    """
    found = tuple(arch for arch in named if any(one.admits(arch) for one in declared))
    if not found:
        asked, there = (", ".join(arch.name for arch in archs) for archs in (named, declared))
        raise DeclarationError(f"{what}: its device code is for {there}; none of the architectures named is: {asked}")
    return found
