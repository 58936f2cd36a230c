"""Dependencies: libraries of others, declared by name and found when the kernel that needs them is built."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dimorph import _lazy
from dimorph.declare.names import IDENTIFIER
from dimorph.errors import DeclarationError

_CMAKE_NAME = re.compile(r"[A-Za-z_][\w.+-]*(::[\w.+-]+)*")
_CMAKE_VERSION = re.compile(r"(\d+(\.\d+)*)?")


@dataclass(frozen=True)
class Dependency:
    """A library that a kernel includes or links; `pkg_config`, `cmake_package`, `python_package`, `library` make one.

    Attributes:
        kind: the way to find it: `pkg-config`, `cmake`, `python` or `path`.
        name: its name for that way, and in messages.
        at_least: the oldest version that serves; empty: any.
        include_dirs: directories of headers: relative to the directory of installed packages, or absolute.
        libraries: files to link, likewise.
        defines: names and values of macros that its headers need; without a value: None.
        bundle: artifacts hold copies of the shared libraries.
        install: the command that installs it, for messages.
        target: the target of a CMake package.
    """

    kind: str
    name: str
    at_least: str = ""
    include_dirs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    defines: tuple[tuple[str, str | None], ...] = ()
    bundle: bool = False
    install: str = ""
    target: str = ""

    @property
    def key_text(self) -> str:
        """The part of it that content keys cover: what the author declared, apart from paths and messages.

        The version that is found, and the files, are no part: artifacts of a package have to be found where the
        library is not installed. They count with the compiler, as part of its identity and of the record of reads.
        """
        paths = [*self.include_dirs, "", *self.libraries] if self.kind == "python" else list(map(_name, self.libraries))
        return _lazy.json.dumps([self.kind, self.name, self.target, paths, self.defines, self.bundle])


def pkg_config(name: str, *, at_least: str = "", bundle: bool = False, install: str = "") -> Dependency:
    """Declare a library that pkg-config knows, e.g. `dimorph.pkg_config("eigen3", at_least="3.4")`.

    Its include directories, macros and libraries are what `pkg-config --cflags --libs` says. The files of installed
    Python packages that register some for pkg-config, as numpy and pybind11 do, are found before the system's.

    A shared library in a directory that the dynamic loader searches is needed where the kernel runs; of one in another
    directory, artifacts hold a copy.

    Args:
        name: the name of the `.pc` file, without its suffix.
        at_least: the oldest version that serves; default: any.
        bundle: True to let artifacts hold copies of the system's libraries, too.
        install: the command that installs it, for the message where it is missing.

    Raises:
        DeclarationError: an argument is invalid.
    """
    _text("pkg_config", "name", name)
    for argument, value in (("at_least", at_least), ("install", install)):
        _text("pkg_config", argument, value, empty=True)
    _flag("pkg_config", bundle)
    return Dependency("pkg-config", name, at_least, bundle=bundle, install=install)


def cmake_package(name: str, *, target: str, at_least: str = "", bundle: bool = False, install: str = "") -> Dependency:
    """Declare a library that CMake finds, e.g. `dimorph.cmake_package("Eigen3", target="Eigen3::Eigen")`.

    Its include directories, macros and libraries are those that the target gives to what links it. CMake searches
    `CMAKE_PREFIX_PATH`, what installed Python packages register for it, and the system; it needs a C++ compiler on PATH
    for that. The libraries are found at run time as those of `pkg_config`.

    Args:
        name: the name of the package, as `find_package` takes it.
        target: the target to link.
        at_least: the oldest version that serves, as the package judges that; default: any.
        bundle: True to let artifacts hold copies of the system's libraries, too.
        install: the command that installs it, for the message where it is missing.

    Raises:
        DeclarationError: an argument is invalid.
    """
    for argument, value in (("name", name), ("target", target)):
        if not isinstance(value, str) or not _CMAKE_NAME.fullmatch(value):
            raise DeclarationError(f"cmake_package: {argument}: expected a name of CMake, got {value!r}")
    if not isinstance(at_least, str) or not _CMAKE_VERSION.fullmatch(at_least):
        raise DeclarationError(f"cmake_package: at_least: expected a version such as 3.4, got {at_least!r}")
    _text("cmake_package", "install", install, empty=True)
    _flag("cmake_package", bundle)
    return Dependency("cmake", name, at_least, bundle=bundle, install=install, target=target)


def python_package(
    name: str,
    *,
    include_dirs: Iterable[str] = (),
    libraries: Iterable[str] = (),
    defines: Mapping[str, str | int | None] | None = None,
    bundle: bool = False,
) -> Dependency:
    """Declare the headers and libraries in a Python package, e.g. of the wheel of CUDA's runtime.

    The libraries are loaded out of the package, which is then needed where the kernel runs.

    Args:
        name: the name by which pip installs it.
        include_dirs: directories of headers, relative to the directory that the package is installed in, such as
            `nvidia/cu13/include`.
        libraries: shared or static libraries, likewise, such as `nvidia/cu13/lib/libcudart.so.13`.
        defines: name -> value of the macros that the headers need; None: no value.
        bundle: True to let artifacts hold copies of the libraries instead.

    Raises:
        DeclarationError: an argument is invalid.
    """
    _text("python_package", "name", name)
    dirs, files = (
        _paths("python_package", argument, given)
        for argument, given in (("include_dirs", include_dirs), ("libraries", libraries))
    )
    for path in (*dirs, *files):
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise DeclarationError(
                f"python_package: {name}: expected paths relative to the installed packages, got {path!r}"
            )
    _flag("python_package", bundle)
    macros = _defines("python_package", defines)
    return Dependency("python", name, include_dirs=dirs, libraries=files, defines=macros, bundle=bundle)


def library(
    name: str,
    *,
    include_dirs: Iterable[str | Path] = (),
    libraries: Iterable[str | Path] = (),
    defines: Mapping[str, str | int | None] | None = None,
    bundle: bool = False,
    install: str = "",
) -> Dependency:
    """Declare a library by its paths. Headers of the project itself belong in a kernel's `include_dirs`.

    Artifacts hold a copy of a shared library, unless it is in a directory that the dynamic loader searches.

    Args:
        name: its name, for messages.
        include_dirs: absolute paths of directories of headers.
        libraries: absolute paths of shared or static libraries.
        defines: name -> value of the macros that the headers need; None: no value.
        bundle: True to let artifacts hold copies of the system's libraries, too.
        install: the command that installs it, for the message where it is missing.

    Raises:
        DeclarationError: an argument is invalid.
    """
    _text("library", "name", name)
    _text("library", "install", install, empty=True)
    dirs, files = _paths("library", "include_dirs", include_dirs), _paths("library", "libraries", libraries)
    for path in (*dirs, *files):
        if not Path(path).is_absolute():
            raise DeclarationError(
                f"library: {name}: expected absolute paths, got {path!r}; headers of the project itself belong in the "
                "kernel's include_dirs"
            )
    _flag("library", bundle)
    macros = _defines("library", defines)
    return Dependency("path", name, "", dirs, files, macros, bundle, install)


def _text(function: str, argument: str, given: object, *, empty: bool = False) -> None:
    if not isinstance(given, str) or not (given or empty) or given.startswith("-"):
        raise DeclarationError(f"{function}: {argument}: expected a text that is no option, got {given!r}")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _flag(function: str, bundle: object) -> None:
    if not isinstance(bundle, bool):
        raise DeclarationError(f"{function}: bundle: expected True or False, got {bundle!r}")


def _paths(function: str, argument: str, given: Iterable[str | Path]) -> tuple[str, ...]:
    if isinstance(given, (str, Path)) or not isinstance(given, Iterable):
        raise DeclarationError(f"{function}: {argument}: expected a list, got {given!r}; write [{given!r}]")
    listed = list(given)
    for path in listed:
        if not isinstance(path, (str, Path)) or not str(path):
            raise DeclarationError(f"{function}: {argument}: expected paths, got {path!r}")
    return tuple(str(path) for path in listed)


def _defines(function: str, given: Mapping[str, str | int | None] | None) -> tuple[tuple[str, str | None], ...]:
    if given is not None and not isinstance(given, Mapping):
        raise DeclarationError(f"{function}: defines: expected macro -> value, got {given!r}")
    for name, value in (given or {}).items():
        if not isinstance(name, str) or not IDENTIFIER.match(name):
            raise DeclarationError(f"{function}: defines: expected the name of a macro, got {name!r}")
        if value is not None and (not isinstance(value, (str, int)) or "\n" in str(value)):
            raise DeclarationError(f"{function}: defines: {name}: expected a text in one line, got {value!r}")
    return tuple((name, None if value is None else str(value)) for name, value in sorted((given or {}).items()))
