"""One limit of compilers over all processes of a machine that use the same store.

There is a slot for each CPU that a process may use. Processes that share CPUs, such as the ranks of a job, share the
slots; those that were pinned to CPUs of their own have slots of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dimorph._lazy import logger
from dimorph.plan.key import digest
from dimorph.settings import Settings
from dimorph.store.store import Store
from dimorph.toolchain.jobs import parallel_jobs

_log = logger("dimorph")
_PAUSE = 0.05  # seconds between two rounds


@contextmanager
def slot(store: Store, settings: Settings, tick: Callable[[], None]) -> Iterator[None]:
    """Hold a slot for one compiler; wait while all are taken.

    After `settings.compile_timeout` seconds of waiting, and where the store cannot be locked, go on without a slot.

    Args:
        store: the store whose locks are the slots.
        settings: the settings that the number of slots depends on.
        tick: called while all slots are taken; an exception from it ends the wait.
    """
    keys = [digest(["slot", os.uname().nodename, name]) for name in _names(settings)]
    deadline = time.monotonic() + settings.compile_timeout
    busy: list[Path] = []

    def next_one(lock: Path) -> bool:
        busy.append(lock)
        return False

    with ExitStack() as held:
        while True:
            busy.clear()
            for key in keys:
                try:
                    taken = held.enter_context(store.lock(key, next_one))
                except OSError as error:
                    _log.debug("%s: no slot for a compiler: %s", store.root, error)
                    taken = True
                if taken:
                    break
            # A store that cannot be locked asks nobody to wait.
            if len(busy) < len(keys):
                break
            if time.monotonic() >= deadline:
                _log.warning("dimorph: other processes compile without end; compiling beside them")
                break
            tick()
            time.sleep(_PAUSE)
        yield


def _names(settings: Settings) -> list[str]:
    """Return the names of the slots that this process may take."""
    limit = parallel_jobs(settings)
    processors = sorted(os.sched_getaffinity(0))[:limit]
    return [*(f"cpu {number}" for number in processors), *(f"more {i}" for i in range(limit - len(processors)))]
