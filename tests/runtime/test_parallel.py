"""Parallel work: what bodies throw, and how threads share the indices."""

from __future__ import annotations

import numpy as np
import pytest

import dimorph as dm
from support.kernels import TASKS
from support.programs import run

pytestmark = pytest.mark.usefixtures("warm_store")

FAILURES = [
    (RuntimeError, "failing: from a body"),
    (IndexError, "failing: no element 37"),
    (TypeError, "failing: of a wrong type"),
    (MemoryError, "failing: out of memory"),
    (RuntimeError, "failing: threw something that is not a std::exception"),
    (RuntimeError, "failing: from within"),
]


@pytest.fixture
def tasks() -> dm.Module:
    return TASKS.load(width=1)


PROGRAM = """
import sys
import numpy as np
from support.kernels import TASKS
tasks, ran = TASKS.load(width=1), np.zeros(1, np.int64)
for kind in range(6):
    try:
        tasks.failing(ran, 1, 100_000, 37, kind)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    ran[0] = 0
    assert tasks.failing(ran, 1, 1000, -1, kind) and ran[0] == 1000
"""


@pytest.mark.parametrize("threads", ["1", "3"])
def test_what_a_body_throws_comes_to_the_caller(tasks: dm.Module, threads: str) -> None:
    """Also from a noexcept function; the next call works."""
    said = run(PROGRAM, DIMORPH_NUM_THREADS=threads)
    assert said.splitlines() == [f"{error.__name__}: {text}" for error, text in FAILURES]


def test_the_other_indices_are_left_out(tasks: dm.Module) -> None:
    ran = np.zeros(1, np.int64)
    with pytest.raises(RuntimeError, match="from a body"):
        tasks.failing(ran, 1, 10**9, 0, 0)
    assert ran[0] < 10**8


def test_the_first_error_counts(tasks: dm.Module) -> None:
    with pytest.raises(RuntimeError, match=r"^failing_twice: first$"):
        tasks.failing_twice(1)


@pytest.mark.parametrize("grain", [-1, 1, 7, 10_000, 2**62])
@pytest.mark.parametrize("count", [0, 1, 2, 1000, 12_345])
def test_each_index_is_visited_once(tasks: dm.Module, count: int, grain: int) -> None:
    marks = np.zeros(count, np.int64)
    tasks.runs(marks, 1, grain, 0)
    assert (marks > 0).all()
    lengths = np.diff(np.flatnonzero(np.diff(marks, prepend=0, append=0)))
    assert (lengths[:-1] >= min(grain, count)).all()  # the last one takes what is left


def test_work_of_fewer_indices_than_the_grain_stays_on_one_thread(tasks: dm.Module) -> None:
    marks = np.zeros(50, np.int64)
    tasks.runs(marks, 1, 50, 100_000)
    assert len(set(marks)) == 1


LONG = """
import numpy as np
from support.kernels import TASKS
marks = np.zeros(40, np.int64)
TASKS.load(width=1).runs(marks, 1, 1, 20_000_000)
print(*marks)
"""


def test_long_indices_are_taken_one_by_one(tasks: dm.Module) -> None:
    marks = run(LONG, DIMORPH_NUM_THREADS="4").split()
    assert sorted(set(marks)) == ["1", "2", "3", "4"]
    assert all(5 <= marks.count(thread) <= 15 for thread in set(marks)), marks
