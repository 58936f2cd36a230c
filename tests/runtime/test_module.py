"""Loaded modules: threads, processes, forks, reloading, lifetimes."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from support.compilers import Compiler
from support.forms import Form
from support.kernels import FAILURES, PICK, SCALE
from support.store import result_of, start_child


def _together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run work(0), work(1), ... each in a thread; all threads start at the same moment."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


# --- Threads ---


def test_16_threads_call_what_is_not_bound_yet(copy_of: Callable[..., dm.Kernel], compiler: Compiler) -> None:
    module = copy_of(PICK).load()
    before = len(compiler.compiled())
    assert _together(16, lambda _: module.pick(1, 2)) == [1002] * 16
    assert len(compiler.compiled()) - before == 1, "one case, so one compile"
    assert _together(16, lambda n: module.pick(1 + n % 2, 1 + n // 2 % 2)) == [
        (1 + n % 2) * 1000 + 1 + n // 2 % 2 for n in range(16)
    ]
    assert len(compiler.compiled()) - before == 4


def test_16_threads_ask_for_values_that_nobody_declared(copy_of: Callable[..., dm.Kernel], compiler: Compiler) -> None:
    module = copy_of(PICK).load()
    before = len(compiler.compiled())
    for _ in range(2):
        answers = _together(16, lambda n: module.pick(50 + n % 4, 1))
        assert answers == [(50 + n % 4) * 1000 + 1 for n in range(16)]
    compiled = compiler.compiled()[before:]
    assert len([c for c in compiled if "case" in c]) == 4
    assert len([c for c in compiled if "entry" in c]) == 4, "as many as with one thread"


def test_threads_ask_for_values_of_several_axes_in_any_order(
    copy_of: Callable[..., dm.Kernel], compiler: Compiler
) -> None:
    """Each new value costs one entry, for whichever call it comes first, and all calls share it."""
    module = copy_of(PICK).load()
    before = len(compiler.compiled())
    pairs = [(width, depth) for width in (50, 51, 1) for depth in (60, 61, 1)]

    def work(number: int) -> bool:
        mixed = [pairs[(n * (1 + number % 2) + number) % len(pairs)] for n in range(len(pairs))]
        return all(module.pick(width, depth) == width * 1000 + depth for width, depth in mixed)

    assert _together(8, work) == [True] * 8
    compiled = compiler.compiled()[before:]
    assert len([c for c in compiled if "entry" in c]) == 4
    assert len([c for c in compiled if "case" in c]) == len(pairs)


def test_16_threads_load_the_same_kernel(copy_of: Callable[..., dm.Kernel], compiler: Compiler) -> None:
    kernel = copy_of(PICK)
    assert _together(16, lambda _: kernel.load(width=1, depth=1).pick(1, 1)) == [1001] * 16
    assert len(compiler.compiled()) == 2


def test_a_failing_build_fails_in_every_thread_and_blocks_nobody(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    with (kernel.root / "pick_case.cc").open("a") as source:
        source.write('static_assert(WIDTH != 2, "width two is broken");\n')
    module = kernel.load()

    def call(number: int) -> object:
        try:
            return module.pick(1 + number % 2, 1)
        except dm.BuildError as error:
            return "width two is broken" in str(error) and error.context

    answers = _together(8, call)
    assert answers[::2] == [1001] * 4
    assert answers[1::2] == ["pick case (width=2, depth=1)"] * 4


@pytest.mark.parametrize(("function", "size", "says"), [("wait_in_case", 500, ()), ("wait_long", 1, (True,))])
def test_python_goes_on_while_a_case_works(
    warm_store: Path, mode: Form, function: str, size: int, says: tuple[bool, ...]
) -> None:
    # The lock is released from 500 elements on, and for calls that say that they are long.
    module, flag = mode.load(FAILURES, width=1), np.zeros(size, np.int64)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(getattr(module, function), 1, flag, *says)
        time.sleep(0.05)
        # The case waits for a value that only a thread running at the same time can set.
        assert not waiting.done()
        flag[0] = 1
        assert waiting.result(timeout=5) is True


def test_threads_compute_side_by_side_with_their_own_arguments(warm_store: Path, mode: Form) -> None:
    module = mode.load(SCALE, dtype="float32", width=64)

    def work(number: int) -> bool:
        x = np.full((50, 64), float(number), np.float32)
        y = np.empty_like(x)
        for _ in range(50):
            total = module.scale(x, y, 2.0)
            if not (y == 2 * number).all() or total != pytest.approx(2 * number * number * x.size):
                return False
        return True

    assert _together(8, work) == [True] * 8


# --- Processes ---


def _pick(kernel: dm.Kernel, width: int, depth: int) -> int:
    return int(kernel.load(width=width, depth=depth).pick(width, depth))


def test_16_processes_ask_for_the_same_and_for_different_ones(
    copy_of: Callable[..., dm.Kernel], compiler: Compiler
) -> None:
    kernel = copy_of(PICK)
    asked = [(70, 1)] * 8 + [(71 + n, 1) for n in range(4)] + [(71 + n, 1) for n in range(4)]
    children = [start_child(lambda pair=pair: _pick(kernel, *pair)) for pair in asked]
    assert [result_of(child) for child in children] == [width * 1000 + depth for width, depth in asked]
    assert len(compiler.compiled()) == 5 * 2, "each artifact is compiled once"


def test_a_forked_child_calls_and_loads_what_its_parent_has(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    module = kernel.load()
    assert module.pick(1, 1) == 1001

    def child() -> list[int]:
        return [module.pick(1, 1), module.pick(1, 2), module.pick(60, 1), _pick(kernel, 2, 2)]

    assert result_of(start_child(child)) == [1001, 1002, 60001, 2002]
    assert [module.pick(1, 2), module.pick(60, 1)] == [1002, 60001]


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.0055, 0.007, 0.03, 0.08])
def test_a_fork_while_another_thread_builds_leaves_a_child_that_works(
    copy_of: Callable[..., dm.Kernel], delay: float
) -> None:
    kernel = copy_of(PICK)
    module = kernel.load()
    started = threading.Event()

    def build() -> int:
        started.set()
        return int(module.pick(1, 2))

    def child() -> list[int]:
        signal.alarm(30)  # ends a deadlock
        return [module.pick(2, 1), module.pick(1, 2), module.pick(61, 1), _pick(kernel, 62, 1)]

    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)
        started.wait()
        time.sleep(delay)
        answer = result_of(start_child(child))
        assert building.result() == 1002
    assert answer == [2001, 1002, 61001, 62001]


def test_a_child_that_ends_takes_nothing_of_its_parent_along(
    copy_of: Callable[..., dm.Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The private store of a process whose store cannot be used belongs to the parent alone."""
    kernel = copy_of(PICK)

    def parent() -> bool:
        monkeypatch.setenv("DIMORPH_STORE", "/dev/null/store")
        module = kernel.load()
        (used,) = [Path(r.artifact.path) for r in module.resolutions if r.unit.kind == "entry"]
        pid = os.fork()
        if pid == 0:
            atexit._run_exitfuncs()  # runs at the end of every program
            os._exit(0)
        os.waitpid(pid, 0)
        return used.is_dir()

    assert result_of(start_child(parent)) is True


# --- Reloading ---


@pytest.mark.parametrize("file", ["pick_case.cc", "pick.cc", "number.h"])
def test_an_edited_source_is_new_code_and_old_modules_keep_the_old(
    copy_of: Callable[..., dm.Kernel], mode: Form, file: str
) -> None:
    kernel = copy_of(PICK)
    case = kernel.root / "pick_case.cc"
    case.write_text('#include "number.h"\n' + case.read_text().replace("DEPTH;", "DEPTH + added;"))
    (kernel.root / "number.h").write_text("constexpr int added = 0;\n")
    old = mode.load(kernel, width=1, depth=2)
    assert old.pick(1, 2) == 1002
    edits = {
        "pick_case.cc": ("DEPTH + added", "DEPTH + 700000"),
        "pick.cc": ("return DIMORPH_CALL(pick, int64_t)();", "return 700000 + DIMORPH_CALL(pick, int64_t)();"),
        "number.h": ("added = 0", "added = 700000"),
    }
    source, (before, after) = kernel.root / file, edits[file]
    text = source.read_text()
    if file == "pick.cc":
        before, after = before.rstrip(";"), after.rstrip(";")
    assert before in text
    stamp = source.stat()
    source.write_text(text.replace(before, after))
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    new = mode.load(kernel, width=1, depth=2)
    assert new.pick(1, 2) == 701002
    assert old.pick(1, 2) == 1002, "the old module has changed"
    source.write_text(text)
    assert mode.load(kernel, width=1, depth=2).pick(1, 2) == 1002
    assert new.pick(1, 2) == 701002


def test_a_case_that_an_old_module_binds_late_is_of_its_time_or_refused(copy_of: Callable[..., dm.Kernel]) -> None:
    """An entry and a case from different versions of the sources could disagree without an error."""
    kernel = copy_of(PICK)
    module = kernel.load()
    assert module.pick(1, 1) == 1001
    case = kernel.root / "pick_case.cc"
    case.write_text(case.read_text().replace("DEPTH;", "DEPTH + 700000;"))
    assert module.pick(1, 1) == 1001
    assert module.pick(1, 2) in (1002, 701002)
    assert kernel.load().pick(1, 1) == 701001


# --- Lifetimes ---


def test_modules_and_what_they_hold_are_collected(warm_store: Path) -> None:
    module = PICK.load()
    assert module.pick(47, 1) == 47001  # widened, so there are two entries
    watched = [weakref.ref(module), weakref.ref(module.pick), weakref.ref(module._dispatcher)]
    del module
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3


def test_many_loads_leave_nothing_behind(warm_store: Path) -> None:
    def use() -> None:
        module = PICK.load()
        assert module.pick(1, 1) == 1001 and module.pick(48, 1) == 48001

    for _ in range(2):  # the second finds what the first has left in memos
        use()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(20):
        use()
    gc.collect()
    assert len(gc.get_objects()) - before < 100


def test_a_function_outlives_its_module(warm_store: Path, mode: Form) -> None:
    pick = mode.load(PICK, width=1, depth=2).pick
    gc.collect()
    assert pick(1, 2) == 1002
    wide = PICK.load().pick
    gc.collect()
    assert [wide(1, 1), wide(2, 2), wide(49, 1), wide(49, 2)] == [1001, 2002, 49001, 49002]


def test_a_module_may_go_while_its_functions_run(warm_store: Path) -> None:
    def work(number: int) -> bool:
        return all(PICK.load().pick(1 + number % 2, 2) == (1 + number % 2) * 1000 + 2 for _ in range(20))

    assert _together(4, work) == [True] * 4


def test_modules_do_not_share_what_is_bound(warm_store: Path) -> None:
    one, two = PICK.load(), PICK.load()
    assert one.pick(1, 1) == two.pick(1, 1) == 1001
    assert [len(module.resolutions) for module in (one, two)] == [2, 2]
    assert one.pick(63, 1) == 63001
    assert len(two.resolutions) == 2


def test_a_module_prints_itself_and_lists_what_it_has(warm_store: Path) -> None:
    module = PICK.load(width=1)
    assert repr(module) == "<dimorph.Module pick(width=1, depth={1, 2}): pick, marked, pick_twice>"
    assert all("unit=" not in repr(resolution) for resolution in module.resolutions), "with all of the generated text"
    assert [r.unit.label for r in module.resolutions] == ["pick entry"] or "width=1" in module.resolutions[0].unit.label
    assert {"pick", "marked", "pick_twice"} <= set(dir(module))
    with pytest.raises(
        AttributeError, match=r"kernel pick exports no function 'peck'; it has: pick, marked, pick_twice"
    ):
        module.peck()


def test_a_function_called_like_an_attribute_is_not_lost(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    with (kernel.root / "pick.cc").open("a") as source:
        source.write("int64_t resolutions(int64_t x) { return x; }\nDIMORPH_EXPORT(resolutions)\n")
    try:
        module = kernel.load()
    except dm.DeclarationError as error:
        assert "resolutions" in str(error)
    else:
        assert module.resolutions(7) == 7


# --- Interrupts ---


def test_a_signal_ends_a_call_that_builds(copy_of: Callable[..., dm.Kernel], tmp_path: Path, store: Path) -> None:
    """Ctrl-C during a long first call raises its exception, leaves nothing half built, and the next call works."""
    slow = tmp_path / "slow-compiler"
    slow.write_text('#!/bin/sh\ncase "$*" in *-shared*) sleep 8;; esac\nexec g++ "$@"\n')
    slow.chmod(0o755)
    kernel = copy_of(PICK)

    def child() -> str:
        os.environ["DIMORPH_CXX"] = str(slow)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        started = time.monotonic()
        try:
            kernel.load()
        except KeyboardInterrupt:
            return "interrupted" if time.monotonic() - started < 4 else "late"
        return "not interrupted"

    assert result_of(start_child(child)) == "interrupted"
    assert kernel.load().pick(1, 1) == 1001
    assert not [p for p in (store / "tmp").iterdir() if p.suffix != ".lock"]
