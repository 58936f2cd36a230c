"""Waits for what threads do in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(done: Callable[[], bool]) -> None:
    """Return as soon as `done()` is true."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "nothing happened in 60 s"
        time.sleep(0.01)


def builds() -> list[threading.Thread]:
    """Return the threads that build what a call did not wait for."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("build of ")]
