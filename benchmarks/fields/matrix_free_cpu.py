"""The part of matrix_free.py for the CPU: unknowns per second beside libCEED, MFEM, Numba and the machine's limits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from benchmarks.fields.matrix_free_counts import instructions
from benchmarks.fields.matrix_free_mesh import bend
from benchmarks.support.limits import copy_rate, fma_rate
from benchmarks.support.rows import Row, interleaved, line, write
from matrix_free import DIFFUSION, MASS, Mesh, Operator, grid

import dimorph as dm

THREADS = len(os.sched_getaffinity(0))


def main(degrees: list[int], unknowns: float, threads: int, repeats: int) -> None:
    os.environ["DIMORPH_NUM_THREADS"] = str(threads)
    rows, copied, computed = [], 0.0, 0.0
    for degree in degrees:
        size = 2 * round(unknowns ** (1 / 3) / degree / 2)
        mesh = grid((size,) * 3, bend)
        for physics in (MASS, DIFFUSION):
            rows.append(_row(mesh, size, degree, physics, threads, repeats))
            # The machine's limits, the best of the run: what disturbs a rate only lowers it.
            copied, computed = max(copied, copy_rate(threads)), max(computed, fma_rate("float64", threads))
            print(line(rows[-1][0]), file=sys.stderr)
    for row, moved, work in rows:
        exact = row.cell["unknowns"]
        row.peers = {**row.peers, "memory": exact * copied / moved, "arithmetic": exact * computed / work}
    write("matrix_free", [row for row, _, _ in rows])


def _row(mesh: Mesh, size: int, degree: int, physics: dm.Variant, threads: int, repeats: int) -> tuple[Row, int, int]:
    """Return the measurements of one operator, the bytes that it moves at least, and its operations."""
    from benchmarks.fields.matrix_free_numba import with_numba
    from benchmarks.fields.matrix_free_peers import wave, with_libceed, with_mfem

    operator = Operator(mesh, degree, physics)
    x = np.random.default_rng(0).standard_normal(operator.unknowns)
    y = operator(x)
    calls = {"ours": partial(operator, x, y)}

    compiled, numbers = with_numba(operator, physics.name, threads)
    x_of_numba, y_of_numba = np.empty_like(x), np.empty_like(x)
    x_of_numba[numbers] = x[operator.numbers()]
    calls["Numba"] = partial(compiled, x_of_numba, y_of_numba)
    calls["Numba"]()
    _agree("Numba", y_of_numba[numbers], y[operator.numbers()])
    if threads == 1:  # as the wheels of both are built
        of_libceed = with_libceed(operator, physics.name, x, "/cpu/self/avx/blocked")
        of_mfem = with_mfem(size, degree, physics.name)
        calls |= {"libCEED": of_libceed.apply, "MFEM": of_mfem.apply}
        of_libceed.apply()
        _agree("libCEED", of_libceed.result(), y)
        of_mfem.apply()
        same = wave(operator.nodes())
        _agree("MFEM", of_mfem.result(), np.array([same @ operator(same)]))
    moved = 2 * x.nbytes + sum(array.nbytes for array in operator.arrays[:2])  # each read or written once
    work = 2 * mesh.elements * instructions(degree, physics.name)  # an addition takes as long as a multiply-add
    clock = time.thread_time if threads == 1 else time.perf_counter  # processor time, where others use the machine too
    times = interleaved({name: partial(_measured, call, clock) for name, call in calls.items()}, repeats)
    rates = {name: operator.unknowns / time for name, time in times.items()}
    cell = {"physics": physics.name, "degree": degree, "unknowns": operator.unknowns, "threads": threads}
    return Row("matrix_free", cell, "DoF/s", rates.pop("ours"), rates), moved, work


def _measured(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def _agree(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < 1e-11, f"{name} differs by {error:.1e}"
