"""The stores that a load searches, in order: packaged, the user's, shared, remote; and a fallback for the user's."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dimorph import _lazy
from dimorph._fork import ForkSafeLock
from dimorph._lazy import logger
from dimorph.settings import Settings
from dimorph.store.data_packages import data_packages
from dimorph.store.store import Store
from dimorph.store.trust import follow

_log = logger("dimorph")

# Directories for temporary files where that of the environment does not serve.
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")

# The name of the directory of a package's artifacts, in the directory of its kernels' sources.
PACKAGED = "_dimorph"


class Layer(NamedTuple):
    """One store that a load searches.

    Attributes:
        name: the name in messages.
        store: the store.
        any_compiler: True if artifacts of any compiler are accepted, as in packaged, shared and remote stores, whose
            makers chose the compiler. In the user's store an artifact must be made by the compiler in use.
        fetches: True if it fetches what is not on this machine.
    """

    name: str
    store: Store
    any_compiler: bool
    fetches: bool = False


def layers(
    root: Path, settings: Settings, beside: Sequence[Path] = (), *, read_only: bool = False, fetch: bool = False
) -> list[Layer]:
    """Return the layers that are searched for a kernel's artifacts, in order.

    Args:
        root: the directory of the kernel's sources.
        settings: the settings, which name the user's store and the shared ones.
        beside: roots of other kernels whose packaged artifacts may include those of this kernel; searched first.
        read_only: True if the search may change nothing in the user's store either.
        fetch: True to ask remote stores; False: only what was fetched of them before is searched.
    """
    directories = dict.fromkeys(place for one in (*beside, root) for place in (one, *data_packages(one)))
    packaged = [(directory / PACKAGED, packaged_store(directory)) for directory in directories]
    return [
        *(Layer(f"packaged ({path})", store, True) for path, store in packaged),
        Layer(f"store ({settings.store})", user_store(settings, read_only=read_only), False),
        *(Layer(f"shared store ({path})", shared_store(path), True) for path in settings.shared_stores),
        *(remote_layers(settings, fetch) if settings.remote_stores else ()),
    ]


def remote_layers(settings: Settings, fetch: bool) -> list[Layer]:
    """Return the remote stores of the settings; with `fetch` False, what was fetched of them.

    Raises:
        ValueError: the settings name one that cannot be.
    """
    from dimorph.store.fetched import RemoteStore, kept_root  # here, because few users have a remote store
    from dimorph.store.remote import Remote

    found = []
    for remote in map(Remote.parse, settings.remote_stores):
        if fetch:
            store: Store = RemoteStore(remote, settings.store, settings.remote_timeout, private_store)
        else:
            store = Store(kept_root(settings.store, remote), writable=False)
        name = f"remote store ({remote.name}{'' if fetch else '; what was fetched of it'})"
        found.append(Layer(name, store, True, fetch))
    return found


def user_store(settings: Settings, *, read_only: bool = False) -> Store:
    """Return the user's store, into which builds publish."""
    return Store(settings.store, writable=not read_only)


def packaged_store(root: Path) -> Store:
    """Return the store beside the sources in a directory, as it is searched."""
    return Store(root / PACKAGED, writable=False, private=False, beside_code=True)


def shared_store(root: Path) -> Store:
    """Return a store that the settings name as shared, as it is searched."""
    return Store(root, writable=False, private=False)


def built_store(out: Path, roots: Iterable[Path], *, writable: bool) -> Store:
    """Return the store of a directory that is built into ahead of time.

    Args:
        out: the directory.
        roots: the directories of the kernels' sources; beside them the directory is part of their packages.
        writable: True to build into it.
    """
    packaged = [follow(root / PACKAGED)[0] for root in roots]
    return Store(out, writable=writable, private=False, beside_code=follow(out)[0] in packaged)


def memo_dir(store: Store) -> Path | None:
    """Return the directory in which a store keeps identities of compilers and files that compilers reuse.

    Returns:
        The directory, checked; None if the store is refused or cannot be written: nothing is kept then.
    """
    try:
        return store.toolchain_dir()
    except OSError as error:
        _log.debug("nothing about compilers is kept: %s", error)
        return None


_fallback: list[Store] = []
_making = ForkSafeLock()


def private_store(store: Store, error: Exception) -> Store:
    """Return a temporary store of this process, to use when a store cannot be written; warn at the first call.

    Args:
        store: the store that cannot be written.
        error: the reason, for the warning.
    """
    with _making():
        if not _fallback:
            warnings.warn(
                f"dimorph: the store {store.root} cannot be used ({error}); "
                "artifacts are built for this process only and built again by the next one",
                RuntimeWarning,
                stacklevel=2,
            )
            _fallback.append(_temporary_store())
        return _fallback[0]


def _temporary_store() -> Store:
    """Make a store in the first directory for temporary files in which no other user can replace it.

    Raises:
        StoreRefused, OSError: the reason why the last of the directories does not serve.
    """
    import tempfile  # here, because few processes ever need it

    for place in dict.fromkeys((tempfile.gettempdir(), *_TEMPORARY)):
        try:
            directory = tempfile.mkdtemp(prefix="dimorph-", dir=place)
            atexit.register(_remove, directory, os.getpid())
            if multiprocessing := sys.modules.get("multiprocessing.util"):
                # Its forked workers end without the functions of atexit, but with these.
                multiprocessing.Finalize(None, _remove, (directory, os.getpid()), exitpriority=0)
            store = Store(Path(directory) / "store")
            store.toolchain_dir()
        except OSError as error:
            _log.info("%s does not serve for temporary files: %s", place, error)
            problem = error
        else:
            return store
    raise problem


def fallback_stores() -> tuple[Store, ...]:
    """Return the temporary store of this process; empty if none was needed."""
    return tuple(_fallback)


def _remove(directory: str, owner: int) -> None:
    # A forked child that ends must not remove its parent's directory.
    if os.getpid() == owner:
        _lazy.shutil.rmtree(directory, ignore_errors=True)
