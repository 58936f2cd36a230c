"""The directory of a store, created and checked level by level, with temporary directories and locks inside."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.errors import StoreRefused
from dimorph.records import Opener
from dimorph.store import locks, mark
from dimorph.store.artifact import META_NAME, is_hex
from dimorph.store.lease import SUFFIX, Watch, give_back, needed
from dimorph.store.leftovers import erase, sweep_lease, sweep_lock, sweep_work, temporary_name
from dimorph.store.trust import Trust, follow
from dimorph.store.waiting import Waiting

_log = logger(__name__)

_ATTEMPTS = 16  # an attempt fails only if another process sweeps at the same moment
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Workspace:
    """A root directory with `tmp/` and `locks/`; safe for any number of threads and processes at once.

    Every method raises StoreRefused if the root, or a path that it uses inside, could have been written by an untrusted
    user (see `dimorph.store.trust.Trust`), and OSError if reading or writing fails.

    A directory becomes a store when the first thing is written, and is marked then (see `dimorph.store.mark`). One that
    holds other things is refused: only what a store made is ever deleted.

    Attributes:
        root: the directory, with links resolved.
        writable: True if this process may change anything in it.
        private: True if only the current user and root may have written it.
    """

    def __init__(self, root: Path, *, writable: bool = True, private: bool = True, beside_code: bool = False) -> None:
        """Refer to a directory without creating it.

        Args:
            root: the directory, created at the first write. Links in its path are followed here, once.
            writable: True if this process may change anything in it.
            private: True if only the current user and root may have written it; new files are then readable by the
                current user only. False for packaged and shared artifacts (see `Trust.of`).
            beside_code: True for artifacts beside Python code that this process has run. Whoever can replace a
                directory above them can replace that code, so these directories are not checked.
        """
        self.root, self._links = follow(root)
        self.writable = writable
        self.private = private
        self._way_checked = beside_code

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({str(self.root)!r}, writable={self.writable}, private={self.private})"

    @contextmanager
    def work_dir(self) -> Iterator[Path]:
        """Create a private temporary directory on the file system of the store, and remove it at the end.

        The directory is locked while in use. If this process is killed, `sweep` removes it.
        """
        owner = os.getpid()
        name = temporary_name()
        lock, fd = self._lock_work(name)
        work = lock.with_name(name)
        with locks.releasing(lock, fd):
            work.mkdir(0o700)
            try:
                yield work
            finally:
                # A forked child that leaves this block must not remove its parent's directory.
                if os.getpid() == owner:
                    erase(work)

    @contextmanager
    def lock(self, key: str, pause: Callable[[Path], bool] | None = None) -> Iterator[bool]:
        """Hold the lock of a key, so that only one thread of one process builds it; wait for another holder.

        The lock is not re-entrant: a thread that asks for a lock that it holds waits for ever.

        Args:
            key: the key to lock.
            pause: called with the lock file between two attempts, while another holder has the lock; returns False to
                go on without it. Default: wait without a limit, and say so after a second.

        Yields:
            True if the lock is held; False if none can be created, e.g. in a read-only store, or after `pause`
            returned False. Without a lock the same artifact may be built twice, which is harmless. The operating system
            releases the lock of a process that dies.

        Raises:
            ValueError: `key` is not 64 hex digits.
        """
        if not is_hex(key, 64):
            raise ValueError(f"Store.lock: key: expected 64 hex digits, got {key!r}")
        held = self._lock_key(key, pause or Waiting(key))
        if held is None:
            yield False
            return
        with held:
            yield True

    def is_due(self, name: str, seconds: float) -> bool:
        """Return True to at most one caller, of all processes, in each period; the first call starts the first period.

        Args:
            name: the file in the root whose modification time is the start of the period.
            seconds: the length of the period.
        """
        start = self._make_directory() / name
        try:
            if time.time() - start.lstat().st_mtime < seconds:
                return False
            os.utime(start, follow_symlinks=False)
        except FileNotFoundError:
            with suppress(FileExistsError), self._create(start):
                return False
        return True

    def toolchain_dir(self) -> Path:
        """Return the directory of what compilers reuse, created if missing; in a store used read-only it must exist.

        Raises:
            FileNotFoundError: the store is used read-only and has no such directory.
        """
        trust = self._enter()
        path, status = self._descend(trust, mark.TOOLCHAINS) if trust else (self.root, None)
        if status is not None and (mark.is_marked(self.root) or not self.writable):
            return path
        if self.writable:
            return self._make_directory(mark.TOOLCHAINS)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def opener(self) -> Opener | None:
        """Check the root; return the function that checks and opens a file in it, or None if there is no root."""
        trust = self._enter()
        return trust and trust.opener

    def refresh(self) -> None:
        """Bring files beside the artifacts up to date, where they come from elsewhere."""

    def check_content(self) -> None:
        """Refuse a directory that is no store and holds other things; a missing or empty one is fine.

        Raises:
            StoreRefused: the directory is refused; the message names something that is in it.
        """
        if self._enter() is None or mark.is_marked(self.root):
            return
        if other := mark.stranger(self.root):
            raise StoreRefused(
                f"store refused: {self.root} is no store of Dimorph and holds other things ({other}); nothing in it is "
                f"changed. To mend it: name a new or empty directory, such as {self.root / 'dimorph'}"
            )

    def sweep(self) -> int:
        """Remove the files that killed processes left in `tmp` and `locks`; those of running processes stay.

        Only files whose names a store makes are removed.

        If the store is not private, empty `tmp` and `locks` are removed too, so that only entries get packaged. A
        private store keeps them: removal moves an entry to `tmp` first, which could not be created on a full disk.

        Returns:
            The number of temporary directories that were removed.
        """
        trust = self._enter()
        if trust is None:
            return 0
        self.check_content()
        swept = 0
        for name in ("tmp", "locks"):
            if self._descend(trust, name)[1] is None:
                continue
            directory = self._make_directory(name)
            names = [child.name for child in directory.iterdir()]
            if name == "tmp":
                for stem in {child.removesuffix(mark.LOCK) for child in names}:
                    swept += mark.is_temporary(stem) and sweep_work(directory, stem)
            else:
                for child in filter(mark.is_lock, names):
                    sweep_lock(directory / child)
                for child in filter(mark.is_lease, names):
                    sweep_lease(directory / child)
            if not self.private:
                remove_if_empty(directory)
        return swept

    def _enter(self) -> Trust | None:
        """Check the root and return the trust for paths inside; None if the root does not exist."""
        trust = Trust.of(self.root, self.private)
        if checks_way := not self._way_checked:
            self._check_way(trust)
        try:
            status = self.root.lstat()
        except FileNotFoundError:
            return None
        trust.check(self.root, status, directory=True, root=True)
        # Kept only now: a directory that was missing on the way may be made by anybody.
        self._way_checked |= checks_way
        return trust

    def _check_way(self, trust: Trust) -> None:
        """Check the directories above the root, and the links that led to it."""
        trust.check_parents(self.root)
        for link in self._links:
            trust.check_link(link)

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
        if "\n" in str(self.root):
            raise StoreRefused(
                f"store refused: {str(self.root)!r} has a line break in its path, which compilers' lists of files "
                "cannot express. To mend it: name another directory"
            )
        for _ in range(_ATTEMPTS):
            if (trust := self._enter()) is not None:
                break
            for directory in (*reversed(self.root.parents), self.root):
                if not os.path.lexists(directory):
                    self._make_level(directory)
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root))
        if not mark.is_marked(self.root):
            self._mark()
        path = self.root
        for name in names:
            path = path / name
            self._make_level(path)
            trust.check(path, path.lstat(), directory=True)
        return path

    def _mark(self) -> None:
        self.check_content()
        with suppress(FileExistsError):
            fd = os.open(self.root / mark.NAME, _NEW_FILE, 0o444)
            try:
                os.fchmod(fd, 0o400 if self.private else 0o444)
                os.write(fd, mark.TEXT)
            finally:
                os.close(fd)

    @contextmanager
    def _create(self, path: Path) -> Iterator[BinaryIO]:
        """Create a file to write; when the block ends, the file is on the disk and read-only."""
        mode = 0o400 if self.private else 0o444
        fd = os.open(path, _NEW_FILE, mode)
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(fd, mode)  # whatever the umask is: others are to read packaged artifacts
            yield stream
            stream.flush()
            os.fsync(fd)

    def _make_level(self, path: Path) -> None:
        """Create one directory, writable by its owner only. A path that exists is left as it is, unchecked."""
        mode = 0o700 if self.private else 0o755
        with suppress(FileExistsError):
            path.mkdir(mode)
            made = stat.S_IMODE(path.lstat().st_mode)
            if made & 0o777 != mode:  # by the umask
                path.chmod(made & ~0o777 | mode)

    def _take_out(self, path: Path, seen: os.stat_result | None = None) -> bool:
        """Move an entry to `tmp` by one rename, which hides it from every search, and delete it there.

        Args:
            path: the entry.
            seen: its status when it was examined; if another entry is there now, that one stays. None: any entry.

        Returns:
            True if the entry was there and is removed.
        """
        rubbish = self._make_directory("tmp") / temporary_name()  # not locked, so that any sweep may delete it too
        try:
            if seen is not None and not os.path.samestat(path.lstat(), seen):
                return False
            path.rename(rubbish)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A directory of a lower layer of an overlay, as in a container, cannot be renamed, but its files can be
            # removed. Without a description, which goes first, the rest is not found.
            (path / META_NAME).unlink(missing_ok=True)
            _lazy.shutil.rmtree(path)
            return True
        erase(rubbish)
        return True

    def _lock_work(self, name: str) -> tuple[Path, int | None]:
        path = self.root / "tmp" / f"{name}{mark.LOCK}"
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

    def _lock_key(self, key: str, pause: Callable[[Path], bool]) -> ExitStack | None:
        """Return what releases the lock of a key; None if it is not held."""
        path, watch = self.root / "locks" / f"{key}{mark.LOCK}", Watch()
        if not self.writable:
            return None
        try:
            self._make_directory("locks")
            while isinstance(held := self._try_lock(path, watch), Path):
                if not pause(held):
                    return None
        except StoreRefused:
            raise
        except OSError as error:
            _log.info("going on without a lock for %s: %s", key, error)
            return None
        return held

    def _try_lock(self, path: Path, watch: Watch) -> ExitStack | Path:
        """Take a lock, and a lease beside it where locks do not suffice; return the one of them that another holds."""
        with ExitStack() as held:
            try:
                fd = locks.acquire(path, wait=False)
                if fd is None:
                    return path
                held.enter_context(locks.releasing(path, fd))
                leased = needed(path.parent)
            except OSError as error:
                if error.errno not in locks.UNSUPPORTED:
                    raise
                path.unlink(missing_ok=True)
                leased = True
            if leased:
                lease = path.with_suffix(SUFFIX)
                if not watch.take(lease, self._make_directory("tmp") / temporary_name()):
                    return lease
                held.callback(give_back, lease)
            return held.pop_all()


def remove_if_empty(directory: Path) -> None:
    """Remove a directory if it is empty; one that is missing or cannot be removed does no harm."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            _log.info("%s is empty but cannot be removed: %s", directory, error)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to the disk, on file systems that support it (some network ones do not).

    Raises:
        OSError: the directory cannot be opened or flushed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    finally:
        os.close(fd)
