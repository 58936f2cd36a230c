"""The part of matrix_free.py about the two forms: first results, and degrees that nobody declared."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import matrix_free
import numpy as np
from benchmarks.fields.matrix_free_mesh import bend
from benchmarks.fields.matrix_free_peers import with_mfem
from benchmarks.support.rows import ROOT, Row, interleaved, python, write
from matrix_free import DIFFUSION, KERNEL, Operator, grid

from dimorph.aot import load_kernels

DECLARED, UNDECLARED = 8, 9
SOURCES = Path(matrix_free.__file__).parent
# Each program prints the seconds from the start of its process to the first result.
FIRST = """
import os, sys, time
sys.path[:0] = [{root!r}, {src!r}]
import numpy as np
from matrix_free import DIFFUSION, Operator, grid
from benchmarks.fields.matrix_free_mesh import bend
mesh = grid((4, 4, 4), bend)
{body}
started = float(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
print(time.clock_gettime(time.CLOCK_BOOTTIME) - started)
"""
OURS = "operator = Operator(mesh, {degree}, DIFFUSION)\noperator(np.ones(operator.unknowns))"
NUMBA = """
class Described:
    mesh, degree = mesh, {degree}
from benchmarks.fields.matrix_free_numba import with_numba
apply, numbers = with_numba(Described, "Diffusion", {threads})
x = np.ones(numbers.max() + 1)
apply(x, np.empty_like(x))
"""
# What makes a loop bound of each constant: (file, text, its replacement).
RUN_TIME_BOUNDS = [
    (
        "basis.h",
        "constexpr int kNodes = DEGREE + 1, kPoints = DEGREE + 2;",
        "static volatile int degree = DEGREE;  // unknown to the compiler\n"
        "static const int kNodes = degree + 1, kPoints = degree + 2;\n"
        "constexpr int kMost = 14;\n"
        "#undef DM_UNROLL\n"
        "#define DM_UNROLL",
    ),
    ("basis.h", "#define TABLE constexpr\n", "#define TABLE static const\n"),
    ("basis.h", "double at[kPoints], weight[kPoints];", "double at[kMost], weight[kMost];"),
    ("basis.h", "double at[kPoints][kPoints];", "double at[kMost][kMost];"),
    ("basis.h", "  constexpr int kRows = kMatrix", "  const int kRows = kMatrix"),
    ("basis.h", "T sum[kPairs + 1], difference[kPairs + 1];", "T sum[kMost], difference[kMost];"),
    ("element.h", "constexpr int kRow = ", "static const int kRow = "),
    ("element.h", "T values[kPoints], none{};", "T values[kMost], none{};"),
    ("element.h", "T first[kPoints];", "T first[kMost];"),
    ("matrix_free_case.cc", "Batch cubes[kCubes * kCube];", "Batch cubes[kCubes * kMost * kMost * (kMost | 1)];"),
]


def main(repeats: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        out, package = place / "built", place / "generic"
        started = time.perf_counter()
        os.environ["DIMORPH_STORE"] = str(place / "store of the build")
        report = KERNEL.build(out, dtype="float64")
        took = time.perf_counter() - started
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        cell = {"what": "build ahead", "cases": 16, "artifacts": len(report.artifacts), "MB": round(size / 1e6, 2)}
        rows.append(Row("matrix_free/ahead", cell, "s", took))
        first = {
            "ours": partial(_first, OURS.format(degree=UNDECLARED), None),
            "built ahead": partial(_first, OURS.format(degree=DECLARED), out),
            "Numba": partial(_first, NUMBA.format(degree=UNDECLARED, threads=len(os.sched_getaffinity(0))), None),
        }
        found = interleaved(first, min(repeats, 5))
        rows.append(Row("matrix_free/first", {"degree": UNDECLARED}, "s", found.pop("ours"), found))
        rows += _speeds(package, repeats)
    write("matrix_free_forms", rows)


def _first(body: str, shared: Path | None) -> float:
    """Return the seconds from the start of a process to its first result, with an empty store and no cache."""
    with tempfile.TemporaryDirectory() as empty:
        env = {**os.environ, "DIMORPH_STORE": f"{empty}/store", "NUMBA_CACHE_DIR": f"{empty}/numba"}
        if shared:
            env |= {"DIMORPH_SHARED_STORES": str(shared), "DIMORPH_POLICY": "aot"}
        return float(python(FIRST.format(root=str(ROOT), src=str(SOURCES.parent), body=body), env=env))


def _speeds(package: Path, repeats: int) -> list[Row]:
    """Measure diffusion at a declared and an undeclared degree, on one thread."""
    os.environ["DIMORPH_NUM_THREADS"] = "1"
    generic = _with_run_time_bounds(package)
    rows = []
    for degree in (7, DECLARED, UNDECLARED):
        size = 2 * round(100 / degree / 2)
        mesh = grid((size,) * 3, bend)
        ours = Operator(mesh, degree, DIFFUSION)
        module = generic.load(dtype="float64", degree=degree, physics=generic.axes[-1].values[1])
        slow = Operator(mesh, degree, DIFFUSION, module=module)
        x = np.random.default_rng(0).standard_normal(ours.unknowns)
        y, z = ours(x), np.empty_like(x)
        assert np.abs(slow(x) - y).max() < 1e-11 * np.abs(y).max()
        mfem = with_mfem(size, degree, "Diffusion")
        calls: dict[str, Any] = {
            "ours": partial(ours, x, y),
            "ours with run-time bounds": partial(slow, x, z),
            "MFEM" if degree < DECLARED else "MFEM's fall-back": mfem.apply,
        }
        times = interleaved({name: partial(_processor_time, call) for name, call in calls.items()}, repeats)
        rates = {name: ours.unknowns / seconds for name, seconds in times.items()}
        declared = "declared" if degree <= DECLARED else "on demand"
        cell = {"physics": "Diffusion", "degree": degree, "form": declared, "threads": 1}
        rows.append(Row("matrix_free/degree", cell, "DoF/s", rates.pop("ours"), rates))
    return rows


def _with_run_time_bounds(package: Path) -> Any:
    """Return the kernel from a copy of its sources whose loops have bounds that the compiler does not know."""
    shutil.copytree(SOURCES, package)
    for name, old, new in RUN_TIME_BOUNDS:
        text = (package / name).read_text()
        assert old in text, f"{name}: no {old!r}"
        (package / name).write_text(text.replace(old, new))
    return next(kernel for kernel in load_kernels(str(package / "__init__.py")) if kernel.name == "matrix_free")


def _processor_time(call: Any) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start
