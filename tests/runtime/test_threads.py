"""The number of threads that kernels use: settings, OpenMP's variable, torch, and the limits of the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dimorph import settings
from dimorph.runtime import threads
from dimorph.toolchain import jobs
from support.kernels import TASKS
from support.programs import run


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """16 processors, no control groups, no torch; returns the directory of control groups."""
    for name in ("DIMORPH_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    groups = tmp_path / "cgroup"
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/pod\n")
    (groups / "pod").mkdir(parents=True)
    monkeypatch.setattr(jobs, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(jobs, "_CGROUPS", groups)
    return groups


@pytest.mark.parametrize(
    ("environ", "torch", "quota", "expected"),
    [
        ({}, None, "max 100000", 16),
        ({}, None, "400000 100000", 4),
        ({}, None, "50000 100000", 1),
        ({"OMP_NUM_THREADS": "3"}, None, "max 100000", 3),
        ({"OMP_NUM_THREADS": "5,2"}, None, "max 100000", 5),
        ({"OMP_NUM_THREADS": "many"}, None, "max 100000", 16),
        ({"OMP_NUM_THREADS": "0"}, None, "max 100000", 16),
        ({"OMP_NUM_THREADS": "12"}, None, "400000 100000", 4),
        ({}, 6, "max 100000", 6),
        ({"OMP_NUM_THREADS": "2"}, 6, "max 100000", 6),
        ({}, 64, "800000 100000", 8),
        ({"DIMORPH_NUM_THREADS": "7", "OMP_NUM_THREADS": "2"}, 3, "400000 100000", 7),
    ],
)
def test_the_first_setting_that_is_made_decides_within_the_limits(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    torch: int | None,
    quota: str,
    expected: int,
) -> None:
    (machine / "pod" / "cpu.max").write_text(quota + "\n")
    if torch:
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: torch))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert threads.number(settings.current()) == expected


def test_torch_that_another_thread_is_importing_decides_nothing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert threads.number(settings.current()) == 16


FOLLOW = """
import ctypes, os, sys
import numpy as np
from dimorph.runtime import library
from support.kernels import TASKS

def threads():
    services = ctypes.c_void_p.from_address(library._services[0])
    return ctypes.CFUNCTYPE(ctypes.c_int32)(services.value)()

def workers(count):
    torch.set_num_threads(count)
    before = len(os.listdir("/proc/self/task"))
    module.busy(np.zeros(3, np.int64), 2, 4, 1)
    return len(os.listdir("/proc/self/task")) - before, threads()

if "late" in sys.argv:
    early = TASKS.load(width=1)
import torch
module = TASKS.load(width=2)
print([workers(count) for count in (1, 2, 1, 64)])
"""


@pytest.mark.parametrize("order", ["early", "late"])
def test_each_call_asks_torch(warm_store: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    for name in ("OMP_NUM_THREADS", "DIMORPH_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for width in (1, 2):
        TASKS.load(width=width)
    most = jobs.processors()
    two = min(2, most)
    expected = [(0, 1), (two - 1, two), (0, 1), (min(4, most) - two, most)]
    assert run(FOLLOW, order) == str(expected)
    assert run(FOLLOW, order, DIMORPH_NUM_THREADS="3") == str([(2, 3), (0, 3), (0, 3), (0, 3)])


def test_torch_without_the_function_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 3))
    monkeypatch.delitem(sys.modules, "torch._C", raising=False)
    assert threads.torch_function() is None
    monkeypatch.setitem(sys.modules, "torch._C", SimpleNamespace(__file__=None))  # the program itself
    assert threads.torch_function() is None


PROGRAM = """
import os, sys, threading
import numpy as np
if "torch" in sys.argv:
    import torch
    torch.set_num_threads(1)
from support.kernels import TASKS
module = TASKS.load(width=1)
before = len(os.listdir("/proc/self/task"))
module.busy(np.zeros(3, np.int64), 1, 50, 1)
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_the_pool_starts_no_more_threads_than_that(warm_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIMORPH_NUM_THREADS")
    TASKS.load(width=1)
    for name in ("OMP_NUM_THREADS", "DIMORPH_NUM_THREADS"):
        assert run(PROGRAM, **{name: "1"}) == "0"
    assert run(PROGRAM, "torch", OMP_NUM_THREADS="2") == "0"
    assert run(PROGRAM, DIMORPH_NUM_THREADS="3", OMP_NUM_THREADS="1") == "2"
