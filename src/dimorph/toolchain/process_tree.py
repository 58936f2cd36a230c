"""Kill processes together with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def kill_group(group: int) -> None:
    """Kill all processes of a group; one that has ended already is accepted."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def kill_tree(leader: int) -> None:
    """Kill a process and all its descendants, also those that left its process group."""
    # Each is stopped before its children are listed, so that none appears unseen.
    tree: list[int] = []
    new = [leader]
    while new:
        for process in new:
            _signal(process, signal.SIGSTOP)
        tree += new
        parents = _parents()
        new = [process for process, parent in parents.items() if parent in tree and process not in tree]
    for process in tree:
        _signal(process, signal.SIGKILL)


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _parents() -> dict[int, int]:
    """Return process -> its parent, for all processes."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            with contextlib.suppress(OSError):
                # The name of the program, in parentheses, may contain anything.
                found[int(name)] = int(Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()[1])
    return found
