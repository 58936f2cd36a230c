"""Where artifacts are looked for and put: packaged, the user's store, shared stores, and a last resort."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dimorph import late
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.store.store import Store

# The directory of a package's artifacts, beside its kernels' sources.
PACKAGED = "_dimorph"


class Candidate(NamedTuple):
    """A place where artifacts may be.

    Attributes:
        name: for people.
        store: the directory.
        any_compiler: whether an artifact serves whichever compiler made it. Packaged and shared ones do: whoever
            made them chose the compiler. What was compiled here must match the compiler that is here now.
    """

    name: str
    store: Store
    any_compiler: bool


def candidates(unit: Unit, settings: Settings, beside: Sequence[Path] = ()) -> list[Candidate]:
    """The places that are searched for a unit, in order; `beside`: roots of other kernels, packaged with it."""
    packaged = [root / PACKAGED for root in dict.fromkeys([*beside, unit.kernel.root])]
    places = [Candidate(f"packaged ({path})", Store(path, writable=False, private=False), True) for path in packaged]
    places.append(Candidate(f"store ({settings.store})", user_store(settings), False))
    places += [
        Candidate(f"shared store ({root})", Store(root, writable=False), True) for root in settings.shared_stores
    ]
    return places


def user_store(settings: Settings) -> Store:
    """The store that builds go into."""
    return Store(settings.store)


def memo_dir(store: Store) -> Path:
    """Where a store remembers compilers."""
    return store.root / "toolchains"


_fallback: list[Store] = []
_making = threading.Lock()


def private_store(store: Store, error: Exception) -> Store:
    """A store of this process alone, for when the real one cannot be written."""
    with _making:
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
    """The private store of this process, if there had to be one."""
    return tuple(_fallback)


def _remove(directory: str, owner: int) -> None:
    # A forked child that ends must not take the directory along.
    if os.getpid() == owner:
        late.shutil.rmtree(directory, ignore_errors=True)
