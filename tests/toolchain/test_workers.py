"""Functions that run side by side, and in one thread where no other can be had."""

from __future__ import annotations

import _thread
import logging
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from dimorph._lazy import logger
from dimorph.toolchain.workers import Later, side_by_side


def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refused)


@pytest.mark.parametrize("threads", [True, False])
def test_results_come_in_order(monkeypatch: pytest.MonkeyPatch, threads: bool) -> None:
    if not threads:
        _no_threads(monkeypatch)
    tasks = [lambda number=number: time.sleep(0.01 * (5 - number)) or number for number in range(5)]
    assert side_by_side(tasks, 3) == [0, 1, 2, 3, 4]
    assert side_by_side([], 3) == []


def test_as_many_run_at_a_time_as_asked_for() -> None:
    both = threading.Barrier(3)
    assert side_by_side([partial(both.wait, 20)] * 3, 3)
    running, most, lock = 0, 0, threading.Lock()

    def one() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    side_by_side([one] * 20, 4)
    assert most <= 4


@pytest.mark.parametrize("threads", [True, False])
def test_the_first_error_wins_and_nothing_begins_after_it(monkeypatch: pytest.MonkeyPatch, threads: bool) -> None:
    if not threads:
        _no_threads(monkeypatch)
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        time.sleep(0.2 - 0.1 * number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        side_by_side([partial(fail, number) for number in range(9)], 2)
    assert sorted(begun) == ([0, 1] if threads else [0])


def test_an_interrupt_of_the_caller_ends_the_others() -> None:
    ended = threading.Event()

    def one() -> None:
        if threading.current_thread() is threading.main_thread():
            time.sleep(0.1)
            raise KeyboardInterrupt
        assert ended.wait(30)

    with pytest.raises(KeyboardInterrupt):
        side_by_side([one] * 3, 3, ended.set)


@pytest.mark.parametrize("threads", [True, False])
def test_a_later_result_is_made_once(monkeypatch: pytest.MonkeyPatch, threads: bool) -> None:
    if not threads:
        _no_threads(monkeypatch)
    made: list[int] = []
    later = Later(lambda: made.append(1) or len(made))
    assert [later.result(), later.result()] == [1, 1]
    failing = Later(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing.result()


BUILD = """
import _thread, atexit, sys, threading, time
sys.path.insert(0, {tests!r})
from support.kernels import PICK
import numpy, tvm_ffi  # torch, which these may import, cannot be imported so late

def build():
    if {late!r} == "thread":
        threading.main_thread().join()
        time.sleep(0.2)
    print(PICK.load(width=1, depth=1).pick(1, 1), flush=True)

if {late!r} == "thread":
    threading.Thread(target=build).start()
elif {late!r} == "atexit":
    atexit.register(build)
else:
    def refused(*_):
        raise RuntimeError("can't start new thread")
    threading._start_new_thread = _thread.start_new_thread = refused
    build()
"""


@pytest.mark.parametrize("late", ["thread", "atexit", "no threads"])
def test_a_kernel_is_built_where_no_thread_can_be_started(late: str) -> None:
    """A thread after the end of the main one, an atexit handler, and a process at its limit of threads."""
    script = BUILD.format(tests=str(Path(__file__).parents[1]), late=late)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.returncode) == ("1001\n", 0), done.stderr


INTERRUPTED = """
import faulthandler, signal, sys
from dimorph.toolchain.workers import Later, side_by_side

faulthandler.dump_traceback_later(60, exit=True)
events = made = 0

def run():
    return side_by_side([lambda: 1, lambda: 2], 2), Later(lambda: 3).result()

def handle(number, frame):
    global made
    sys.setprofile(None)
    made += run() == ([1, 2], 3)

def profile(frame, event, argument):
    global events
    events += 1
    if events == moment:
        signal.raise_signal(signal.SIGALRM)

signal.signal(signal.SIGALRM, handle)
moment = 0
while events >= moment:
    events, moment = 0, moment + 1
    sys.setprofile(profile)
    assert run() == ([1, 2], 3)
    sys.setprofile(None)
assert made == moment - 1 > 20, (made, moment)
"""


def test_a_signal_handler_may_start_threads_whenever_it_comes() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_tasks_may_log_while_the_caller_holds_the_lock_of_a_handler(level: str) -> None:
    name = f"dimorph.test_workers.{level}"
    said = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Handler()
    logging.getLogger(name).addHandler(handler)
    logging.getLogger(name).setLevel(logging.DEBUG)
    together = threading.Barrier(2, timeout=10)

    def task() -> None:
        together.wait()
        getattr(logger(name), level)("from %s", "a task")

    def call() -> None:
        assert handler.lock
        with handler.lock:  # as while `emit` runs
            side_by_side([task, task], 2)
            later = Later(lambda: getattr(logger(name), level)("later"))
            later.result()

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(10)
    assert not caller.is_alive()
    assert said == ["from a task", "from a task", "later"]
