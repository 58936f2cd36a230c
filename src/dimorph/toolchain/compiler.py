"""The protocol of compilers: a command line in, an object out. A compiler knows no kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from dimorph.toolchain.archs import Arch
from dimorph.toolchain.identity import Identity
from dimorph.toolchain.targets import Target

# What a compile is for: a target level of the host, or a GPU architecture.
Level = Target | Arch


class DeviceReport(NamedTuple):
    """What a compiler tells of the device code that it made.

    Attributes:
        driver: the CUDA version of the oldest NVIDIA driver that loads it, e.g. `13.0`.
        kernels: kernel -> the registers, stack, spills and shared memory that it uses (see `ptxas.report`).
        messages: warnings, and advice of the assembler.
    """

    driver: str
    kernels: Mapping[str, Mapping[str, int]]
    messages: Sequence[str]


class Compiler(Protocol):
    """A compiler that was found on this machine. Two that are equal are the same one."""

    @property
    def command(self) -> tuple[str, ...]:
        """The program, as an absolute path, and its fixed first arguments."""

    def compile_command(
        self,
        source: Path,
        output: Path,
        *,
        target: Level,
        include_dirs: Sequence[Path] = (),
        system_include_dirs: Sequence[Path] = (),
        prefix_map: Mapping[Path, str] | None = None,
        debug: bool = False,
        extra_flags: Sequence[str] = (),
        memo_dir: Path | None = None,
    ) -> list[str]:
        """Return the command line that makes `output` of `source` in one step.

        Args:
            source: a C++ file, or a CUDA file for device code.
            output: the object to write; its suffix is that of `suffix`.
            target: the level or architecture to compile for.
            include_dirs: searched for headers first, in order.
            system_include_dirs: searched next, without warnings.
            prefix_map: directory -> the name that stands for it in the object.
            debug: no optimisation, and lines that a debugger can stop on.
            extra_flags: the user's own, last, so that they win.
            memo_dir: a lasting directory, for what the compiler keeps from one compile to the next.
        """

    def environment(self, work_dir: Path, memo_dir: Path | None = None) -> dict[str, str]:
        """Return the complete environment to compile in; nothing else is passed on.

        Args:
            work_dir: an existing directory for temporary files.
            memo_dir: as for `compile_command`.
        """

    def identity(self, memo_dir: Path | None) -> Identity:
        """Return the identity of the compiler; see `dimorph.toolchain.identity`."""

    def suffix(self, target: Level) -> str:
        """Return the suffix of the objects that it makes for a target."""

    def check(self, target: Level) -> None:
        """Refuse a target whose objects this machine could not load.

        Raises:
            ToolchainError: the message says why, and how to mend it.
        """

    def report(self, target: Level, output: str) -> DeviceReport | None:
        """Read what the compiler printed about device code; None for host code."""
