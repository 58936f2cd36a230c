"""The protocol that every compiler implements; it is independent of kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dimorph.toolchain.archs import Arch
from dimorph.toolchain.identity import Identity
from dimorph.toolchain.targets import Target

if TYPE_CHECKING:
    from dimorph.toolchain.found import Found
    from dimorph.toolchain.process import Completed, Group

# The target of a compile: a target level of the host, or a GPU architecture.
Level = Target | Arch


class DeviceReport(NamedTuple):
    """A compiler's report on device code.

    Attributes:
        driver: the CUDA version of the oldest NVIDIA driver that loads the code, e.g. `13.0`.
        kernels: CUDA kernel -> the registers, stack, spills and shared memory that it uses (see `ptxas.report`).
        messages: the compiler's warnings and the assembler's advice.
    """

    driver: str
    kernels: Mapping[str, Mapping[str, int]]
    messages: Sequence[str]


class Compiler(Protocol):
    """A compiler on this machine. Equal objects stand for the same compiler."""

    @property
    def command(self) -> tuple[str, ...]:
        """The program, as an absolute path, and its fixed first arguments."""

    @property
    def dialect(self) -> str:
        """The kind of command line that it takes: `gcc`, `clang`, `zig`, `nvrtc` or `nvcc`."""

    @property
    def path(self) -> str:
        """The PATH that it runs with."""

    @property
    def dependencies(self) -> Sequence[Found]:
        """The libraries of others whose headers it finds, and that it links."""

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
        listing: bool = False,
        first_tier: bool = False,
    ) -> list[str]:
        """Return the command line that compiles and links `source` to `output` in one step.

        Args:
            source: a C++ file, or a CUDA file for device code.
            output: the object file to write, with the suffix that `suffix` returns.
            target: the target level or architecture to compile for.
            include_dirs: the directories searched for headers first, in order.
            system_include_dirs: the directories searched next; their headers cause no warnings.
            prefix_map: directory -> the name that replaces it in the object file.
            debug: compile without optimisation and with debug information.
            extra_flags: the user's flags, placed last so that they take precedence.
            memo_dir: a lasting directory for files that the compiler reuses in later compiles.
            listing: list the files that are read, in the working directory and the output; see `listing.read`.
            first_tier: compile device code faster, to slower code.
        """

    def roots(self) -> Mapping[str, Path]:
        """Return name -> directory of headers that come with it and may lie elsewhere in another environment."""

    def tools(self) -> Sequence[str]:
        """Return the names of programs that it searches for on its PATH, and the paths of libraries that it loads."""

    def environment(self, work_dir: Path, memo_dir: Path | None = None) -> dict[str, str]:
        """Return the complete environment for a compile; the caller's own environment is not passed on.

        Args:
            work_dir: an existing directory for temporary files.
            memo_dir: as for `compile_command`.
        """

    def identity(self, memo_dir: Path | None, *, keep: bool = True) -> Identity:
        """Return the identity of the compiler; see `dimorph.toolchain.identity`."""

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        work_dir: Path,
        memo_dir: Path | None,
        group: Group | None = None,
    ) -> Completed:
        """Run a command line of `compile_command` in `work_dir`; see `dimorph.toolchain.process.run`."""

    def hint(self, memo_dir: Path | None) -> str:
        """Return why the next compile takes unusually long, for a message; empty if it does not.

        Args:
            memo_dir: as for `compile_command`.
        """

    def suffix(self, target: Level) -> str:
        """Return the file suffix of the objects that it makes for a target, e.g. `.so`."""

    def check(self, target: Level) -> None:
        """Refuse a target whose objects this machine could not load.

        Raises:
            ToolchainError: the objects could not be loaded; the message says why, and how to mend it.
        """

    def report(self, target: Level, output: str) -> DeviceReport | None:
        """Return the report on device code, parsed from the compiler's output; None for host code."""
