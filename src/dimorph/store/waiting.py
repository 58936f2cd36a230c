"""Wait for a lock that another process holds: not silently, not for ever, and open to interrupts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dimorph._lazy import logger
from dimorph.store import lease

_log = logger("dimorph")
_SILENCE = 1.0  # seconds before a line says what is waited for
_THREAD = "another thread of this process"
_SHORTEST, _LONGEST = 0.005, 0.1  # seconds between two attempts


@contextmanager
def locked_if_possible(lock: Callable[[], AbstractContextManager[object]], root: Path) -> Iterator[None]:
    """Hold a lock of the store at `root`, so that one process works for all; go on without it where it cannot be made.

    Args:
        lock: makes the lock, such as a call of `Store.lock`.
        root: the root of the store, for the log.
    """
    try:
        manager = lock()
        manager.__enter__()
    except OSError as error:
        _log.debug("%s: no lock: %s", root, error)
        yield
        return
    try:
        yield
    finally:
        manager.__exit__(None, None, None)


class Waiting:
    """One wait for a lock; called between two attempts to take it."""

    def __init__(
        self,
        what: str,
        limit: float | None = None,
        tick: Callable[[], None] = lambda: None,
        *,
        doing: str = "build",
    ) -> None:
        """Begin to wait at the first call.

        Args:
            what: what the holder of the lock builds, for the messages.
            limit: the seconds after which the caller goes on without the lock; None: no limit.
            tick: called at each attempt; an exception from it ends the wait.
            doing: the holder's work, for the messages.
        """
        self._what = f"{doing} of {what}"
        self._limit = limit
        self._tick = tick
        self._since: float | None = None
        self._said = False

    def __call__(self, lock: Path) -> bool:
        """Sleep for a moment; return False if the caller is to go on without the lock.

        Args:
            lock: the lock file.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        self._tick()
        if self._limit is not None and waited >= self._limit:
            message = "dimorph: waited %.0f s for another %s by %s; going on without it"
            _log.warning(message, waited, self._what, holder(lock))
            return False
        if waited >= _SILENCE and not self._said:
            self._said = True
            limit = "" if self._limit is None else f", for {self._limit:.0f} s at most"
            who = holder(lock)
            # What another thread compiles, this process has said.
            say = _log.info if who.startswith(_THREAD) else _log.warning
            say("dimorph: waiting for another %s by %s%s", self._what, who, limit)
        # A sleep is interrupted by Ctrl-C; a wait inside flock would not be in any thread but the main one.
        time.sleep(min(_LONGEST, _SHORTEST + waited / 10))
        return True


def holder(lock: Path) -> str:
    """Return who holds a lock file or lease, for people: the process with its program, as far as the system tells."""
    if lock.suffix == lease.SUFFIX:
        if (found := lease.holder(lock)) is None:
            return f"another process ({lock})"
        return _named(found.process) if found.runs else f"process {found.process} on {found.machine.partition('/')[0]}"
    try:
        inode = lock.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return "another process"
    for line in lines:
        # e.g. `1: FLOCK  ADVISORY  WRITE 4711 00:2f:1234567 0 EOF`; the number is 0 in another namespace of processes.
        words = line.split()
        if (
            len(words) > 5
            and words[1] == "FLOCK"
            and words[5].rpartition(":")[2] == str(inode)
            and words[4].isdecimal()
            and int(words[4]) > 0
        ):
            return _named(words[4])
    return f"another process (lock {lock})"


def _named(process: str) -> str:
    if int(process) == os.getpid():
        return f"{_THREAD} ({process})"
    return f"process {process}{_program(process)}"


def _program(process: str) -> str:
    try:
        words = Path("/proc", process, "cmdline").read_bytes().split(b"\0")
        state = Path("/proc", process, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""
    command = b" ".join(words).decode("utf-8", "replace").strip()
    stopped = ", which is stopped" if state in "Tt" else ""
    return f" ({command[:100]}){stopped}"
