"""Lock files (flock), which the operating system releases when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dimorph._fork import no_fork

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
    while True:
        with no_fork:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            _held.add(fd)
        try:
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

    Args:
        path: the lock file.
        fd: the descriptor that `acquire` returned; None if the file system has no locks.
    """
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:
            release(path, fd)


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
