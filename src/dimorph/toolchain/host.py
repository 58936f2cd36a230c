"""Compilers for host code: find one, make its command lines, and isolate it from the caller's environment."""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from dimorph import _lazy
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import flags
from dimorph.toolchain.compiler import DeviceReport, Level
from dimorph.toolchain.identity import Identity, identify, known
from dimorph.toolchain.targets import Target

if TYPE_CHECKING:
    from dimorph.toolchain.found import Found
    from dimorph.toolchain.process import Completed, Group

Dialect = Literal["gcc", "clang", "zig"]


class HostCompiler(NamedTuple):
    """A C++ compiler; see `dimorph.toolchain.compiler.Compiler`.

    Attributes:
        command: the program, as an absolute path, and its fixed first arguments.
        dialect: the kind of command line that it takes.
        path: the PATH that it runs with.
        variables: the other variables of the environment that it gets, with their values.
    """

    command: tuple[str, ...]
    dialect: Dialect
    path: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def dependencies(self) -> tuple[Found, ...]:
        """None: `with_dependencies` adds those of a kernel."""
        return ()

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
        """Return the command line that compiles and links `source` to the shared object `output`.

        Raises ToolchainError if this compiler makes no code for the machine of the target level.

        The prefix map replaces paths (`__FILE__`), so that equal sources give equal objects in any directory. A debug
        build does not use it, because a debugger needs the real paths.
        """
        assert isinstance(target, Target)
        if self.dialect != "zig" and target.machine not in (
            os.uname().machine,
            *Path(self.command[-1]).name.split("-"),
        ):
            raise ToolchainError(
                f"{self.command[-1]} compiles for {os.uname().machine}, and the target level {target.name} is for "
                f"{target.machine}: name a compiler for it in DIMORPH_CXX, e.g. {target.machine}-linux-gnu-g++ or zig"
            )
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
        key, so only those that the settings name are passed on. Zig keeps the C++ library that it builds at first use
        in `memo_dir`; where that cannot be written, it builds the library again for each `work_dir`.
        """
        env = {**dict(self.variables), "PATH": self.path, "LC_ALL": "C", "TMPDIR": str(work_dir)}
        if self.dialect == "zig":
            lasting = memo_dir if memo_dir and os.access(memo_dir, os.W_OK | os.X_OK) else work_dir
            env["ZIG_GLOBAL_CACHE_DIR"] = str(lasting / "zig")
            env["ZIG_LOCAL_CACHE_DIR"] = str(work_dir / "zig-local")
        return env

    def identity(self, memo_dir: Path | None, *, keep: bool = True) -> Identity:
        """Return the identity of the compiler; see `dimorph.toolchain.identity`."""
        return identify(self.command, self.dialect, self.path, memo_dir, self.variables, keep=keep)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        work_dir: Path,
        memo_dir: Path | None,
        group: Group | None = None,
    ) -> Completed:
        """Run a command line of `compile_command` in `work_dir`; see `dimorph.toolchain.process.run`.

        Where zig has yet to build its C++ library, which takes minutes, it first compiles without linking, so that an
        error in the source shows at once.
        """
        from dimorph.toolchain import process  # here, because only a build needs it

        env = self.environment(work_dir, memo_dir)
        if self._builds_library(memo_dir):
            alone = [*command, "-c", "-o", str(work_dir / "alone.o")]
            done = process.run(alone, timeout=timeout, cwd=work_dir, env=env, group=group)
            if done.exit_code != 0:
                return done
        return process.run(command, timeout=timeout, cwd=work_dir, env=env, group=group)

    def hint(self, memo_dir: Path | None) -> str:
        """Return that zig builds its C++ library first, where it has not done so."""
        first = self._builds_library(memo_dir)
        return "the first compile with zig builds its C++ library, which takes minutes" if first else ""

    def _builds_library(self, memo_dir: Path | None) -> bool:
        return self.dialect == "zig" and not (memo_dir and any(memo_dir.glob("zig/o/*/libc++.a")))

    def known_identity(self, memo_dir: Path | None) -> Identity | None:
        """Return the identity if it was found out before; see `dimorph.toolchain.identity.known`."""
        if memo_dir is None:
            return None
        return known(self.command, self.dialect, self.path, memo_dir, self.variables)

    def suffix(self, target: Level) -> str:
        """Return `.so`: host code becomes a shared object."""
        return ".so"

    def check(self, target: Level) -> None:
        """Refuse a target level of another machine.

        Raises:
            ToolchainError: this machine cannot load objects of the level.
        """
        assert isinstance(target, Target)
        if target.machine != os.uname().machine:
            raise ToolchainError(
                f"the target level {target.name} is for {target.machine}, and nothing compiled for it can be loaded "
                f"here, on {os.uname().machine}; unset DIMORPH_TARGET, or build ahead of time for that machine"
            )

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
        return [
            *self.command,
            *flags.COMMON,
            *mode,
            *level,
            *flags.MESSAGES,
            *flags.ERRORS,
            *flags.DIALECTS[self.dialect],  # last, because some take an error back
        ]

    @staticmethod
    def _prefix_flags(prefix_map: Mapping[Path, str]) -> list[str]:
        # Compilers take the last entry that matches. Of nested directories this must be the inner one, so it goes last.
        ordered = sorted(prefix_map.items(), key=lambda item: len(str(item[0])))
        return [f"-ffile-prefix-map={directory}={name}" for directory, name in ordered]


def find(settings: Settings) -> HostCompiler:
    """Find the compiler to use: the first of `candidates`.

    Raises:
        ToolchainError: the compiler named is missing, or there is none; the message says what to install.
    """
    return next(candidates(settings))


def candidates(settings: Settings) -> Iterator[HostCompiler]:
    """Yield the compilers that may be used, best first; starts no process.

    The compiler that the settings name is the only one. Without one there are g++, clang++ and c++ on PATH, those of
    conda's packages, whose names have a prefix, and the package ziglang.

    Raises:
        ToolchainError: the compiler named is missing, or there is none; the message says what to install.
    """
    for variable, named in (("DIMORPH_CXX", settings.cxx), ("CXX", settings.default_cxx)):
        if named:
            yield _named(variable, named, settings)
            return
    seen: list[str] = []
    prefix = f"{os.uname().machine}-conda-linux-gnu-"
    for name in ("g++", "clang++", "c++", f"{prefix}c++", f"{prefix}clang++"):
        program = _lazy.shutil.which(name, path=settings.path)
        if program and not (seen and os.path.realpath(program) in map(os.path.realpath, seen)):
            yield _compiler((program,), settings)
            seen.append(program)
    if program := _packaged_zig():
        yield _zig(program, settings)
        return
    if not seen:
        raise ToolchainError(
            f"no C++ compiler found: no g++, clang++ or c++ on PATH ({settings.path}) and no ziglang package. "
            "Install one: `apt-get install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora, RHEL), "
            "or `pip install ziglang` (any Linux, no root needed); or name one in DIMORPH_CXX"
        )


def too_old(compiler: HostCompiler, description: str) -> str | None:
    """Return why a compiler is too old to be used, from the description of its identity; None: it is not, or unknown.

    Newer compilers know the target levels of x86-64 (GCC 11, clang 12) and `-ffile-prefix-map` (GCC 8, clang 10).
    """
    # No regular expressions, because every store hit in a new process would compile them.
    level = os.uname().machine == "x86_64"
    _, clang, version = description.partition("clang version ")
    name, oldest = ("clang", 12 if level else 10) if clang else ("GCC", 11 if level else 8)
    if not clang:  # e.g. `g++ (Debian 12.2.0-14) 12.2.0`
        program, _, rest = description.partition(" (")
        version = rest.partition(") ")[2] if "++" in program or "gcc" in program else ""
    number = version.partition(".")[0]
    if not number.isdecimal() or int(number) >= oldest:
        return None
    return f"{compiler.command[-1]} is {name} {number} ({description}): {name} {oldest} or newer is needed"


def _named(variable: str, text: str, settings: Settings) -> HostCompiler:
    """Return the compiler that a variable names: a program, or several words, e.g. `ccache g++`."""
    if program := _lazy.shutil.which(text, path=settings.path):
        return _zig(program, settings) if text == "zig" else _compiler((program,), settings)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ToolchainError(f"{variable}={text}: expected words as a shell splits them: {error}") from error
    if "zig" in words[:1] or "ziglang" in words:
        program = _packaged_zig() or _lazy.shutil.which("zig", path=settings.path)
        if program is None:
            raise ToolchainError(f"{variable}={text}: zig is not installed; `pip install ziglang` does that")
        return _zig(program, settings)
    given = [word for word in words if word.startswith("-")]
    if given and variable == "DIMORPH_CXX":
        raise ToolchainError(f"{variable}={text}: expected programs only; give {given[0]} in DIMORPH_CXXFLAGS")
    # The flags in CXX are meant for other builds; keys would contain them.
    named = [word for word in words if not word.startswith("-")]
    if len(named) == 2 and Path(named[0]).name.startswith("zig") and named[1] == "c++":
        named.pop()
    programs = [_lazy.shutil.which(word, path=settings.path) for word in named]
    if not programs or None in programs:
        missing = next((word for word, found in zip(named, programs, strict=True) if found is None), text)
        what = f" {missing}" if missing != text else ""
        raise ToolchainError(
            f"{variable}={text}: there is no such program{what} (PATH={settings.path}); "
            "name another, or unset it to take the first one found"
        )
    return _compiler([program for program in programs if program], settings)


def _compiler(programs: Sequence[str], settings: Settings) -> HostCompiler:
    """Return the compiler that is the last of some programs; those before start it, as ccache does."""
    # Absolute, because a compile runs in a directory of its own. Links are kept, because programs such as ccache act by
    # the name that they are called by.
    command = tuple(str(Path(program).absolute()) for program in programs)
    # A plain `c++` is a link to g++ or clang++. A program of an unknown name has to take GCC's command line.
    names = (Path(command[-1]).name, Path(command[-1]).resolve().name)
    if any(name == "zig" or name.startswith("zig-") for name in names):
        return _zig(command[-1], settings)
    dialect: Dialect = "clang" if any("clang" in name for name in names) else "gcc"
    return HostCompiler(command, dialect, settings.path, settings.compiler_env)


def _zig(program: str, settings: Settings) -> HostCompiler:
    return HostCompiler((str(Path(program).absolute()), "c++"), "zig", settings.path, settings.compiler_env)


def _packaged_zig() -> str | None:
    # The program inside the package is run directly: `python -m ziglang` would start an interpreter first.
    spec = importlib.util.find_spec("ziglang")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(directory) / "zig"
        if os.access(program, os.X_OK):
            return str(program)
    return None
