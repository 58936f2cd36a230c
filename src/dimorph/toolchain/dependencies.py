"""Find dependencies on this machine: ask pkg-config and Python's packages, which know where libraries are."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from dimorph.declare.dependency import Dependency
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import cmake, dynamic, process
from dimorph.toolchain.found import Found, Library

_TIMEOUT = 30.0  # seconds; pkg-config reads a few small files


def find(dependency: Dependency, settings: Settings) -> Found:
    """Find a dependency; starts processes.

    Raises:
        ToolchainError: it is not installed, or too old, or has a flag that kernels cannot be compiled with; the message
            names it and says how to install it.
    """
    ways = {"pkg-config": _pkg_config, "cmake": _cmake, "python": _python, "path": _path}
    found = ways[dependency.kind](dependency, settings)
    for directory in found.include_dirs:
        if not Path(directory).is_dir():
            raise _missing(dependency, f"there is no directory {directory}")
    return found


def _library(dependency: Dependency, file: str, package: str = "", inside: str = "") -> Library:
    """Return a library to link, from the path of its file.

    Args:
        dependency: the dependency that it belongs to.
        file: the path.
        package: the Python package that it is in; empty: none, or one that registers it.
        inside: its path in the directory that the package is installed in.
    """
    try:
        names = dynamic.read(Path(file))
    except OSError as error:
        raise _missing(dependency, f"{file}: {error.strerror}") from error
    if names is None:
        return Library(file, "", "bundled")  # a static library is part of the object
    if not names.soname:
        raise ToolchainError(
            f"the library {dependency.name}: {file} has no SONAME, by which objects could find it: link it with "
            f"-Wl,-soname,{Path(file).name}"
        )
    if not dependency.bundle:
        if not package:
            package, inside = _owner(file)
        if package:
            return Library(file, names.soname, "required", package, inside)
        if dynamic.is_systems(file, names.soname):
            return Library(file, names.soname, "system")
    return Library(file, names.soname, "bundled")


def _owner(file: str) -> tuple[str, str]:
    """Return the Python package that registers its libraries and has a file, and the file's path in it."""
    path = os.path.normpath(file)
    for group in ("pkg_config", "cmake.root", "cmake.prefix"):
        for entry in metadata.entry_points(group=group):
            root = entry.dist and os.path.normpath(str(entry.dist.locate_file("")))
            if entry.dist and path.startswith(f"{root}/{entry.module.partition('.')[0]}/"):
                return entry.dist.name, path[len(str(root)) + 1 :]
    return "", ""


def _missing(dependency: Dependency, why: str, mend: str = "") -> ToolchainError:
    mend = dependency.install or mend
    return ToolchainError(
        f"the library {dependency.name} is missing: {why.rstrip('.')}" + (f". Install it: {mend}" if mend else "")
    )


def _path(dependency: Dependency, _settings: Settings) -> Found:
    libraries = tuple(_library(dependency, file) for file in dependency.libraries)
    known_by = (*dependency.include_dirs, *dependency.libraries)
    return Found(dependency.name, "", dependency.include_dirs, _words(dependency), libraries, known_by)


def _python(dependency: Dependency, _settings: Settings) -> Found:
    try:
        package = metadata.distribution(dependency.name)
    except metadata.PackageNotFoundError as error:
        raise _missing(dependency, "the Python package is not installed", f"pip install {dependency.name}") from error
    dirs = tuple(str(package.locate_file(name)) for name in dependency.include_dirs)
    files = {str(package.locate_file(name)): name for name in dependency.libraries}
    libraries = tuple(_library(dependency, file, dependency.name, name) for file, name in files.items())
    known_by = (*_import_path(), *files)
    return Found(dependency.name, package.version, dirs, _words(dependency), libraries, known_by)


def _words(dependency: Dependency) -> tuple[str, ...]:
    return tuple(name if value is None else f"{name}={value}" for name, value in dependency.defines)


def _import_path() -> list[str]:
    """Return the directories that hold installed Python packages, which change when one is installed or upgraded.

    Others, such as that of a script, may change at any moment for other reasons.
    """
    return [entry for entry in dict.fromkeys(sys.path) if any(map(_describes, _names(entry)))]


def _describes(name: str) -> bool:
    return name.endswith((".dist-info", ".egg-info"))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 (names, not paths)
    except OSError:
        return []  # an entry of the import path may be a file, or be missing


def _pkg_config(dependency: Dependency, settings: Settings) -> Found:
    programs = (cmake.program(name, settings.path) for name in ("pkg-config", "pkgconf"))
    program = next(filter(None, programs), None)
    if program is None:
        raise _missing(
            dependency,
            f"pkg-config, which knows where it is, is not on PATH ({settings.path})",
            "`apt-get install pkg-config` (Debian, Ubuntu), `dnf install pkgconf` (Fedora), or `pip install pkgconf`",
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
    flags = _Flags(dependency, shlex.split(asked.answer("--cflags", "--libs", name)))
    searched = [*asked.path, *asked.answer("--variable=pc_path", "pkg-config").split(os.pathsep)]
    libraries = flags.libraries()
    files = [one.word for one in libraries if one.word.startswith("/")]
    known_by = dict.fromkeys(
        [program, *(one for one in searched if one), *_import_path(), *asked.files(name), *files, *flags.searched]
    )
    version = asked.answer("--modversion", name)
    return Found(name, version, flags.include_dirs, flags.defines, libraries, tuple(known_by))


def _cmake(dependency: Dependency, settings: Settings) -> Found:
    program = cmake.program("cmake", settings.path)
    if program is None:
        raise _missing(
            dependency, f"cmake, which knows where it is, is not on PATH ({settings.path})", "`pip install cmake ninja`"
        )
    variables = {f"{entry.name}_ROOT": str(path) for entry, path in _registered("cmake.root")}
    prefixes = [*filter(None, settings.cmake_prefix_path.split(os.pathsep))]
    prefixes += [str(path) for _, path in _registered("cmake.prefix")]
    env = {**dict(settings.compiler_env), "PATH": settings.path, "LC_ALL": "C"}
    env["CMAKE_PREFIX_PATH"] = os.pathsep.join(prefixes)
    name = dependency.name
    answer = cmake.ask(program, name, dependency.at_least, dependency.target, variables=variables, env=env)
    if isinstance(answer, str):
        raise _missing(
            dependency,
            f"cmake says: {answer}",
            f"the package that has {name}Config.cmake, or name its directory in CMAKE_PREFIX_PATH",
        )
    flags = _Flags(dependency, answer.words)
    libraries = flags.libraries()
    files = [one.word for one in libraries if one.word.startswith("/")]
    searched = [f"{top}/{name}" for top in (*prefixes, "/usr/local") for name in ("lib", "lib/cmake", "share/cmake")]
    known_by = dict.fromkeys([program, *searched, *_import_path(), *answer.files, *files, *flags.searched])
    return Found(name, answer.version, flags.include_dirs, flags.defines, libraries, tuple(known_by))


class _Asked:
    """A pkg-config with its environment."""

    def __init__(self, program: str, settings: Settings) -> None:
        self._program = program
        packaged = [str(directory) for _, directory in _registered("pkg_config")]
        self.path = [*filter(None, settings.pkg_config_path.split(os.pathsep)), *packaged]
        self._env = {**dict(settings.compiler_env), "PATH": settings.path, "LC_ALL": "C"}
        self._env["PKG_CONFIG_PATH"] = os.pathsep.join(self.path)

    def run(self, *words: str) -> tuple[int, str]:
        """Run it; return its exit status and output."""
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


def _registered(group: str) -> list[tuple[metadata.EntryPoint, Path]]:
    """Return the directories that installed Python packages register for pkg-config or CMake."""
    found = [(entry, entry.dist) for entry in metadata.entry_points(group=group)]
    return [(entry, Path(str(of.locate_file(entry.module.replace(".", "/"))))) for entry, of in found if of is not None]


# What every kernel is compiled and linked with, or, of the linker's options, decides itself.
_EVERY = ("-pthread", "-lpthread", "-lc", "-lstdc++", "-lgcc_s", "-lgcc", "-Wl,--as-needed", "-Wl,--no-as-needed")


class _Flags:
    """The flags of a library for compiler and linker, taken apart.

    Raises:
        ToolchainError: there is a flag of another kind.
    """

    def __init__(self, dependency: Dependency, words: Sequence[str]) -> None:
        self._dependency = dependency
        found: dict[str, dict[str, None]] = {kind: {} for kind in ("-isystem", "-I", "-D", "-L", "-l", "-Wl,-rpath")}
        left = list(words)
        while left:
            word = left.pop(0)
            if word in found and left:
                word += left.pop(0)
            kind = next((kind for kind in found if word.startswith(kind)), "")
            if word in _EVERY:
                continue
            if kind == "-l" or (word.startswith("/") and re.search(r"\.(a|so[.\d]*)$", word)):
                found["-l"][word] = None
            elif kind:
                found[kind][word.removeprefix(kind)] = None
            else:
                raise ToolchainError(
                    f"the library {dependency.name} wants {word}, and kernels get no other flags of libraries than "
                    f"-I, -isystem, -D, -L, -l and -pthread: declare it with `library`, and flags in DIMORPH_CXXFLAGS"
                )
        self.include_dirs = tuple({**found["-I"], **found["-isystem"]})
        self.defines = tuple(found["-D"])
        self._dirs, self._words = tuple(found["-L"]), tuple(found["-l"])
        # Where a library that is missing now may be later.
        self.searched = (*self._dirs, *sorted(dynamic.system_dirs())) if self._words else ()

    def libraries(self) -> tuple[Library, ...]:
        """Return the libraries; those that none of the named directories has are the linker's to find."""
        return tuple(self._library(word) for word in self._words)

    def _library(self, word: str) -> Library:
        names = [f"lib{word[2:]}.so", f"lib{word[2:]}.a"]
        paths = [word] if word.startswith("/") else [f"{one}/{name}" for one in self._dirs for name in names]
        file = next((path for path in paths if Path(path).is_file()), None)
        if file:
            return _library(self._dependency, file)
        return Library(word, "", "bundled" if self._dependency.bundle else "system")
