"""Dependencies as they were found on this machine; every store hit reads such a record, `dependencies` makes them."""

from __future__ import annotations

from typing import NamedTuple


class Library(NamedTuple):
    """A library to link.

    Attributes:
        word: the linker's argument: the path of the file, or `-lNAME` for one that the linker finds itself.
        soname: the name by which objects need it; empty: it is static, or not known yet.
        how: the way in which it is found at run time: `system`, by the dynamic loader; `bundled`, as a copy in the
            artifact; `required`, in a Python package.
        package: the Python package.
        path: the path of the file, relative to the directory that the package is installed in.
    """

    word: str
    soname: str
    how: str
    package: str = ""
    path: str = ""


class Found(NamedTuple):
    """A dependency as it is on this machine.

    Attributes:
        name: the name of the dependency.
        version: its version; empty: unknown.
        include_dirs: the directories of its headers, in order.
        defines: the macros that its headers need, as `NAME` or `NAME=VALUE`.
        libraries: the libraries to link, in order.
        known_by: the files and directories whose change may change any of this.
    """

    name: str
    version: str
    include_dirs: tuple[str, ...]
    defines: tuple[str, ...]
    libraries: tuple[Library, ...]
    known_by: tuple[str, ...]

    @property
    def identity(self) -> list[object]:
        """The part of it that the identity of a compiler covers, without paths."""
        linked = [[library.word.rpartition("/")[2], library.how] for library in self.libraries]
        return [self.name, self.version, self.defines, linked]

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()
