"""Shared objects of this process: entries, cases and the thread pool, each loaded once."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dimorph._fork import ForkSafeLock
from dimorph.errors import Gone, LoadError
from dimorph.plan.pool import POOL
from dimorph.plan.unit import Unit
from dimorph.runtime import ffi
from dimorph.runtime.device_code import DeviceCode
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact


class Library:
    """A loaded shared object.

    Args:
        again: it is loaded already, and this one is to have variables of its own.
    """

    def __init__(self, artifact: Artifact, *, again: bool = False) -> None:
        self.path = artifact.file
        try:
            # Local, so that equal names in two objects never meet.
            self._handle = ctypes.CDLL(_copied(self.path) if again else str(self.path), os.RTLD_LOCAL | os.RTLD_NOW)
        except OSError as error:
            kind = LoadError if self.path.exists() else Gone
            raise kind(f"{artifact.meta.kernel}: {self.path} cannot be loaded: {error}") from error

    def symbol(self, name: str) -> int:
        """The address of an exported symbol.

        Raises:
            LoadError: there is none of that name.
        """
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(self._handle, name))
        except ValueError as error:
            raise LoadError(f"{self.path} exports no {name}") from error

    def call(self, name: str, argument: int) -> None:
        """Calls an exported `void name(const void*)`."""
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.symbol(name))(argument)


class Entry(Library):
    """An entry."""

    def __init__(self, artifact: Artifact, *, again: bool = False) -> None:
        ffi.require()
        super().__init__(artifact, again=again)
        self.call("dimorph_python_lock", ctypes.addressof(ffi.python_lock()))
        self._function = ffi.extern_function(self.symbol("__tvm_ffi_dimorph_function"))

    def instance(self, resolver: Any, places: int) -> Instance:
        """A new instance, with room for as many case functions."""
        return Instance(self, resolver, places)

    def function(self, instance: int, name: str) -> Any:
        """An export, callable for an instance, which lives as long as it does."""
        made = self._function(instance, self.symbol(f"__tvm_ffi_{name}"))
        # The entry releases Python's lock itself, around the case: that costs 40 ns, here it would cost 250.
        made.release_gil = False
        return made

    def read_only(self, function: str) -> int:
        """Bit i is set where a function only reads its argument i."""
        address = self.symbol(f"dimorph_read_only_{function}")
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64)(address)())


class Instance:
    """One load of an entry: its own table of bound cases (detail::Instance of entry.h)."""

    def __init__(self, entry: Entry, resolver: Any, places: int) -> None:
        self._entry = entry
        new = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(entry.symbol("dimorph_instance_new"))
        address = new(resolver.__chandle__(), places)
        if not address:
            raise MemoryError(f"{entry.path}: no memory for {places} case functions")
        self.address = int(address)
        weakref.finalize(self, entry.call, "dimorph_instance_drop", self.address).atexit = False

    def function(self, name: str) -> Any:
        """An export, callable. It keeps what it needs alive without this object."""
        return self._entry.function(self.address, name)

    def symbol(self, name: str) -> int:
        """The address of an export."""
        return self._entry.symbol(f"__tvm_ffi_{name}")


class Case(Library):
    """A case.

    Attributes:
        code: its device code, which it reads from Python's memory when it first launches something.
    """

    code: DeviceCode | None = None

    def function(self, name: str) -> int:
        """The address of the CaseFunction of one of its functions."""
        return self.symbol(f"dimorph_case_{name}")


_L = TypeVar("_L", bound=Library)
# By the keys of what it was made from, of device code too: a case launches what it was first given.
_loaded: dict[tuple[tuple[str, str], ...], Library] = {}
_lock = ForkSafeLock()
# The address of the HostServices table of the pool, once there is one.
_services: list[int] = []


def load(artifact: Artifact, unit: Unit, settings: Settings, images: Sequence[Artifact] = ()) -> Library:
    """What an artifact holds, loaded at most once. A case that works in parallel comes after the pool.

    Args:
        images: the device code of a case. Nothing of it is given to the driver before the first launch.
    """
    if unit.kernel is POOL:
        return _start_pool(artifact, settings)
    if unit.kind == "entry":
        return _once((artifact,), Entry, None)

    def prepare(library: Case) -> None:
        library.call("dimorph_case_bind", _services[0] if unit.parallel else 0)
        if unit.kernel.device:
            library.code = DeviceCode(unit.label, images)
            library.call("dimorph_device_bind", library.code.address)

    return _once((artifact, *images), Case, prepare)


def pool_runs() -> bool:
    """Return True once the thread pool of this process runs."""
    return bool(_services)


def _start_pool(artifact: Artifact, settings: Settings) -> Library:
    """Makes the pool of this process, unless it has one. The first caller's settings decide the number of threads."""

    def prepare(library: Library) -> None:
        set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int32)(library.symbol("dimorph_pool_set_threads"))
        set_threads(settings.num_threads or 0)

    with _lock():
        library = _once((artifact,), Library, prepare)
        if not _services:
            _services.append(ctypes.CFUNCTYPE(ctypes.c_void_p)(library.symbol("dimorph_host_services"))())
        return library


def _once(artifacts: Sequence[Artifact], kind: type[_L], prepare: Callable[[_L], None] | None) -> _L:
    """What the first of the artifacts holds, for use with the others."""
    key = tuple((artifact.meta.key, artifact.meta.toolchain_id) for artifact in artifacts)
    with _lock():
        library = _loaded.get(key)
        if library is None:
            path = artifacts[0].file
            library = kind(artifacts[0], again=any(other.path == path for other in _loaded.values()))
            if prepare:
                prepare(library)
            _loaded[key] = library
        assert isinstance(library, kind)
        return library


def _copied(path: Path) -> str:
    """Another file with what is in it, for as long as the process lives: by its name the loader knows what it has."""
    copy = os.memfd_create(path.name, os.MFD_CLOEXEC)
    with os.fdopen(copy, "wb", closefd=False) as file:
        file.write(path.read_bytes())
    return f"/proc/self/fd/{copy}"
