"""The mark of a store: a file that is written when its directory is made one, so that nothing of others is deleted."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dimorph.store.artifact import is_hex

NAME = "dimorph-store"
TEXT = b"This directory is a store of Dimorph. It holds compiled kernels, which can be built again.\n"

MANIFEST = "manifest.json"
LOCK = ".lock"
# The file whose modification time is that of the last sweep.
SWEPT = "swept"
TOOLCHAINS = "toolchains"

# Compiled at the first use, because a store hit needs neither.
_TEMPORARY = r"[0-9]+-[0-9a-f]{16}\.[A-Za-z0-9-]*"
_TOOLCHAIN = r"[0-9a-f]{16}\.json|zig|nvrtc-headers-[0-9.]+|tmp[a-z0-9_]{8}"


def is_temporary(name: str) -> bool:
    """Return True for the name of a temporary directory: process, random number, host."""
    return re.fullmatch(_TEMPORARY, name) is not None


def is_lock(name: str) -> bool:
    """Return True for the name of the lock of a key."""
    return is_hex(name.removesuffix(LOCK), 64) and name.endswith(LOCK)


def is_marked(root: Path) -> bool:
    """Return True if a directory was made as a store."""
    try:
        return stat.S_ISREG((root / NAME).lstat().st_mode)
    except FileNotFoundError:
        return False


def stranger(root: Path) -> str | None:
    """Return the path, inside a directory, of something that no store contains; None if there is nothing of the kind.

    An empty directory can become a store, and so can one that an older version made without a mark.
    """
    for child in sorted(root.iterdir()):
        known = None if child.is_symlink() else _INSIDE.get("shard" if is_hex(child.name, 2) else child.name)
        if known is None or known.directory != child.is_dir():
            return child.name
        if other := _first_unknown(child, known):
            return other
    return None


class _Known(NamedTuple):
    """A name in the root of a store: a file, or a directory with a test for the names in it."""

    directory: bool
    holds: Callable[[str], bool] = bool


_INSIDE = {
    NAME: _Known(False),
    MANIFEST: _Known(False),
    SWEPT: _Known(False),
    "shard": _Known(True, lambda name: is_hex(name, 64)),
    "tmp": _Known(True, lambda name: is_temporary(name.removesuffix(LOCK))),
    "locks": _Known(True, is_lock),
    TOOLCHAINS: _Known(True, lambda name: re.fullmatch(_TOOLCHAIN, name) is not None),
}


def _first_unknown(child: Path, known: _Known) -> str | None:
    if not known.directory:
        return None
    try:
        names = sorted(inner.name for inner in child.iterdir())
    except FileNotFoundError:  # another process has removed it
        return None
    return next((f"{child.name}/{name}" for name in names if not known.holds(name)), None)
