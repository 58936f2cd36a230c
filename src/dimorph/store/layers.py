"""The layers of stores, in the order in which a load searches them: packaged, the user's, shared; and a last resort."""

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

# The directory of a package's artifacts, beside its kernels' sources.
PACKAGED = "_dimorph"


class Layer(NamedTuple):
    """One store that a load searches.

    Attributes:
        name: for people.
        store: the directory.
        any_compiler: True where an artifact serves whichever compiler made it. Packaged and shared ones do: whoever
            made them chose the compiler. What was compiled here must match the compiler that is here now.
    """

    name: str
    store: Store
    any_compiler: bool


def layers(root: Path, settings: Settings, beside: Sequence[Path] = ()) -> list[Layer]:
    """Return the layers that are searched for a kernel's artifacts, in order.

    Args:
        root: the directory of the kernel's sources.
        beside: roots of other kernels whose packaged artifacts may hold it.
    """
    packaged = [directory / PACKAGED for directory in dict.fromkeys([*beside, root])]
    return [
        *(Layer(f"packaged ({path})", Store(path, writable=False, private=False), True) for path in packaged),
        Layer(f"store ({settings.store})", user_store(settings), False),
        *(Layer(f"shared store ({path})", Store(path, writable=False), True) for path in settings.shared_stores),
    ]


def user_store(settings: Settings) -> Store:
    """Return the store that builds go into."""
    return Store(settings.store)


def memo_dir(store: Store) -> Path:
    """Return the directory in which a store remembers compilers."""
    return store.root / "toolchains"


_fallback: list[Store] = []
_making = ForkSafeLock()


def private_store(store: Store, error: Exception) -> Store:
    """Return a store of this process alone, for when the real one cannot be written."""
    with _making():
        if not _fallback:
            warnings.warn(
                f"dimorph: the store {store.root} cannot be used ({error}); "
                "what is built is kept for this process only",
                RuntimeWarning,
                stacklevel=2,
            )
            import tempfile  # here, because few processes ever need it

            directory = tempfile.mkdtemp(prefix="dimorph-")
            atexit.register(_remove, directory, os.getpid())
            _fallback.append(Store(Path(directory) / "store"))
        return _fallback[0]


def fallback_stores() -> tuple[Store, ...]:
    """Return the private store of this process, if there had to be one."""
    return tuple(_fallback)


def _remove(directory: str, owner: int) -> None:
    # A forked child that ends must not take the directory along.
    if os.getpid() == owner:
        _lazy.shutil.rmtree(directory, ignore_errors=True)
