"""Locks that survive a fork: a child inherits the locks of its parent, but not the threads that hold them."""

from __future__ import annotations

import os
import threading
import weakref

no_fork = threading.RLock()
"""The lock that a fork waits for; held while the process has open file descriptors that a child must not inherit.

Re-entrant, because a signal handler may fork in the thread that holds it. Nothing may run under it that could start a
process, wait for another thread, or take long.
"""

_made: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


class ForkSafeLock:
    """A re-entrant lock that a forked child finds unlocked; used as `with lock(): ...`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _made.add(self)

    def __call__(self) -> threading.RLock:
        """Return the lock of the current process."""
        return self._lock

    def renew(self) -> None:
        """Replace the lock by an unlocked one."""
        self._lock = threading.RLock()


def _renew_all() -> None:
    for lock in list(_made):
        lock.renew()


os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)
os.register_at_fork(after_in_child=_renew_all)
