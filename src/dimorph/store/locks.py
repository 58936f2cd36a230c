"""Lock files (flock), which the operating system releases when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dimorph._fork import no_fork
from dimorph._lazy import logger

_log = logger(__name__)

_ATTEMPTS = 1000  # an attempt fails only if another holder removes the lock file at the same moment

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})
"""Error numbers of flock on file systems without locks, e.g. Lustre mounted without them."""

_held: set[int] = set()


def _drop_inherited() -> None:
    """Close the parent's locks in a forked child, which would otherwise hold them after the parent's end."""
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


def acquire(path: Path, *, wait: bool) -> int | None:
    """Lock the file `path`, created if missing, against all other processes and threads.

    Args:
        path: the lock file.
        wait: wait until another holder releases the lock.

    Returns:
        The descriptor for `release`; None if another holder has the lock and `wait` is false.

    Raises:
        OSError: the file cannot be created or locked; with an errno of `UNSUPPORTED`, the file system has no locks.
    """
    for _ in range(_ATTEMPTS):
        with no_fork:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            _held.add(fd)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EEXIST, "expected a regular file as a lock", str(path))
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, fd):
                return fd
        except BlockingIOError:
            _close(fd)
            return None
        except BaseException:
            _close(fd)
            raise
        _close(fd)  # the last holder removed this file before it was locked here, so the lock is another file now
    # On some file systems a file that was opened never looks like the file of that name.
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))


def release(path: Path, fd: int | None) -> None:
    """Remove the lock file and release the lock, in this order, so that waiting processes notice the removal.

    Raises:
        OSError: the file cannot be removed; the lock is released all the same.
    """
    try:
        path.unlink(missing_ok=True)
    finally:
        if fd is not None:
            _close(fd)


@contextmanager
def releasing(path: Path, fd: int | None) -> Iterator[None]:
    """Release a lock at the end of the block, in the process that acquired it: a forked child does not hold it.

    A lock file that cannot be removed does no harm: it is logged, and a sweep tries again.

    Args:
        path: the lock file.
        fd: the descriptor that `acquire` returned; None if the file system has no locks.
    """
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:
            try:
                release(path, fd)
            except OSError as error:  # the lock is released, and the work under it is done
                _log.info("the lock file %s cannot be removed now: %s", path, error)


def _is_at(path: Path, fd: int) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def _close(fd: int) -> None:
    with no_fork:
        _held.discard(fd)
        os.close(fd)
