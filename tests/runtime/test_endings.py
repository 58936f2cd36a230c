"""Calls that end early or come at a bad time: signals, no memory, small stacks, the end of the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from support.kernels import FAILURES, PICK, TASKS
from support.programs import run
from support.store import result_of, start_child

IMPORTS = """
import atexit, logging, os, signal, sys, threading, time
import numpy as np
from support.kernels import FAILURES, PICK, TASKS
"""


@pytest.fixture
def built(warm_store: Path) -> None:
    ran = np.zeros(3, np.int64)
    module = TASKS.load()
    module.busy(ran, 1, 1, 0)
    FAILURES.load(width=1)
    PICK.load().pick(1, 1)


def _raising(error: BaseException) -> Callable[[int, object], None]:
    def handler(number: int, frame: object) -> None:
        raise error

    return handler


# --- Signals ---


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("size", [3, 1000], ids=["brief", "long"])
@pytest.mark.usefixtures("built")
def test_a_signal_ends_a_call_of_many_tasks(monkeypatch: pytest.MonkeyPatch, threads: str, size: int) -> None:
    """Also a brief call, which keeps Python's lock."""

    def child() -> list[object]:
        monkeypatch.setenv("DIMORPH_NUM_THREADS", threads)
        module, ran = TASKS.load(), np.zeros(size, np.int64)
        found: list[object] = []
        for error in (KeyboardInterrupt(), TimeoutError("too late")):
            signal.signal(signal.SIGALRM, _raising(error))
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            start = time.monotonic()
            try:
                module.busy(ran, 1, 10_000, 10)
                found.append("not interrupted")
            except (KeyboardInterrupt, TimeoutError) as caught:
                found.append(caught is error and time.monotonic() - start < 5)
        ran[:] = 0
        module.busy(ran, 1, 8, 1)
        return [*found, int(ran[0])]

    assert result_of(start_child(child)) == [True, True, 8]


SERIES = {
    "series.cc": """#include "series_config.h"

int64_t series(Tensor ran, int64_t times) { return DIMORPH_CALL(series, int64_t)(ran, times); }
DIMORPH_EXPORT(series)
""",
    "series_case.cc": """#include <dimorph/parallel.h>

#include "series_config.h"

namespace DIMORPH_CASE {
int64_t series(View<int64_t, 1> ran, int64_t times) noexcept {
  for (int64_t i = 0; i < times; ++i)
    if (!dimorph::parallel_for(ran.size(0), [&](int64_t j) { ran(j) += j ^ i; })) return i;
  return times;
}
}  // namespace DIMORPH_CASE
""",
}


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.usefixtures("built")
def test_a_signal_ends_a_series_of_short_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: str) -> None:
    """None of them lasts until signals are looked for."""
    for name, text in SERIES.items():
        (tmp_path / name).write_text(text)
    kernel = dm.Kernel("series", root=tmp_path)
    kernel.load()

    def child() -> list[object]:
        monkeypatch.setenv("DIMORPH_NUM_THREADS", threads)
        module, ran = kernel.load(), np.zeros(20_000, np.int64)
        module.series(ran, 1)
        signal.signal(signal.SIGALRM, _raising(KeyboardInterrupt()))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        start = time.monotonic()
        try:
            module.series(ran, 10**9)
        except KeyboardInterrupt:
            return [time.monotonic() - start < 5]
        return ["not interrupted"]

    assert result_of(start_child(child)) == [True]


@pytest.mark.usefixtures("built")
def test_a_handler_that_only_looks_does_not_end_the_call() -> None:
    def child() -> list[int]:
        seen: list[int] = []
        signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        ran = np.zeros(3, np.int64)
        TASKS.load().busy(ran, 1, 200, 5)
        return [int(ran[0]), len(seen)]

    assert result_of(start_child(child)) == [200, 1]


@pytest.mark.usefixtures("built")
def test_a_handler_may_call_kernels_while_one_runs() -> None:
    def child() -> list[int]:
        module, ran, inner = TASKS.load(), np.zeros(3, np.int64), np.zeros(3, np.int64)
        signal.signal(signal.SIGALRM, lambda number, frame: module.needy(inner, 1, 20, 10_000))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        module.busy(ran, 1, 300, 5)
        return [int(ran[0]), *map(int, inner)]

    assert result_of(start_child(child)) == [300, 20, 1, 1]


@pytest.mark.usefixtures("built")
def test_a_handler_may_fork_while_a_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call goes on in the parent. In the child, which lacks the workers, it raises; other calls work."""

    def child() -> list[object]:
        monkeypatch.setenv("DIMORPH_NUM_THREADS", "3")
        module, ran, children = TASKS.load(), np.zeros(3, np.int64), []
        signal.signal(signal.SIGALRM, lambda number, frame: children.append(os.fork()))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            module.busy(ran, 1, 300, 5)
            error = ""
        except RuntimeError as caught:
            error = str(caught)
        if children == [0]:
            signal.alarm(20)  # ends a hang
            again = np.zeros(3, np.int64)
            module.busy(again, 1, 8, 1)
            os._exit(7 if "forked" in error and again[0] == 8 else 8)
        return [error, int(ran[0]), os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])]

    assert result_of(start_child(child)) == ["", 300, 7]


# --- Memory ---


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("count", [1, 50])
def test_scratch_space_that_cannot_be_had_is_a_memory_error(count: int) -> None:
    module, ran = TASKS.load(), np.zeros(3, np.int64)
    for size in (2**60, 2**63 - 1):
        with pytest.raises(MemoryError, match=f"{size} bytes"):
            module.needy(ran, 1, count, size)
        with pytest.raises(MemoryError, match=f"{size} bytes"):
            module.needy_alone(ran, 1, size)
    assert ran.tolist() == [0, 0, 0]
    module.needy(ran, 1, count, 1000)
    assert ran.tolist() == [count, 1, 1]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("count", [1, 50])
def test_no_bytes_of_scratch_space_are_no_lack_of_memory(count: int) -> None:
    module, ran, alone = TASKS.load(), np.zeros(3, np.int64), np.zeros(1, np.int64)
    with pytest.raises(MemoryError):
        module.needy(ran, 1, count, 2**60)  # leaves its threads without any
    module.needy(ran, 1, count, 0)
    assert ran.tolist() == [count, 1, 1]
    first = threading.Thread(target=lambda: module.needy_alone(alone, 1, 0))
    first.start()
    first.join()
    assert alone[0] == 1


def test_attention_without_memory_is_a_memory_error(warm_store: Path) -> None:
    run(
        """
        import resource, threading
        import numpy as np
        from dimorph.attention import attention
        q = np.ones((1, 400, 2, 256), np.float32)
        out = np.empty_like(q)
        first = threading.Thread(target=lambda: attention(q, q, q, out=out))
        first.start()
        first.join()
        attention(q[:, :1], q[:, :1], q[:, :1])  # tvm-ffi's own memory for this thread, without which it aborts
        in_use = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**20, -1))
        hold = []
        for size in (2**20, 65536):
            try:
                while True: hold.append(bytearray(size))
            except MemoryError: pass
        try:
            for _ in range(50): attention(q, q, q, out=out)  # the pool's thread may do all of one, or of a few
            found = "nothing"
        except MemoryError as error:
            found = str(error)
        del hold
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        assert "bytes that a thread" in found, found
        attention(q, q, q, out=out)
        assert np.allclose(out, 1)
        """,
        MALLOC_ARENA_MAX="1",
        DIMORPH_NUM_THREADS="2",
    )


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("kilobytes", [64, 96])
def test_the_first_parallel_call_needs_little_stack(kilobytes: int) -> None:
    run(
        IMPORTS
        + """
module, ran = TASKS.load(width=1), np.zeros(3, np.int64)
threading.stack_size(int(sys.argv[1]) * 1024)
thread = threading.Thread(target=module.needy, args=(ran, 1, 20, 5000))
thread.start()
thread.join()
assert ran.tolist() == [20, 1, 1]
""",
        str(kilobytes),
        DIMORPH_NUM_THREADS="3",
    )


# --- Handlers that call while a kernel is compiled ---

HANDLERS = {
    "log": """
class Handler(logging.Handler):
    def emit(self, record): handle()
logging.getLogger("dimorph").addHandler(Handler())
logging.getLogger("dimorph").setLevel(logging.INFO)
""",
    # It comes while the caller waits for the compiler.
    "signal": """
compiler = os.environ["DIMORPH_STORE"] + "-compiler"
with open(compiler, "w") as file:
    file.write(f'#!/bin/sh\\ncase "$*" in *unit.cc*) sleep 0.3; kill -ALRM {os.getpid()};; esac\\nexec g++ "$@"\\n')
os.chmod(compiler, 0o755)
os.environ["DIMORPH_CXX"] = compiler
signal.signal(signal.SIGALRM, lambda *_: handle())
""",
}


@pytest.mark.long
@pytest.mark.parametrize("way", HANDLERS)
def test_a_handler_may_call_attention_during_a_first_call(store: Path, way: str) -> None:
    run(
        IMPORTS
        + """
from dimorph.attention import Causal, attention
q = np.ones((1, 40, 1, 32), np.float32)
calls = []
def handle():
    if not calls:
        calls.append("begun")
        calls.append(attention(q, q, q, variant=Causal))
"""
        + HANDLERS[way]
        + """
assert np.allclose(attention(q, q, q), 1)
assert len(calls) == 2 and np.allclose(calls[1], 1)
""",
        limit=150,
    )


@pytest.mark.parametrize("way", HANDLERS)
def test_a_handler_may_call_the_module_that_binds_a_case(store: Path, way: str) -> None:
    run(
        IMPORTS
        + """
module = None
calls = []
def handle():
    if module and not calls:
        calls.append("begun")
        calls.append(module.pick(2, 1))
        calls.append(module.pick(30, 1))
"""
        + HANDLERS[way]
        + """
module = PICK.load()
assert module.pick(1, 2) == 1002
assert calls == ["begun", 2001, 30001], calls
""",
        limit=100,
    )


# --- The end of the process ---


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("delay", [0.05, 0.3])
def test_a_process_ends_while_a_daemon_thread_is_inside_a_kernel(delay: float) -> None:
    run(
        IMPORTS
        + """
module, flag = FAILURES.load(width=1), np.zeros(1000, np.int64)
tasks, ran = TASKS.load(), np.zeros(1000, np.int64)
threading.Thread(target=module.wait_in_case, args=(1, flag), daemon=True).start()
def calls():
    while True: tasks.busy(ran, 1, 3, 1)
for _ in range(3): threading.Thread(target=calls, daemon=True).start()
time.sleep(float(sys.argv[1]))
class Late:
    def __del__(self, flag=flag, sleep=time.sleep):
        flag[0] = 1
        sleep(0.3)
sys.late = Late()  # dies after the interpreter has begun to end threads
""",
        str(delay),
    )


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3, 0.6])
def test_a_process_ends_while_a_daemon_thread_builds(store: Path, delay: float) -> None:
    run(
        IMPORTS
        + """
module = PICK.load()
threading.Thread(target=lambda: module.pick(1, 1), daemon=True).start()
threading.Thread(target=lambda: module.pick(20, 1), daemon=True).start()
time.sleep(float(sys.argv[1]))
""",
        str(delay),
    )


# --- Exceptions of the search for a case ---


def test_an_error_that_a_search_raises_keeps_what_it_holds(store: Path, copy_of: Callable[..., dm.Kernel]) -> None:
    module = copy_of(PICK).load()
    case = module.pick
    (copy_of(PICK).root / "pick_case.cc").write_text("#error broken\n")
    with pytest.raises(dm.BuildError) as caught:
        case(1, 2)
    assert caught.value.exit_code and caught.value.context == "pick case (width=1, depth=2)"
