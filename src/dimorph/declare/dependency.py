"""Dependencies: libraries of others, declared by name and found when the kernel that needs them is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dimorph import _lazy
from dimorph.declare.names import IDENTIFIER
from dimorph.errors import DeclarationError


@dataclass(frozen=True)
class Dependency:
    """A library that a kernel includes or links; `pkg_config`, `python_package` and `library` make one.

    Attributes:
        kind: the way to find it: `pkg-config`, `python` or `path`.
        name: its name for that way, and in messages.
        at_least: the oldest version that serves; empty: any.
        include_dirs: directories of headers: relative to the directory of installed packages, or absolute.
        libraries: files to link, likewise.
        defines: names and values of macros that its headers need; without a value: None.
        bundle: artifacts hold copies of the shared libraries.
        install: the command that installs it, for messages.
    """

    kind: str
    name: str
    at_least: str = ""
    include_dirs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    defines: tuple[tuple[str, str | None], ...] = ()
    bundle: bool = False
    install: str = ""

    @property
    def key_text(self) -> str:
        """The part of it that content keys cover: what the author declared, apart from paths and messages.

        The version that is found, and the files, are no part: artifacts of a package have to be found where the
        library is not installed. They count with the compiler, as part of its identity and of the record of reads.
        """
        paths = [*self.include_dirs, "", *self.libraries] if self.kind == "python" else list(map(_name, self.libraries))
        return _lazy.json.dumps([self.kind, self.name, paths, self.defines, self.bundle])


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
