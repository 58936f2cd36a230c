"""Run functions side by side in threads, or in the calling thread where no other can be started.

The executors of the standard library need at least one thread of their own. A process at its limit of threads has none,
and neither has one whose main thread has ended, while another thread or an atexit handler loads a kernel.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dimorph._lazy import keep_records

_T = TypeVar("_T")


def side_by_side(
    tasks: Sequence[Callable[[], _T]], workers: int, interrupt: Callable[[], None] = lambda: None
) -> list[_T]:
    """Run functions without arguments, and return their results in the same order.

    The calling thread works too. After an error no further function begins; those that have begun end first.

    Args:
        tasks: the functions, in the order in which they begin.
        workers: the number of functions that run at the same time, if as many threads can be started.
        interrupt: called when the calling thread is interrupted, e.g. by Ctrl-C; makes running functions end soon.

    Raises:
        Exception: the error of the first function, in the order of `tasks`, that failed.
    """
    results: dict[int, _T] = {}
    errors: dict[int, BaseException] = {}
    waiting = iter(range(len(tasks)))
    lock = threading.Lock()
    records: list[Callable[[], None]] = []

    def work_beside() -> None:
        keep_records(records)
        work()

    def work() -> None:
        while True:
            with lock:
                index = None if errors else next(waiting, None)
            if index is None:
                return
            try:
                results[index] = tasks[index]()
            except BaseException as error:
                errors[index] = error
                if not isinstance(error, Exception):
                    raise

    threads: list[_Thread] = []
    try:
        while len(threads) < min(workers, len(tasks)) - 1 and (thread := _started(work_beside)):
            threads.append(thread)
        work()
        for thread in threads:
            thread.join()
    except BaseException as error:
        errors.setdefault(len(tasks), error)
        interrupt()
        for thread in threads:
            thread.join()
        raise
    finally:
        _write(records)
    if errors:
        raise errors[min(errors)]
    return [results[index] for index in range(len(tasks))]


class Later(Generic[_T]):
    """The result of a function that runs beside the caller, if a thread can be started, and otherwise when asked."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._value: _T
        self._error: Exception | None = None
        self._done = False
        self._records: list[Callable[[], None]] = []
        self._thread = _started(self._run_beside)

    def result(self) -> _T:
        """Return the result, or raise the error, of the function."""
        self._run()
        _write(self._records)
        if self._error:
            raise self._error
        return self._value

    def _run_beside(self) -> None:
        keep_records(self._records)
        self._run()

    def _run(self) -> None:
        with self._lock:
            if self._done:
                return
            try:
                self._value = self._function()
            except Exception as error:
                self._error = error
            self._done = True


def _write(records: list[Callable[[], None]]) -> None:
    """Write the log records that threads have kept; of several callers at once, each record by one of them."""
    while True:
        try:
            write = records.pop(0)
        except IndexError:
            return
        write()


class _Thread:
    """A thread that runs a function; an interpreter that ends does not wait for it.

    `threading.Thread` takes a lock of its module to start. A signal handler that runs meanwhile, and loads a kernel,
    would wait for that lock for ever.

    Raises:
        RuntimeError: no thread can be started, at a limit of threads or while the interpreter ends.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._running = threading.Lock()
        self._running.acquire()  # released at the end of the function
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            self._function()
        finally:
            self._running.release()

    def join(self) -> None:
        """Wait until the function has ended."""
        with self._running:
            pass


def _started(function: Callable[[], None]) -> _Thread | None:
    """Start a function in a thread; return None where no thread can be started."""
    try:
        return _Thread(function)
    except RuntimeError:
        return None
