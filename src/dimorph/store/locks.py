"""Lock files that the kernel releases when their holder dies (flock)."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dimorph._fork import no_fork

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})
"""What flock says on file systems without locks, e.g. Lustre mounted without them."""

_held: set[int] = set()


def _drop_inherited() -> None:
    """Close the parent's locks in a forked child: kept open, they would outlive the parent."""
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


def acquire(path: Path, *, wait: bool) -> int | None:
    """Locks `path`, made when missing, against every other holder, in this process too.

    Returns:
        The descriptor to give to `release`; None when someone else holds the lock and `wait` is false.

    Raises:
        OSError: the file cannot be made or locked; an errno of `UNSUPPORTED`: this file system has no locks.
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
        _close(fd)  # its last holder removed it before we got it: the lock is another file now


def release(path: Path, fd: int | None) -> None:
    """Removes the lock file while it is still held, so that those who wait for it notice, and lets go."""
    try:
        path.unlink(missing_ok=True)
    finally:
        if fd is not None:
            _close(fd)


@contextmanager
def releasing(path: Path, fd: int | None) -> Iterator[None]:
    """Releases the lock at the end, in the process that took it: a forked child has lost it already.

    Args:
        path: the lock file, removed.
        fd: from `acquire`; None where the file system has no locks.
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
