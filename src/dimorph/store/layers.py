"""The stores that a load searches, in order: packaged, the user's, shared; and a fallback where none can be written."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dimorph import _lazy
from dimorph._fork import ForkSafeLock
from dimorph.settings import Settings
from dimorph.store.store import Store

# The name of the directory of a package's artifacts, in the directory of its kernels' sources.
PACKAGED = "_dimorph"


class Layer(NamedTuple):
    """One store that a load searches.

    Attributes:
        name: the name in messages.
        store: the store.
        any_compiler: True if artifacts of any compiler are accepted, as in packaged and shared stores, whose makers
            chose the compiler. In the user's store an artifact must be made by the compiler in use.
    """

    name: str
    store: Store
    any_compiler: bool


def layers(root: Path, settings: Settings, beside: Sequence[Path] = ()) -> list[Layer]:
    """Return the layers that are searched for a kernel's artifacts, in order.

    Args:
        root: the directory of the kernel's sources.
        settings: the settings, which name the user's store and the shared ones.
        beside: roots of other kernels whose packaged artifacts may include those of this kernel; searched first.
    """
    packaged = [directory / PACKAGED for directory in dict.fromkeys([*beside, root])]
    return [
        *(Layer(f"packaged ({path})", Store(path, writable=False, private=False), True) for path in packaged),
        Layer(f"store ({settings.store})", user_store(settings), False),
        *(Layer(f"shared store ({path})", Store(path, writable=False), True) for path in settings.shared_stores),
    ]


def user_store(settings: Settings) -> Store:
    """Return the user's store, into which builds publish."""
    return Store(settings.store)


def memo_dir(store: Store) -> Path:
    """Return the directory in which a store keeps identities of compilers and files that compilers reuse."""
    return store.root / "toolchains"


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
            import tempfile  # here, because few processes ever need it

            directory = tempfile.mkdtemp(prefix="dimorph-")
            atexit.register(_remove, directory, os.getpid())
            _fallback.append(Store(Path(directory) / "store"))
        return _fallback[0]


def fallback_stores() -> tuple[Store, ...]:
    """Return the temporary store of this process; empty if none was needed."""
    return tuple(_fallback)


def _remove(directory: str, owner: int) -> None:
    # A forked child that ends must not remove its parent's directory.
    if os.getpid() == owner:
        _lazy.shutil.rmtree(directory, ignore_errors=True)
