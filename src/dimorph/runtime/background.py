"""Work in threads of their own, at a lower priority, so that it leaves the CPUs to the caller."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from dimorph.errors import AUTHORS

if TYPE_CHECKING:
    from concurrent.futures import Future

_T = TypeVar("_T")


def start(work: Callable[[], _T], name: str) -> Future[_T]:
    """Run a function in a daemon thread that is called `name`; return the future of its result.

    The future cannot be cancelled: the function runs to its end, unless the process ends before it.
    """
    from concurrent.futures import Future  # few processes need it, and its import takes a millisecond
    from threading import Thread, get_native_id

    future = Future[_T]()

    def run() -> None:
        try:
            # On Linux a thread has a priority of its own, which the threads and processes that it starts inherit.
            os.setpriority(os.PRIO_PROCESS, get_native_id(), min(os.nice(0) + 10, 19))
            result = work()
        except BaseException as error:
            future.set_exception(error.with_traceback(None) if isinstance(error, AUTHORS) else error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    Thread(target=run, name=name, daemon=True).start()
    return future
