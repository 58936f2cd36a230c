"""Stamps and checksums of files outside the project, each file hashed once per version."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from threading import get_ident

from dimorph import _lazy
from dimorph._fork import ForkSafeLock
from dimorph._lazy import logger
from dimorph.store.artifact import describe

_log = logger("dimorph")

# Inode, size and time of the last change, of content or of the other times, in nanoseconds; no program can set it back.
Stamp = list[int]

_MEMO = "digests.json"
# A file may change again within the clock's tick of its stamp, so a stamp is relied upon only when it is older.
_SETTLED = 2_000_000_000  # nanoseconds
_MOST = 20_000  # files in the memo
_LONGEST = 1 << 24  # bytes of a memo


def stamp(path: str) -> Stamp | None:
    """Return the stamp of a file or directory; None if there is none that can be read."""
    try:
        status = os.stat(path)  # noqa: PTH116 (done for each file at each store hit: Path.stat takes twice as long)
    except (OSError, ValueError):
        return None
    return [status.st_ino, status.st_size, status.st_ctime_ns]


class _Recent:
    """Stamps taken within the last moment of one load, whose artifacts share most of their files."""

    _LASTING = 0.05  # seconds

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin a load: what changed before it, it notices."""
        self._since, self._stamps = 0.0, dict[str, "Stamp | None"]()

    def same(self, stamps: Mapping[str, Stamp | None]) -> bool:
        """Return True if every path has the stamp that is given for it, or had it a moment ago."""
        if time.monotonic() - self._since > self._LASTING:
            self._since, self._stamps = time.monotonic(), {}
        known = self._stamps
        for path, expected in stamps.items():
            if path not in known:
                known[path] = stamp(path)
            if known[path] != expected:
                return False
        return True


recent = _Recent()


def settled(found: Stamp | None) -> bool:
    """Return True if a later change will show in the stamp."""
    return found is None or found[2] + _SETTLED < time.time_ns()


class Digests:
    """Checksums of files, kept in a directory for later processes.

    Args:
        memo_dir: the directory; None: they are not kept.
    """

    def __init__(self, memo_dir: Path | None) -> None:
        self._memo = memo_dir and memo_dir / _MEMO
        self._known: dict[str, list[int | str]] | None = None
        self._new: dict[str, list[int | str]] = {}
        self._by_stamp: dict[tuple[int, ...], str] = {}
        self._lock = ForkSafeLock()

    def of(self, path: str, found: Stamp | None) -> str | None:
        """Return the SHA-256 of the file at a path whose stamp was just taken; None if it cannot be read."""
        if found is None:
            return None
        # One at a time: the units of a build read the same files, which need not be hashed twice.
        with self._lock():
            if self._known is None:
                self._known = _read(self._memo)
            kept = self._new.get(path) or self._known.get(path)
            if kept and kept[:3] == found:
                return str(kept[3])
            checksum = self._by_stamp.get(tuple(found))
            if checksum is None:
                try:
                    checksum = describe(Path(os.path.realpath(path))).sha256  # files of the system may be links
                except OSError:
                    return None
            if settled(found):
                self._new[path], self._by_stamp[tuple(found)] = [*found, checksum], checksum
        return checksum

    def save(self) -> None:
        """Write new checksums; a failure only costs the next process some hashing."""
        with self._lock():
            if self._memo is None or not self._new:
                return
            known = {**_read(self._memo), **self._new}
            if len(known) > _MOST:
                known = dict(self._new)
            write(self._memo, self._memo.parent, known)
            self._known, self._new = known, {}


@lru_cache(maxsize=16)
def kept_in(memo_dir: Path | None) -> Digests:
    """Return the checksums that a directory keeps, read once a process."""
    return Digests(memo_dir)


@lru_cache(maxsize=256)
def _listed(directory: str, _stamp: tuple[int, ...]) -> frozenset[str]:
    return frozenset(os.listdir(directory))  # noqa: PTH208 (names, not paths)


def names_in(directory: str, found: Stamp) -> frozenset[str]:
    """Return the names in a directory whose stamp was just taken; none if it cannot be read."""
    try:
        if settled(found):
            return _listed(directory, tuple(found))
        return frozenset(os.listdir(directory))  # noqa: PTH208 (names, not paths)
    except OSError:
        return frozenset()


def write(file: Path, scratch: Path, content: object) -> None:
    """Replace a memo at once, by way of a new file in a directory of the same file system; errors are logged."""
    written = scratch / f"{file.name}.{os.getpid()}.{get_ident()}"
    try:
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        written.write_text(_lazy.json.dumps(content), "utf-8", "surrogateescape")
        written.replace(file)
    except OSError as error:
        _log.debug("%s: not kept: %s", file, error)


def read(file: Path) -> object:
    """Return the content of a memo; None if there is none that can be read."""
    try:
        with open(file, "rb", buffering=0, opener=_regular) as stream:
            return _lazy.json.loads(stream.read(_LONGEST) or b"null")
    except (OSError, ValueError, RecursionError):
        return None


def _regular(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read(memo: Path | None) -> dict[str, list[int | str]]:
    kept = memo and read(memo)
    if not isinstance(kept, dict):
        return {}
    return {path: row for path, row in kept.items() if isinstance(row, list) and len(row) == 4}
