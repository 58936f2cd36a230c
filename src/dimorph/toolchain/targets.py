"""Target levels: the named instruction sets that host code is compiled for.

There is no level for "this machine" (`-march=native`), so that an artifact built on one machine can serve another.
There is no `-mtune` either: the default, generic tuning, is the only one that fits every CPU of a level.
The names after `-march=` need GCC 11 or clang 12.
"""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import NamedTuple

from dimorph.errors import ToolchainError

_CPUINFO = Path("/proc/cpuinfo")


class Target(NamedTuple):
    """One target level.

    Attributes:
        name: the name in settings, keys and packages.
        machine: the machine, as `uname -m` prints it.
        flags: the flags of GCC and clang.
        zig_flags: the flags of zig, which has its own names for CPUs.
        needs: the CPU features that /proc/cpuinfo must list for code of this level to run.
    """

    name: str
    machine: str
    flags: tuple[str, ...]
    zig_flags: tuple[str, ...]
    needs: frozenset[str]


_V2_NEEDS = frozenset(["cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"])
_V3_NEEDS = _V2_NEEDS | frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
_V4_NEEDS = _V3_NEEDS | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
# GCC uses whole 512-bit registers by default, clang halves of them: measured on Zen 4, loops that the compiler
# vectorises run up to 1.25 times as fast with whole ones, with both compilers.
_WHOLE_REGISTERS = "-mprefer-vector-width=512"
_ARM_NEEDS = frozenset(["fp", "asimd"])
# Not armv8.6-a, which would shut out CPUs that have these instructions without the rest of 8.6 (Neoverse V1).
_ARM_BF16 = "v8.2-a+fp16+dotprod+bf16+i8mm"
_ARM_BF16_NEEDS = _ARM_NEEDS | frozenset(["crc32", "atomics", "fphp", "asimdhp", "asimdrdm", "asimddp", "bf16", "i8mm"])

# Best first for each machine; the last one is its baseline.
_LEVELS: dict[str, tuple[Target, ...]] = {
    "x86_64": (
        Target(
            "x86-64-v4-bf16",
            "x86_64",
            ("-march=x86-64-v4", "-mavx512bf16", _WHOLE_REGISTERS),
            ("-mcpu=x86_64_v4+avx512bf16", _WHOLE_REGISTERS),
            _V4_NEEDS | {"avx512_bf16"},
        ),
        Target(
            "x86-64-v4",
            "x86_64",
            ("-march=x86-64-v4", _WHOLE_REGISTERS),
            ("-mcpu=x86_64_v4", _WHOLE_REGISTERS),
            _V4_NEEDS,
        ),
        Target("x86-64-v3", "x86_64", ("-march=x86-64-v3",), ("-mcpu=x86_64_v3",), _V3_NEEDS),
        Target("x86-64-v2", "x86_64", ("-march=x86-64-v2",), ("-mcpu=x86_64_v2",), _V2_NEEDS),
    ),
    "aarch64": (
        Target(
            "armv8-bf16",
            "aarch64",
            (f"-march=arm{_ARM_BF16}",),
            ("-mcpu=generic+v8_2a+fullfp16+dotprod+bf16+i8mm",),
            _ARM_BF16_NEEDS,
        ),
        Target("armv8", "aarch64", ("-march=armv8-a",), ("-mcpu=generic",), _ARM_NEEDS),
    ),
}


# Features that no CPU has without the rest of its level.
_TELLING = {"x86-64-v4": "avx512vl", "x86-64-v3": "avx2"}


def levels(machine: str | None = None) -> tuple[Target, ...]:
    """Return the levels of a machine, best first; never empty.

    Args:
        machine: the machine, as `uname -m` prints it; None: this one. A machine without named levels has a single
            level, named after it: the compiler's default.
    """
    machine = machine or os.uname().machine
    return _LEVELS.get(machine) or (Target(machine, machine, (), (), frozenset()),)


def by_name(name: str) -> Target:
    """Return the level of that name, of any machine.

    Raises:
        ToolchainError: there is no such level; the message lists all levels.
    """
    known = [target for machine in _LEVELS for target in levels(machine)]
    known += [target for target in levels() if target not in known]
    for target in known:
        if target.name == name:
            return target
    raise ToolchainError(f"target: expected one of {', '.join(t.name for t in known)}; got {name!r}")


@functools.lru_cache(maxsize=1)
def runnable() -> tuple[Target, ...]:
    """Return the levels that this CPU runs, best first; never empty.

    Warns where the system hides features of the CPU, as virtual machines of a general CPU model do, so that a level is
    lower than it need be.

    Raises:
        ToolchainError: the CPU does not run even the lowest level.
    """
    declared = levels()
    flags = _cpu_flags(_CPUINFO)
    if not flags:
        # There is no /proc, or an emulator shows the one of its host: only the baseline is safe.
        if len(declared) > 1:
            _warn(f"the features of this CPU cannot be read in {_CPUINFO}", declared[-1])
        return declared[-1:]
    fitting = tuple(target for target in declared if target.needs <= flags)
    if fitting and (hidden := _hidden(flags, fitting[0])):
        _warn(hidden, fitting[0])
    if not fitting:
        lacking = ", ".join(sorted(declared[-1].needs - flags))
        virtual = "; this virtual machine may hide them (QEMU: -cpu host)" if "hypervisor" in flags else ""
        raise ToolchainError(
            f"target: this CPU lacks {lacking}, needed by the lowest level {declared[-1].name}{virtual}"
        )
    return fitting


def _hidden(flags: frozenset[str], best: Target) -> str | None:
    """Return which features of the CPU seem to be hidden; None if none do.

    Args:
        flags: the features that are listed.
        best: the best level whose features are all listed.
    """
    for target in _LEVELS.get(best.machine, ()):
        # A CPU that has the level's telling feature has all its others too, so the system hides those.
        if target.name in _TELLING and _TELLING[target.name] in flags and not target.needs <= flags:
            lacking = ", ".join(sorted(target.needs - flags))
            return f"this CPU has {_TELLING[target.name]}, but the system hides {lacking}, needed by {target.name}"
    if best.name == "x86-64-v2" and "hypervisor" in flags:
        return "this virtual machine has a CPU model without AVX2, which nearly every CPU has (QEMU: -cpu host)"
    return None


def _warn(reason: str, used: Target) -> None:
    warnings.warn(
        f"dimorph: {reason}; kernels are compiled for {used.name}, which may be several times slower. "
        "DIMORPH_TARGET names another level",
        RuntimeWarning,
        stacklevel=3,
    )


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """Return the features of the first processor listed; empty if they are unknown."""
    text = b""
    try:
        # The kernel generates this text while it is read, 1.5 kB for each processor; the first processor suffices.
        with cpuinfo.open("rb", buffering=0) as stream:
            while b"\n\n" not in text and (piece := stream.read(4096)):
                text += piece
    except OSError:
        return frozenset()
    for line in text.split(b"\n\n", 1)[0].decode("ascii", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
