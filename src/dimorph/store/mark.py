"""The mark of a store: a file that is written when its directory is made one, so that nothing of others is deleted."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dimorph.store.artifact import META_NAME, is_hex
from dimorph.store.lease import SUFFIX

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


def is_lease(name: str) -> bool:
    """Return True for the name of the lease of a key."""
    return is_hex(name.removesuffix(SUFFIX), 64) and name.endswith(SUFFIX)


def is_marked(root: Path) -> bool:
    """Return True if a directory was made as a store."""
    try:
        return stat.S_ISREG((root / NAME).lstat().st_mode)
    except FileNotFoundError:
        return False


def stranger(root: Path) -> str | None:
    """Return the path, inside a directory without a mark, of something that no store contains; None if it may be one.

    An empty directory may become a store. Any other is one that an older version made without a mark, if it holds an
    artifact and nothing that a store does not make: empty directories called `tmp` or `locks` are anybody's.
    """
    children = sorted(root.iterdir())
    if any(child.name == NAME for child in children):  # another process has just marked it
        return None
    holds_artifact = False
    for child in children:
        is_shard = is_hex(child.name, 2)
        known = None if child.is_symlink() else _INSIDE.get("shard" if is_shard else child.name)
        if known is None or known.directory != child.is_dir():
            return child.name
        if other := _first_unknown(child, known) or (_no_artifact(child) if is_shard else None):
            return other
        holds_artifact |= is_shard and any(child.iterdir())
    return children[0].name if children and not holds_artifact else None


def _no_artifact(shard: Path) -> str | None:
    """Return the path of something in a shard that is no artifact; other tools name directories by hashes, too."""
    for key in sorted(shard.iterdir()):
        for entry in sorted(key.iterdir()) if key.is_dir() else [key]:
            if not is_hex(entry.name, 16) or not (entry / META_NAME).is_file():
                return str(entry.relative_to(shard.parent))
        if key.is_dir() and not any(key.iterdir()):
            return str(key.relative_to(shard.parent))
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
    "locks": _Known(True, lambda name: is_lock(name) or is_lease(name)),
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
