"""The shared objects of this process: entries, cases and the thread pool, each loaded once."""

from __future__ import annotations

import _ctypes
import ctypes
import errno
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dimorph._fork import ForkSafeLock
from dimorph.errors import Gone, LoadError, no_descriptors
from dimorph.plan.pool import POOL
from dimorph.plan.unit import Unit
from dimorph.runtime import ffi, handle, linked, threads
from dimorph.runtime.device_code import DeviceCode
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.toolchain import targets
from dimorph.toolchain.jobs import processors


class Library:
    """A loaded shared object.

    Args:
        artifact: the artifact whose object is loaded.
        again: True if the same file is loaded already and this object needs its own static variables.

    Raises:
        LoadError: the object cannot be loaded.
    """

    def __init__(self, artifact: Artifact, *, again: bool = False) -> None:
        self.path = artifact.file
        ffi.require()  # cases with device code call its functions too
        try:
            linked.provide(artifact, _open)
            self._handle = _open(self.path, again=again)
        except OSError as error:
            if no_descriptors(error):
                raise
            there = self.path.exists()
            why = (there and linked.missing(artifact, error)) or error
            kind = LoadError if there else Gone
            raise kind(f"{artifact.meta.kernel}: {self.path} cannot be loaded: {why}") from error

    def symbol(self, name: str) -> int:
        """Return the address of an exported symbol.

        Raises:
            LoadError: the object exports no symbol of that name.
        """
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(self._handle, name))
        except ValueError as error:
            raise LoadError(f"{self.path} exports no {name}") from error

    def has(self, name: str) -> bool:
        """Return True if it exports a name."""
        try:
            return bool(self._handle[name])
        except (AttributeError, UnicodeDecodeError):  # ctypes decodes a message that has the path
            return False

    def call(self, name: str, argument: int) -> None:
        """Call an exported `void name(const void*)`."""
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.symbol(name))(argument)


class Entry(Library):
    """The loaded shared object of an entry."""

    def __init__(self, artifact: Artifact, *, again: bool = False) -> None:
        super().__init__(artifact, again=again)
        self.call("dimorph_python_lock", ctypes.addressof(ffi.python_lock()))
        if self.has("dimorph_handle_index"):
            handle.register()
        self._function = ffi.extern_function(self.symbol("__tvm_ffi_dimorph_function"))

    def instance(self, resolver: ffi.Resolver, calls: ctypes.Array[ctypes.c_int64]) -> Instance:
        """Make a new instance that counts the calls of each case function in an array, which `resolver` keeps alive.

        Raises:
            MemoryError: the instance cannot be allocated.
        """
        return Instance(self, resolver, calls)

    def function(self, instance: int, name: str) -> Any:
        """Return an exported function as a callable for the instance at an address, which it keeps alive."""
        made = self._function(instance, self.symbol(f"__tvm_ffi_{name}"))
        # The entry itself releases Python's lock around the case, which costs 40 ns; tvm-ffi would take 250 ns.
        made.release_gil = False
        return made

    def read_only(self, function: str) -> int:
        """Return a mask whose bit i is set if a function only reads its argument i."""
        address = self.symbol(f"dimorph_read_only_{function}")
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64)(address)())


class Instance:
    """One load of an entry, with its own table of bound cases (detail::Instance of entry.h)."""

    def __init__(self, entry: Entry, resolver: ffi.Resolver, calls: ctypes.Array[ctypes.c_int64]) -> None:
        self._entry = entry
        arguments = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
        new = ctypes.CFUNCTYPE(ctypes.c_void_p, *arguments)(entry.symbol("dimorph_instance_new"))
        address = new(resolver.keeper.__chandle__(), resolver.address, len(calls), ctypes.addressof(calls))
        if not address:
            raise MemoryError(f"{entry.path}: no memory for {len(calls)} case functions")
        self.address = int(address)
        weakref.finalize(self, entry.call, "dimorph_instance_drop", self.address).atexit = False

    def function(self, name: str) -> Any:
        """Return an exported function as a callable, which stays valid without this object."""
        return self._entry.function(self.address, name)

    def symbol(self, name: str) -> int:
        """Return the address of an exported function."""
        return self._entry.symbol(f"__tvm_ffi_{name}")


class Case(Library):
    """The loaded shared object of a case.

    Attributes:
        code: the device code of the case, or None. The case reads it from Python's memory at its first launch.
    """

    code: DeviceCode | None = None

    def function(self, name: str) -> int:
        """Return the address of the CaseFunction for an exported function of the kernel."""
        return self.symbol(f"dimorph_case_{name}")


_L = TypeVar("_L", bound=Library)
# By the keys of all artifacts, those of device code included, because a case keeps the device code that it was given.
_loaded: dict[tuple[tuple[str, str], ...], Library] = {}
_lock = ForkSafeLock()
# The address of the HostServices table of the thread pool; empty before the pool is loaded.
_services: list[int] = []
# The thread pool, while neither a setting nor torch says how many threads it uses.
_free: list[Library] = []


def load(artifact: Artifact, unit: Unit, settings: Settings, images: Sequence[Artifact] = ()) -> Library:
    """Load the object of an artifact, at most once. The thread pool must be loaded before a case that uses it.

    Args:
        artifact: the artifact of an entry, a case or the thread pool.
        unit: the unit of the artifact.
        settings: decide the number of threads, if this starts the thread pool.
        images: the device code of a case. The NVIDIA driver gets it at the first launch, not before.

    Raises:
        LoadError: the object cannot be loaded; `Gone` if its file is missing.
    """
    if _free:
        _ask_torch()
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


def unloadable(artifact: Artifact) -> str | None:
    """Return why this process cannot load the object of an artifact of host code, e.g. a symbol that is missing.

    The object is unloaded again. Nothing of it runs but the initialisers of its static variables. None: it can be
    loaded, or it was compiled for another CPU, so that it cannot be tried here.
    """
    if artifact.meta.target not in {target.name for target in targets.runnable()}:
        return None
    ffi.provide()
    try:
        linked.provide(artifact, _open)
        handle = _open(artifact.file)._handle
    except LoadError as error:
        return str(error)
    except OSError as error:
        return linked.missing(artifact, error) or str(error)
    _ctypes.dlclose(handle)
    return None


def pool_runs() -> bool:
    """Return True once the thread pool of this process runs."""
    return bool(_services)


def _start_pool(artifact: Artifact, settings: Settings) -> Library:
    """Start the thread pool of this process, unless it runs. The settings of the first load fix its threads."""

    def prepare(library: Library) -> None:
        _set_threads(library, threads.number(settings))
        library.call("dimorph_pool_set_check_signals", ffi.check_signals())
        if settings.num_threads is None:
            _free.append(library)
            _ask_torch()

    with _lock():
        library = _once((artifact,), Library, prepare)
        if not _services:
            _services.append(ctypes.CFUNCTYPE(ctypes.c_void_p)(library.symbol("dimorph_host_services"))())
        return library


def _set_threads(pool: Library, count: int) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_int32)(pool.symbol("dimorph_pool_set_threads"))(count)


def _ask_torch() -> None:
    """Let each job ask torch for its number of threads, from the first load on that finds torch imported."""
    address = threads.torch_function()
    with _lock():
        if _free and address is not None:
            pool = _free.pop()
            _set_threads(pool, processors())
            pool.call("dimorph_pool_follow", address)


def _once(artifacts: Sequence[Artifact], kind: type[_L], prepare: Callable[[_L], None] | None) -> _L:
    """Load the object of the first artifact for use with the others, unless that was done before."""
    # The checksum too, because an artifact is built again under its key when a header of the system changes.
    key = tuple((one.meta.key, one.meta.files[one.file.name].sha256) for one in artifacts)
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


def _open(path: Path, *, again: bool = False) -> ctypes.CDLL:
    mode = os.RTLD_LOCAL | os.RTLD_NOW  # RTLD_LOCAL keeps equal names of two objects apart
    # The loader replaces $ORIGIN, $LIB and $PLATFORM in a path, and there is no way to quote them.
    copied = again or "$" in str(path)
    try:
        return ctypes.CDLL(_copied(path) if copied else str(path), mode)
    except OSError as error:
        for number in (errno.ENFILE, errno.EMFILE):  # the longer text first
            if os.strerror(number) in str(error):  # the loader gives its reason as a text
                raise OSError(number, os.strerror(number), str(path)) from error
        # Where a store is mounted noexec, its files can be read, but not be mapped as code.
        if copied or not path.exists() or not os.statvfs(path).f_flag & os.ST_NOEXEC:
            raise
        return ctypes.CDLL(_copied(path), mode)


def _copied(path: Path) -> str:
    """Copy a file into memory that lasts as long as the process; return its path.

    The dynamic loader opens a file only once, so a second copy of its variables needs a file of another name.
    """
    copy = _memory_file(path.name)
    with os.fdopen(copy, "wb", closefd=False) as file:
        file.write(path.read_bytes())
    return f"/proc/self/fd/{copy}"


# Numbers of the system call memfd_create.
_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}


def _memory_file(name: str) -> int:
    """Return the descriptor of a new file in memory; where the system has none, of a file without a name."""
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create(name, os.MFD_CLOEXEC)
        # A Python that was built for an old C library lacks the function, but the kernel has it.
        made = int(ctypes.CDLL(None).syscall(_MEMFD_CREATE[os.uname().machine], name.encode(), 1))
        if made >= 0:
            return made
    except (OSError, KeyError) as error:
        if no_descriptors(error):
            raise
    import tempfile  # here, because few processes ever need it

    descriptor, path = tempfile.mkstemp(".so")
    Path(path).unlink()
    return descriptor
