"""Send a unit to a process that has a compiler and Dimorph, but neither the sources nor the module that declares them.

A parcel holds the sources by content. It is unpacked into a tree of directories in which every source has its own path,
so `..` and nested include directories mean the same there. Sources of Dimorph itself are those of the receiver; the
key, which is computed again there, tells whether they are the same.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dimorph.declare.declaration import Declaration
from dimorph.errors import DeclarationError, ToolchainError
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.source.include_scan import OWN, Files
from dimorph.toolchain.compiler import Level

# Stands for the directory of Dimorph in paths of a parcel.
_HERE = "@dimorph/"
# The most directories of a project that are made again. They hold no source, but what a compile does not find in them
# is recorded by their names. One that is left out costs a compile at most.
_MOST = 200
_SENT = ("name", "entry", "case", "device", "functions", "config", "dependencies", "declared_at")


@dataclass(frozen=True)
class Parcel:
    """A unit that can be pickled, for one target level or architecture.

    Attributes:
        key: the content key of the unit.
        target: the target level or architecture.
        cxxflags: the user's flags.
        log: the level of the sender's log.
        unit: field of `Unit` -> value, but for the kernel.
        kernel: field of `Declaration` -> value, of those that a compile and its messages need.
        files: path -> content of the sources.
        directories: the directories of the project.
    """

    key: str
    target: Level
    cxxflags: tuple[str, ...]
    log: str | None
    unit: Mapping[str, Any]
    kernel: Mapping[str, Any]
    files: Mapping[str, bytes]
    directories: tuple[str, ...]

    def settings(self, own: Settings) -> Settings:
        """Return the settings of the receiver with those of the sender that keys cover."""
        return replace(own, debug=False, cxxflags=self.cxxflags, log=self.log)

    def unit_in(self, tree: str) -> Unit:
        """Return the unit with its paths below a directory, whether anything is there or not."""
        root = Path(_there(self.kernel["root"], tree))
        changed = {
            "kernel": Declaration(**{**self.kernel, "root": root, "origin": root / "sent.py"}),
            "include_dirs": tuple(Path(_there(path, tree)) for path in self.unit["include_dirs"]),
            "variants": tuple(replace(v, root=Path(_there(str(v.root), tree))) for v in self.unit["variants"]),
        }
        return Unit(**{**self.unit, **changed})

    def unpack(self, tree: str, settings: Settings) -> Unit:
        """Write the sources below a directory, whose path has no links, and return the unit.

        Raises:
            ToolchainError: the key of the unit is another one here.
        """
        for path in self.directories:
            Path(_there(path, tree)).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            # A directory before `..` has to exist, too.
            Path(posixpath.dirname(_there(path, tree))).mkdir(parents=True, exist_ok=True)
            Path(f"{tree}{posixpath.normpath(path)}").write_bytes(content)
        try:
            unit = self.unit_in(tree).rescanned(Files())
        except DeclarationError as error:
            raise self._other(str(error)) from error
        if unit.key(self.target, settings) != self.key:
            before = {source.logical: source.sha256 for source in self.unit["sources"]}
            now = {source.logical: source.sha256 for source in unit.sources}
            differ = sorted(name.partition(":")[2] for name in before.keys() | now if before.get(name) != now.get(name))
            raise self._other(f"{', '.join(differ) or 'its own flags or formats'} differ")
        return unit

    def _other(self, why: str) -> ToolchainError:
        return ToolchainError(
            f"{os.uname().nodename} has another Dimorph than the process that sent {self.kernel['name']} "
            f"{self.unit['kind']}: {why}; install the same version on both"
        )


class Packer:
    """Makes parcels of units; what several units share is read once."""

    def __init__(self, settings: Settings) -> None:
        """Begin with nothing read.

        Raises:
            ToolchainError: the settings ask for a debug build, whose objects name the paths of the sources.
        """
        if settings.debug:
            raise ToolchainError(
                "DIMORPH_DEBUG=1: objects of a debug build name the paths of the sources, which workers do not have; "
                "build without an executor"
            )
        self._settings = settings
        self._kernels: dict[int, dict[str, Any]] = {}
        self._contents: dict[str, bytes] = {}
        self._directories: dict[str, tuple[str, ...]] = {}

    def pack(self, unit: Unit, target: Level) -> Parcel:
        """Return the parcel of a unit.

        Raises:
            DeclarationError: two sources have one path, if links are not followed.
            OSError: a source cannot be read.
        """
        dirs = [str(path) for path in unit.include_dirs]
        values = {one.name: getattr(unit, one.name) for one in fields(Unit) if one.name != "kernel"}
        values["include_dirs"] = tuple(_sent(path) for path in dirs)
        return Parcel(
            key=unit.key(target, self._settings),
            target=target,
            cxxflags=self._settings.cxxflags,
            log=self._settings.log,
            unit={**values, "values": dict(unit.values), "exports": dict(unit.exports)},
            kernel=self._kernel(unit.kernel),
            files=self._files(unit),
            directories=tuple(path for one in dirs if not f"{one}/".startswith(OWN) for path in self._below(one)),
        )

    def _kernel(self, kernel: Declaration) -> dict[str, Any]:
        if id(kernel) not in self._kernels:
            sent = {name: getattr(kernel, name) for name in _SENT}
            sent["root"] = _sent(str(kernel.root))
            # Functions may have no name that a receiver can import, and a compile asks none of them.
            sent["archs"] = ("chosen",) if callable(kernel.archs) else tuple(kernel.archs)
            sent["axes"] = tuple(
                replace(axis, accepts=axis.accepts and _unanswered, choose=axis.choose and _unanswered)
                for axis in kernel.axes
            )
            self._kernels[id(kernel)] = sent
        return self._kernels[id(kernel)]

    def _files(self, unit: Unit) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        places: dict[str, bytes] = {}
        for source in unit.sources:
            if source.path.startswith(OWN):
                continue
            if source.path not in self._contents:
                self._contents[source.path] = Path(source.path).read_bytes()
            content = self._contents[source.path]
            place = posixpath.normpath(source.path)
            if places.setdefault(place, content) != content:
                raise DeclarationError(
                    f"{unit.label}: {source.path} leads through a link to another file than {place}, and links are "
                    "not sent to workers; include it by a path without `..` behind a link"
                )
            found[source.path] = content
        return found

    def _below(self, directory: str) -> tuple[str, ...]:
        if directory not in self._directories:
            self._directories[directory] = tuple(_walk(directory))
        return self._directories[directory]


def _walk(top: str) -> Iterator[str]:
    """Yield a directory and those below it, the upper ones first, without hidden ones."""
    waiting = [top]
    for count, directory in enumerate(waiting):
        if count == _MOST:
            return
        yield directory
        try:
            found = sorted(one.name for one in os.scandir(directory) if one.is_dir() and not one.name.startswith("."))
        except OSError:  # a compile cannot look into it, either
            continue
        waiting += [f"{directory}/{name}" for name in found]


def _sent(path: str) -> str:
    return _HERE + path[len(OWN) :] if f"{path}/".startswith(OWN) else path


def _there(path: str, tree: str) -> str:
    return OWN + path[len(_HERE) :] if path.startswith(_HERE) else tree + path


def _unanswered(_: object) -> bool:
    raise AssertionError("a compile asks no predicate of an axis")
