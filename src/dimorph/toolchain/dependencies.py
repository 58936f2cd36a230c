"""Find dependencies on this machine: ask pkg-config and Python's packages, which know where libraries are."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dimorph import _lazy
from dimorph.declare.dependency import Dependency
from dimorph.errors import ToolchainError
from dimorph.settings import Settings

_TIMEOUT = 30.0  # seconds; pkg-config reads a few small files


@dataclass(frozen=True)
class Found:
    """A dependency as it is on this machine.

    Attributes:
        name: the name of the dependency.
        version: its version; empty: unknown.
        include_dirs: the directories of its headers, in order.
        defines: the macros that its headers need, as `NAME` or `NAME=VALUE`.
        known_by: the files and directories whose change may change any of this.
    """

    name: str
    version: str
    include_dirs: tuple[str, ...]
    defines: tuple[str, ...]
    known_by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def find(dependency: Dependency, settings: Settings) -> Found:
    """Find a dependency; starts processes.

    Raises:
        ToolchainError: it is not installed, or too old, or has a flag that kernels cannot be compiled with; the message
            names it and says how to install it.
    """
    found = {"pkg-config": _pkg_config, "python": _python, "path": _path}[dependency.kind](dependency, settings)
    for directory in found.include_dirs:
        if not Path(directory).is_dir():
            raise _missing(dependency, f"there is no directory {directory}")
    return found


def _missing(dependency: Dependency, why: str, mend: str = "") -> ToolchainError:
    mend = dependency.install or mend
    return ToolchainError(
        f"the library {dependency.name} is missing: {why}" + (f". Install it: {mend}" if mend else "")
    )


def _path(dependency: Dependency, _settings: Settings) -> Found:
    return Found(dependency.name, "", dependency.include_dirs, _words(dependency), dependency.include_dirs)


def _python(dependency: Dependency, _settings: Settings) -> Found:
    try:
        package = metadata.distribution(dependency.name)
    except metadata.PackageNotFoundError as error:
        raise _missing(dependency, "the Python package is not installed", f"pip install {dependency.name}") from error
    dirs = tuple(str(package.locate_file(name)) for name in dependency.include_dirs)
    return Found(dependency.name, package.version, dirs, _words(dependency), tuple(_import_path()))


def _words(dependency: Dependency) -> tuple[str, ...]:
    return tuple(name if value is None else f"{name}={value}" for name, value in dependency.defines)


def _import_path() -> list[str]:
    """Return the directories of installed Python packages, which change when one is installed or upgraded."""
    return [entry for entry in dict.fromkeys(sys.path) if os.path.isdir(entry)]  # noqa: PTH112 (texts)


def _pkg_config(dependency: Dependency, settings: Settings) -> Found:
    program = next(
        (found for name in ("pkg-config", "pkgconf") if (found := _lazy.shutil.which(name, path=settings.path))), None
    )
    if program is None:
        raise _missing(
            dependency,
            f"pkg-config, which knows where it is, is not on PATH ({settings.path})",
            "`apt-get install pkg-config` (Debian, Ubuntu) or `dnf install pkgconf` (Fedora, RHEL)",
        )
    asked = _Asked(program, settings)
    name = dependency.name
    wanted = f"{name} >= {dependency.at_least}" if dependency.at_least else name
    status, said = asked.run("--print-errors", "--exists", wanted)
    if status != 0:
        raise _missing(
            dependency,
            f"pkg-config says: {' '.join(said.split())}",
            f"the package that has {name}.pc: `dnf install 'pkgconfig({name})'` (Fedora, RHEL), "
            f"`apt-file search {name}.pc` names it (Debian, Ubuntu)",
        )
    flags = _Flags(dependency, shlex.split(asked.answer("--cflags", name)))
    searched = [*asked.path, *asked.answer("--variable=pc_path", "pkg-config").split(os.pathsep)]
    known_by = [program, *(one for one in searched if one), *asked.files(name)]
    return Found(
        name, asked.answer("--modversion", name), flags.include_dirs, flags.defines, tuple(dict.fromkeys(known_by))
    )


class _Asked:
    """A pkg-config with its environment."""

    def __init__(self, program: str, settings: Settings) -> None:
        self._program = program
        packaged = [str(directory) for directory in _registered()]
        self.path = [*filter(None, settings.pkg_config_path.split(os.pathsep)), *packaged]
        self._env = {**dict(settings.compiler_env), "PATH": settings.path, "LC_ALL": "C"}
        self._env["PKG_CONFIG_PATH"] = os.pathsep.join(self.path)

    def run(self, *words: str) -> tuple[int, str]:
        """Run it; return its exit status and output."""
        from dimorph.toolchain import process  # here, because only a search that is not kept needs it

        done = process.run([self._program, *words], timeout=_TIMEOUT, cwd=Path("/"), env=self._env)
        return done.exit_code, done.output.strip()

    def answer(self, *words: str) -> str:
        """Run it for a library that exists; return its output."""
        status, said = self.run(*words)
        if status != 0:
            raise ToolchainError(f"{self._program} {shlex.join(words)} failed ({status}): {said}")
        return said

    def files(self, name: str) -> list[str]:
        """Return the files that describe a library and all that it requires."""
        found, left = dict[str, str](), [name]
        while left:
            one = left.pop()
            if one not in found:
                found[one] = f"{self.answer('--variable=pcfiledir', one)}/{one}.pc"
                required = self.answer("--print-requires", "--print-requires-private", one)
                left += [line.split()[0] for line in required.splitlines() if line.strip()]
        return list(found.values())


def _registered() -> list[Path]:
    """Return the directories that installed Python packages register for pkg-config."""
    found = []
    for entry in metadata.entry_points(group="pkg_config"):
        if entry.dist is not None:
            found.append(Path(str(entry.dist.locate_file(entry.module.replace(".", "/")))))
    return found


class _Flags:
    """Compiler flags of a library, taken apart.

    Raises:
        ToolchainError: there is a flag of another kind.
    """

    def __init__(self, dependency: Dependency, words: Sequence[str]) -> None:
        dirs, defines, left = [], [], list(words)
        while left:
            word = left.pop(0)
            if word in ("-I", "-D", "-isystem") and left:
                word += left.pop(0)
            if word.startswith("-I") or word.startswith("-isystem"):
                dirs.append(word.removeprefix("-isystem").removeprefix("-I"))
            elif word.startswith("-D"):
                defines.append(word[2:].removesuffix("=1") if word.endswith("=1") else word[2:])
            elif word != "-pthread":  # which every kernel is compiled with
                raise ToolchainError(
                    f"the library {dependency.name} wants {word}, and kernels get no other flags of libraries than "
                    f"-I, -isystem, -D and -pthread: declare it with `library`, and the flag in DIMORPH_CXXFLAGS"
                )
        self.include_dirs = tuple(dict.fromkeys(dirs))
        self.defines = tuple(dict.fromkeys(defines))
