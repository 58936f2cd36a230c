"""The directory of a store, created and checked level by level, with temporary directories and locks inside."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.errors import StoreRefused
from dimorph.store import locks
from dimorph.store.artifact import is_hex
from dimorph.store.trust import Trust, check_parents
from dimorph.store.waiting import Waiting

_log = logger(__name__)

_DAY = 86400.0  # seconds
_ATTEMPTS = 16  # an attempt fails only if another process sweeps at the same moment
_LOCK = ".lock"
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)
_OURS = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]*)?")  # names made by `_temporary_name` and `lock`, without `.lock`


class Workspace:
    """A root directory with `tmp/` and `locks/`; safe for any number of threads and processes at once.

    Every method raises StoreRefused if the root, or a path that it uses inside, could have been written by an untrusted
    user (see `dimorph.store.trust.Trust`), and OSError if reading or writing fails.

    Attributes:
        root: the directory, with links resolved.
        writable: True if this process may change anything in it.
        private: True if only the current user and root may have written it.
    """

    def __init__(self, root: Path, *, writable: bool = True, private: bool = True) -> None:
        """Refer to a directory without creating it.

        Args:
            root: the directory, created at the first write. Links in its path are followed here, once.
            writable: True if this process may change anything in it.
            private: True if only the current user and root may have written it; new files are then readable by the
                current user only. False for packaged and shared artifacts (see `Trust.of`).
        """
        self.root = Path(os.path.realpath(root))  # Path.resolve raises RuntimeError for links in a circle
        self.writable = writable
        self.private = private
        self._parents_checked = False

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({str(self.root)!r}, writable={self.writable}, private={self.private})"

    @contextmanager
    def work_dir(self) -> Iterator[Path]:
        """Create a private temporary directory on the file system of the store, and remove it at the end.

        The directory is locked while in use. If this process is killed, `sweep` removes it.
        """
        owner = os.getpid()
        name = _temporary_name()
        lock, fd = self._lock_work(name)
        work = lock.with_name(name)
        with locks.releasing(lock, fd):
            work.mkdir(0o700)
            try:
                yield work
            finally:
                # A forked child that leaves this block must not remove its parent's directory.
                if os.getpid() == owner:
                    _erase(work)

    @contextmanager
    def lock(self, key: str, pause: Callable[[Path], bool] | None = None) -> Iterator[bool]:
        """Hold the lock of a key, so that only one thread of one process builds it; wait for another holder.

        The lock is not re-entrant: a thread that asks for a lock that it holds waits for ever.

        Args:
            key: the key to lock.
            pause: called with the lock file between two attempts, while another holder has the lock; returns False to
                go on without it. Default: wait without a limit, and say so after a second.

        Yields:
            True if the lock is held; False if no lock can be created, e.g. in a read-only store, or after `pause`
            returned False. Without a lock the same artifact may be built twice, which is harmless. The operating system
            releases the lock of a process that dies.

        Raises:
            ValueError: `key` is not 64 hex digits.
        """
        if not is_hex(key, 64):
            raise ValueError(f"Store.lock: key: expected 64 hex digits, got {key!r}")
        path, fd = self._lock_key(key, pause or Waiting(key))
        if fd is None:
            yield False
            return
        with locks.releasing(path, fd):
            yield True

    def is_due(self, name: str, seconds: float) -> bool:
        """Return True to at most one caller, of all processes, in each period; the first call starts the first period.

        Args:
            name: the file in the root whose modification time is the start of the period.
            seconds: the length of the period.
        """
        mark = self._make_directory() / name
        try:
            if time.time() - mark.lstat().st_mtime < seconds:
                return False
            os.utime(mark, follow_symlinks=False)
        except FileNotFoundError:
            with suppress(FileExistsError), self._create(mark):
                return False
        return True

    def sweep(self) -> int:
        """Remove the files that killed processes left in `tmp` and `locks`; those of running processes stay.

        If the store is not private, empty `tmp` and `locks` are removed too, so that only entries get packaged. A
        private store keeps them: removal moves an entry to `tmp` first, which could not be created on a full disk.

        Returns:
            The number of temporary directories that were removed.
        """
        if self._enter() is None:
            return 0
        swept = 0
        for name in ("tmp", "locks"):
            try:
                children = list((self.root / name).iterdir())
            except FileNotFoundError:
                continue
            directory = self._make_directory(name)
            for stem in {child.name.removesuffix(_LOCK) for child in children}:
                if _OURS.fullmatch(stem):
                    swept += _sweep_one(directory, stem)
            if not self.private:
                remove_if_empty(directory)
        return swept

    def _enter(self) -> Trust | None:
        """Check the root and return the trust for paths inside; None if the root does not exist."""
        trust = Trust.of(self.root, self.private)
        try:
            status = self.root.lstat()
        except FileNotFoundError:
            return None
        trust.check(self.root, status, directory=True, root=True)
        if not self._parents_checked:
            check_parents(self.root)
            self._parents_checked = True
        return trust

    def _descend(self, trust: Trust, *names: str) -> tuple[Path, os.stat_result | None]:
        """Check the directories `names`, each inside the one before; return the last and its status (None: missing)."""
        path, status = self.root, None
        for name in names:
            path = path / name
            try:
                status = path.lstat()
            except FileNotFoundError:
                return self.root.joinpath(*names), None
            trust.check(path, status, directory=True)
        return path, status

    def _make_directory(self, *names: str) -> Path:
        """Create the root and the directories `names` inside it where missing, check each, and return the last."""
        if not self.writable:
            raise OSError(errno.EROFS, "the store is used read-only", str(self.root))
        for _ in range(_ATTEMPTS):
            if (trust := self._enter()) is not None:
                break
            check_parents(self.root)
            for directory in (*reversed(self.root.parents), self.root):
                if not directory.exists():
                    self._make_level(directory)
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root))
        path = self.root
        for name in names:
            path = path / name
            self._make_level(path)
            trust.check(path, path.lstat(), directory=True)
        return path

    @contextmanager
    def _create(self, path: Path) -> Iterator[BinaryIO]:
        """Create a file to write; when the block ends, the file is on the disk and read-only."""
        mode = 0o400 if self.private else 0o444
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(fd)

    def _make_level(self, path: Path) -> None:
        """Create one directory, writable by its owner only. A path that exists is left as it is, unchecked."""
        with suppress(FileExistsError):
            path.mkdir(0o700 if self.private else 0o755)

    def _take_out(self, path: Path, seen: os.stat_result | None = None) -> bool:
        """Move an entry to `tmp` by one rename, which hides it from every search, and delete it there.

        Args:
            path: the entry.
            seen: its status when it was examined; if another entry is there now, that one stays. None: any entry.

        Returns:
            True if the entry was there and is removed.
        """
        rubbish = self._make_directory("tmp") / _temporary_name()  # not locked, so that any sweep may delete it too
        try:
            if seen is not None and not os.path.samestat(path.lstat(), seen):
                return False
            path.rename(rubbish)
        except FileNotFoundError:
            return False
        _erase(rubbish)
        return True

    def _lock_work(self, name: str) -> tuple[Path, int | None]:
        path = self.root / "tmp" / f"{name}{_LOCK}"
        for attempt in range(_ATTEMPTS):
            try:
                self._make_directory("tmp")
                return path, locks.acquire(path, wait=True)
            except FileNotFoundError:
                # Either a sweep found the directory empty and removed it, or nothing can be created there.
                if attempt + 1 == _ATTEMPTS:
                    raise
            except OSError as error:
                if error.errno not in locks.UNSUPPORTED:
                    raise
                return path, None  # a sweep cannot lock here either, so it leaves the directory alone
        raise AssertionError("unreachable")

    def _lock_key(self, key: str, pause: Callable[[Path], bool]) -> tuple[Path, int | None]:
        path = self.root / "locks" / f"{key}{_LOCK}"
        if not self.writable:
            return path, None
        try:
            self._make_directory("locks")
            while (fd := locks.acquire(path, wait=False)) is None and pause(path):
                pass
        except StoreRefused:
            raise
        except OSError as error:
            _log.info("going on without a lock for %s: %s", key, error)
            return path, None
        return path, fd


def remove_if_empty(directory: Path) -> None:
    """Remove a directory if it is empty; a missing one is accepted.

    Raises:
        OSError: the directory is empty but cannot be removed.
    """
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to the disk, on file systems that support it (some network ones do not).

    Raises:
        OSError: the directory cannot be opened or flushed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)


def _temporary_name() -> str:
    return f"{os.getpid()}-{os.urandom(8).hex()}.{_HOST}"


def _erase(directory: Path) -> None:
    try:
        _lazy.shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:  # harmless for the caller: no search looks into `tmp`
        _log.warning("cannot be removed now, a later sweep will try again: %s: %s", directory, error)


def _sweep_one(directory: Path, stem: str) -> bool:
    """Remove `stem` and its lock file if the lock is free or missing: no process uses it then.

    Returns:
        True if `stem` was there and is removed.
    """
    work, lock = directory / stem, directory / f"{stem}{_LOCK}"
    try:
        if _may_live_elsewhere(work):
            return False
        fd = locks.acquire(lock, wait=False)
    except OSError as error:
        _log.info("not swept: %s: %s", work, error)
        return False
    if fd is None:
        return False
    with locks.releasing(lock, fd):
        left = work.exists()
        _erase(work)
    return left


def _may_live_elsewhere(work: Path) -> bool:
    """Return True for a directory less than a day old of another machine, whose locks may be invisible here.

    Some shared file systems keep the locks of flock within one machine.
    """
    if work.suffix in ("", f".{_HOST}"):
        return False
    try:
        return time.time() - work.lstat().st_mtime < _DAY
    except FileNotFoundError:
        return False
