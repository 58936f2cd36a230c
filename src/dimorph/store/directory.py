"""The directory of a store, made and checked level by level, with temporary directories and locks inside."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.errors import StoreRefused
from dimorph.store import locks
from dimorph.store.artifact import is_hex
from dimorph.store.trust import Trust, check_parents

_log = logger(__name__)

_DAY = 86400.0  # seconds
_ATTEMPTS = 16  # each is lost only to another process that sweeps just then
_LOCK = ".lock"
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)
_OURS = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]*)?")  # what `_temporary_name` and `lock` make, less `.lock`


class Workspace:
    """A root directory with `tmp/` and `locks/`; safe for any number of threads and processes at once.

    Every method raises StoreRefused when the root, or what it looks at inside, could have been written by
    someone who is not trusted (see `dimorph.trust.Trust`), and OSError when reading or writing fails.

    Attributes:
        root: the directory, resolved.
        writable: whether this process may change anything in it.
        private: whether only me and root may have written it.
    """

    def __init__(self, root: Path, *, writable: bool = True, private: bool = True) -> None:
        """Names a directory; nothing is made yet.

        Args:
            root: links on the way to it are followed here, once. Made upon the first write.
            writable: whether this process may change anything in it.
            private: only me and root may have written it, and what is made is readable by me only. False:
                packaged and shared artifacts (see `Trust.of`).
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
        """A private temporary directory, on the file system of the store, removed at the end.

        It belongs to this process and is locked while in use; when the process is killed, `sweep` removes it.
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
                # A forked child that leaves this block must not take the directory along.
                if os.getpid() == owner:
                    _erase(work)

    @contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Keeps other threads and processes from building the same thing; waits for them first.

        A thread that asks again for what it holds waits for ever.

        Yields:
            Whether the lock is held. It is not where none can be made, e.g. in a read-only store: then work
            may be done twice, nothing worse. The kernel releases it when its holder dies.

        Raises:
            ValueError: `key` is not 64 hex digits.
        """
        if not is_hex(key, 64):
            raise ValueError(f"Store.lock: key: expected 64 hex digits, got {key!r}")
        path, fd = self._lock_key(key)
        if fd is None:
            yield False
            return
        with locks.releasing(path, fd):
            yield True

    def is_due(self, name: str, seconds: float) -> bool:
        """Return True at most once in so many seconds, to one of all processes; never at the first call of all.

        Args:
            name: the file in the root whose time is kept.
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
        """Removes what killed processes left in `tmp` and `locks`, never what a living one uses.

        In a store that is not private, empty `tmp` and `locks` go too, so that only entries get packaged. A
        private one keeps them: what is removed is moved to `tmp`, and a full disk has no room to make it.

        Returns:
            How many temporary directories were removed.
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
        """Checks the root and says whom to trust inside; None: there is no such directory yet."""
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
        """Checks `names`, each inside the one before; returns the last and its status (None: not there)."""
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
        """Makes what is missing of the root and `names` inside it; checks every level; returns the last."""
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
        """A new file to write, on the disk when the block ends; read-only for everybody after that."""
        mode = 0o400 if self.private else 0o444
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(fd)

    def _make_level(self, path: Path) -> None:
        """Makes one directory, writable by its owner only. One that is there is left as it is, unchecked."""
        with suppress(FileExistsError):
            path.mkdir(0o700 if self.private else 0o755)

    def _take_out(self, path: Path, seen: os.stat_result | None = None) -> bool:
        """Takes an entry out of sight by one rename, then deletes it; not if it is not the one `seen`.

        Returns:
            Whether it was there.
        """
        rubbish = self._make_directory("tmp") / _temporary_name()  # without a lock: any sweep may have it
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
                # A sweep found the directory empty and removed it; or it is a place where nothing can be made.
                if attempt + 1 == _ATTEMPTS:
                    raise
            except OSError as error:
                if error.errno not in locks.UNSUPPORTED:
                    raise
                return path, None  # a sweep gets no lock here either, so it leaves the directory alone
        raise AssertionError("unreachable")

    def _lock_key(self, key: str) -> tuple[Path, int | None]:
        path = self.root / "locks" / f"{key}{_LOCK}"
        if not self.writable:
            return path, None
        try:
            self._make_directory("locks")
            fd = locks.acquire(path, wait=False)
            if fd is None:
                _log.info("waiting for another build of %s", key)
                fd = locks.acquire(path, wait=True)
        except StoreRefused:
            raise
        except OSError as error:
            _log.info("going on without a lock for %s: %s", key, error)
            return path, None
        return path, fd


def remove_if_empty(directory: Path) -> None:
    """Removes a directory that has nothing in it any more."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def sync_directory(path: Path) -> None:
    """Puts the names in a directory on the disk, unless the file system cannot (some network ones)."""
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
    except OSError as error:  # it is out of sight of every search, so the work it served is not in danger
        _log.warning("left behind, to be swept: %s: %s", directory, error)


def _sweep_one(directory: Path, stem: str) -> bool:
    """Removes `stem` and its lock file if its owner is dead. Without a lock file it is, or it is rubbish."""
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
    """Some shared file systems keep flock to one machine: what another one made gets a day to finish."""
    if work.suffix in ("", f".{_HOST}"):
        return False
    try:
        return time.time() - work.lstat().st_mtime < _DAY
    except FileNotFoundError:
        return False
