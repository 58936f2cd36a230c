"""Compilers for host code: find one, make its command lines, and isolate it from the caller's environment."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from dimorph import _lazy
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import flags
from dimorph.toolchain.compiler import DeviceReport, Level
from dimorph.toolchain.identity import Identity, identify
from dimorph.toolchain.targets import Target

Dialect = Literal["gcc", "clang", "zig"]


class HostCompiler(NamedTuple):
    """A C++ compiler; see `dimorph.toolchain.compiler.Compiler`.

    Attributes:
        command: the program, as an absolute path, and its fixed first arguments.
        dialect: the kind of command line that it takes.
        path: the PATH that it runs with.
    """

    command: tuple[str, ...]
    dialect: Dialect
    path: str

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
    ) -> list[str]:
        """Return the command line that compiles and links `source` to the shared object `output`.

        The prefix map replaces paths (`__FILE__`), so that equal sources give equal objects in any directory. A debug
        build does not use it, because a debugger needs the real paths.
        """
        assert isinstance(target, Target)
        return [
            *self._front(target, debug),
            *(f"-I{directory}" for directory in include_dirs),
            *(word for directory in system_include_dirs for word in ("-isystem", str(directory))),
            *(() if debug else self._prefix_flags(prefix_map or {})),
            str(source),
            "-o",
            str(output),
            *flags.LINK,
            *(flags.LISTING[self.dialect] if listing else ()),
            *extra_flags,
        ]

    def roots(self) -> dict[str, Path]:
        """Return the directory of zig, which holds all its headers; others lie in fixed places."""
        return {"zig": Path(self.command[0]).resolve().parent} if self.dialect == "zig" else {}

    def tools(self) -> tuple[str, ...]:
        """Return the assembler and the linker, unless they are part of the compiler."""
        return {"gcc": ("as", "ld"), "clang": ("ld",), "zig": ()}[self.dialect]

    def environment(self, work_dir: Path, memo_dir: Path | None = None) -> dict[str, str]:
        """Return the complete environment for a compile.

        CPATH, COMPILER_PATH, GCC_EXEC_PREFIX, LD_LIBRARY_PATH and the like would change the output without changing a
        key, so they are not passed on. Zig keeps the C++ library that it builds at first use in `memo_dir`; where that
        cannot be written, it builds the library again for each `work_dir`.
        """
        env = {"PATH": self.path, "LC_ALL": "C", "TMPDIR": str(work_dir)}
        if self.dialect == "zig":
            lasting = memo_dir if memo_dir and os.access(memo_dir, os.W_OK | os.X_OK) else work_dir
            env["ZIG_GLOBAL_CACHE_DIR"] = str(lasting / "zig")
            env["ZIG_LOCAL_CACHE_DIR"] = str(work_dir / "zig-local")
        return env

    def identity(self, memo_dir: Path | None) -> Identity:
        """Return the identity of the compiler; see `dimorph.toolchain.identity`."""
        return identify(self.command, self.dialect, self.path, memo_dir)

    def suffix(self, target: Level) -> str:
        """Return `.so`: host code becomes a shared object."""
        return ".so"

    def check(self, target: Level) -> None:
        """Accept every level: the level is one that this CPU runs, or the user named it."""

    def report(self, target: Level, output: str) -> DeviceReport | None:
        """Return None: host code has no device report."""
        return None

    def _front(self, target: Target, debug: bool) -> list[str]:
        """Return the start of a command line: the program, and all flags that contain no path."""
        mode: tuple[str, ...] = flags.DEBUG if debug else flags.RELEASE
        level = target.flags
        if self.dialect == "zig":
            level = ("-target", f"{target.machine}-{flags.ZIG_LIBC}", *target.zig_flags)
            mode = (*mode, *(flags.ZIG_DEBUG if debug else flags.ZIG_RELEASE))
        return [*self.command, *flags.COMMON, *mode, *level, *flags.DIALECTS[self.dialect], *flags.MESSAGES]

    @staticmethod
    def _prefix_flags(prefix_map: Mapping[Path, str]) -> list[str]:
        # Compilers take the last entry that matches. Of nested directories this must be the inner one, so it goes last.
        ordered = sorted(prefix_map.items(), key=lambda item: len(str(item[0])))
        return [f"-ffile-prefix-map={directory}={name}" for directory, name in ordered]


def find(settings: Settings) -> HostCompiler:
    """Find the compiler to use: the one that the settings name, else g++, clang++ or c++ on PATH, else package ziglang.

    Starts no process.

    Raises:
        ToolchainError: the compiler named is missing, or there is none; the message says what to install.
    """
    if settings.cxx == "zig":
        program = _packaged_zig() or _lazy.shutil.which("zig", path=settings.path)
        if program is None:
            raise ToolchainError("DIMORPH_CXX=zig: zig is not installed; `pip install ziglang` does that")
        return HostCompiler((program, "c++"), "zig", settings.path)
    if settings.cxx is not None:
        program = _lazy.shutil.which(Path(settings.cxx).expanduser(), path=settings.path)
        if program is None:
            raise ToolchainError(
                f"DIMORPH_CXX={settings.cxx}: there is no such program (PATH={settings.path}); "
                "name another, or unset it to take the first one found"
            )
        return _compiler(program, settings.path)
    for name in ("g++", "clang++", "c++"):
        if program := _lazy.shutil.which(name, path=settings.path):
            return _compiler(program, settings.path)
    if program := _packaged_zig():
        return HostCompiler((program, "c++"), "zig", settings.path)
    raise ToolchainError(
        f"no C++ compiler found: no g++, clang++ or c++ on PATH ({settings.path}) and no ziglang package. "
        "Install one: `apt-get install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora, RHEL), "
        "or `pip install ziglang` (any Linux, no root needed); or name one in DIMORPH_CXX"
    )


def _compiler(program: str, path: str) -> HostCompiler:
    # Absolute, because a compile runs in a directory of its own. Links are kept, because programs such as ccache act by
    # the name that they are called by.
    absolute = Path(program).absolute()
    # A plain `c++` is a link to g++ or clang++. A program of an unknown name has to take GCC's command line.
    names = (absolute.name, absolute.resolve().name)
    if any(name == "zig" or name.startswith("zig-") for name in names):
        return HostCompiler((str(absolute), "c++"), "zig", path)
    return HostCompiler((str(absolute),), "clang" if any("clang" in name for name in names) else "gcc", path)


def _packaged_zig() -> str | None:
    # The program inside the package is run directly: `python -m ziglang` would start an interpreter first.
    spec = importlib.util.find_spec("ziglang")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(directory) / "zig"
        if os.access(program, os.X_OK):
            return str(program)
    return None
