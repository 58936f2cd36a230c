"""Locks of a process that forks: a forked child has the locks of its parent, but not the threads that held them."""

from __future__ import annotations

import os
import threading
import weakref

no_fork = threading.Lock()
"""Held while this process has descriptors that a forked child could not know of, and would keep open; forks wait."""

_made: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


class ForkSafeLock:
    """A re-entrant lock that is free in a forked child: `with lock(): ...`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _made.add(self)

    def __call__(self) -> threading.RLock:
        """Return the lock of this process."""
        return self._lock

    def renew(self) -> None:
        """Replace the lock by a free one."""
        self._lock = threading.RLock()


def _renew_all() -> None:
    for lock in list(_made):
        lock.renew()


os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)
os.register_at_fork(after_in_child=_renew_all)
