"""Shared objects of this process: entries, cases and the thread pool, each loaded once."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dimorph import plan
from dimorph.artifact import Artifact
from dimorph.errors import LoadError
from dimorph.ffi import EntryHost
from dimorph.kernel import Kernel
from dimorph.settings import Settings

# The threads that cases share, one pool a process. Built and kept like any entry.
POOL = Kernel(name="dimorph_pool", entry="pool.cc", root=Path(__file__).parent / "csrc", origin=Path(__file__))


class Library:
    """A loaded shared object."""

    def __init__(self, artifact: Artifact) -> None:
        self.path = artifact.file
        try:
            # Local, so that equal names in two objects never meet.
            self._handle = ctypes.CDLL(str(self.path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        except OSError as error:
            raise LoadError(f"{artifact.meta.kernel}: {self.path} cannot be loaded: {error}") from error

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
    """An entry, told how to find what it lacks."""

    def read_only(self, function: str) -> int:
        """Bit i is set where a function only reads its argument i."""
        address = self.symbol(f"dimorph_read_only_{function}")
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64)(address)())


class Case(Library):
    """A case."""

    def function(self, name: str) -> int:
        """The address of the CaseFunction of one of its functions."""
        return self.symbol(f"dimorph_case_{name}")


_L = TypeVar("_L", bound=Library)
_loaded: dict[tuple[str, str], Library] = {}
_lock = threading.RLock()
# The address of the HostServices table of the pool, once there is one.
_services: list[int] = []


def entry(artifact: Artifact, host: EntryHost) -> Entry:
    """The entry of an artifact, loaded at most once."""

    def prepare(library: Entry) -> None:
        library.call("dimorph_entry_host", ctypes.addressof(host))

    return _once(artifact, Entry, prepare)


def case(artifact: Artifact, *, parallel: bool) -> Case:
    """The case of an artifact, loaded at most once; one that works in parallel needs `start_pool` first."""

    def prepare(library: Case) -> None:
        library.call("dimorph_case_bind", _services[0] if parallel else 0)

    return _once(artifact, Case, prepare)


def pool_units() -> list[plan.Unit]:
    """What has to be there for cases that work in parallel; nothing once the pool runs."""
    return [] if _services else [plan.entry_unit(POOL.instantiations())]


def start_pool(artifact: Artifact, settings: Settings) -> None:
    """Makes the pool of this process, unless it has one. The first caller's settings decide the number of threads."""
    with _lock:
        if _services:
            return
        library = Library(artifact)
        set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int32)(library.symbol("dimorph_pool_set_threads"))
        set_threads(settings.num_threads or 0)
        _services.append(ctypes.CFUNCTYPE(ctypes.c_void_p)(library.symbol("dimorph_host_services"))())


def _once(artifact: Artifact, kind: type[_L], prepare: Callable[[_L], None]) -> _L:
    key = (artifact.meta.key, artifact.meta.toolchain_id)
    with _lock:
        library = _loaded.get(key)
        if library is None:
            library = kind(artifact)
            prepare(library)
            _loaded[key] = library
        assert isinstance(library, kind)
        return library


def _forget_lock() -> None:
    # Another thread may have held it when the process forked; it does not exist here.
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_lock)
