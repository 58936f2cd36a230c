"""Measure the flow of examples/lattice_boltzmann beside Numba and lbmpy on the CPU, and beside the limits of memory.

python benchmarks/fields/lattice_boltzmann.py              # about 6 minutes; needs Numba, lbmpy and pystencils
python benchmarks/fields/lattice_boltzmann.py first        # first results and the set built ahead
python benchmarks/fields/lattice_boltzmann.py ghia         # the cavity at Re 100, 400 and 1000 beside published values
python benchmarks/fields/lattice_boltzmann.py gpu          # a GPU, torch with CUDA; under a minute

MLU/s are millions of cells that advance by a step in a second. The copy limit is what one step a pass over memory could
reach at most: what the machine copies in the same run, for the bytes that such a step moves: each population is read
and written, and the kind is read. The kernel advances by four steps a pass, so it may pass that limit; Numba and lbmpy
advance by one. The row "one step a pass" is the kernel with depth=1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import settings

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support import limits
from benchmarks.support.rows import ROOT, Row, interleaved, python, seconds, write

sys.path.append(str(ROOT / "examples" / "lattice_boltzmann" / "src"))
import lattice_boltzmann as lbm
from lattice_boltzmann import cavity

PROJECT = ROOT / "examples" / "lattice_boltzmann"
THREADS = len(os.sched_getaffinity(0))
VISCOSITY = 0.05
OMEGA = 1 / (3 * VISCOSITY + 0.5)
DEPTH = 4  # steps of one call, which the kernel advances by at a time


def bytes_a_cell(directions: int, dtype: str) -> int:
    """Return the bytes that a step moves for a cell: populations in and out, and the kind."""
    return 2 * directions * np.dtype(dtype).itemsize + 1


def directions_of_arrays(count: int) -> Any:
    """Return the directions along x, the middle and the outer axis of the arrays."""
    return lbm.directions(count)[:, [0, 2, 1] if count == 9 else [0, 1, 2]]


def lattice(directions: int) -> str:
    return f"D{2 if directions == 9 else 3}Q{directions}"


# --- Steps on the CPU ---


def steps() -> list[Row]:
    """Measure steps of BGK far beyond the caches, beside Numba, lbmpy and what the machine copies."""
    cells = [(19, "float32", (192, 192, 192)), (19, "float64", (160, 160, 192))]
    cells += [(9, dtype, (3072, 1, 3072)) for dtype in ("float32", "float64")]
    return [_steps_row(*cell) for cell in cells]


def _steps_row(directions: int, dtype: str, shape: tuple[int, int, int]) -> Row:
    first, second = (lbm.zeros((*shape[:2], directions, shape[2]), dtype) for _ in range(2))
    kinds = lbm.zeros(shape, "uint8")
    first[...] = np.random.default_rng(0).normal(0, 1e-4, first.shape[2:])  # every row the same
    count, values = float(np.prod(shape)), {"directions": directions, "dtype": dtype, "collision": lbm.BGK}
    modules = {"ours": lbm.loaded(lbm.BGK), "one step a pass": lbm.KERNEL.load(**values, depth=1)}

    def ours(times: int, name: str = "ours") -> None:
        modules[name].advance(first, second, kinds, 0.0, 0.0, 0.0, times, "BGK", VISCOSITY)

    ours(1)
    expected = _moments(second)
    ours(1, "one step a pass")
    np.testing.assert_allclose(_moments(second), expected, atol=1e-7 if dtype == "float32" else 1e-15)
    subjects: dict[str, Callable[[], float]] = {
        name: partial(lambda name: DEPTH * count / seconds(partial(ours, DEPTH, name)) / 1e6, name) for name in modules
    }
    for name, step in _peers(directions, dtype, first, second, kinds).items():
        np.testing.assert_allclose(_moments(step()), expected, atol=1e-7 if dtype == "float32" else 1e-15)
        subjects[name] = partial(lambda step: count / seconds(step) / 1e6, step)
    moved = bytes_a_cell(directions, dtype)
    subjects["copy limit"] = lambda: limits.copy_rate(THREADS, repeats=2) / moved / 1e6
    found = interleaved(subjects, 9)
    cell = {"lattice": lattice(directions), "dtype": dtype, "cells": "x".join(map(str, shape)), "threads": THREADS}
    return Row("CPU steps", cell, "MLU/s", found.pop("ours"), found)


def _moments(populations: Any) -> Any:
    """Return density, momentum and stress of the first cells, in which all peers must agree."""
    f = np.asarray(populations)[:8]
    c = directions_of_arrays(f.shape[2])
    products = [np.ones(len(c)), *c.T, *(c[:, i] * c[:, j] for i in range(3) for j in range(i + 1))]
    return np.tensordot(np.array(products), f, axes=(1, 2))


def _peers(directions: int, dtype: str, first: Any, second: Any, kinds: Any) -> Mapping[str, Callable[[], Any]]:
    """Return a step of each installed peer, which returns the result; name the others."""
    peers: dict[str, Callable[[], Any]] = {}
    if find_spec("numba"):
        from benchmarks.fields import lattice_boltzmann_numba as numba

        step = numba.make(directions_of_arrays(directions), lbm.weights(directions), dtype, OMEGA)
        peers["numba"] = lambda: (step(first, second, kinds), second)[1]
    if find_spec("lbmpy"):
        from benchmarks.fields import lattice_boltzmann_lbmpy as lbmpy

        for past_cache in (False, True):
            name = "lbmpy, past the cache" if past_cache else "lbmpy"
            peers[name] = lbmpy.make(directions_of_arrays(directions), dtype, OMEGA, first, past_cache=past_cache)
    for name in ("numba", "lbmpy"):
        if not find_spec(name):
            print(f"{name} is not installed, so its rows are missing")
    return peers


# --- Models: declared, of one's own, and the generic paths ---

SMAGORINSKY = dm.Variant(
    "Smagorinsky",
    header="smagorinsky.h",
    root=PROJECT / "tests",
    params=[dm.scalar("viscosity"), dm.scalar("constant")],
)
GENERIC = "lattice_boltzmann_generic.h"
MATRIX = dm.Variant("Matrix", header=GENERIC, params=[dm.tensor("relaxation", "dtype", "directions, directions")])
CHOSEN = dm.Variant(
    "Chosen",
    header=GENERIC,
    params=[dm.scalar("model", "int32"), *(dm.scalar(name) for name in ("viscosity", "magic", "bulk", "ghost"))],
)


def models() -> list[Row]:
    """Measure D3Q19 in float32 with each model, and with the generic paths."""
    return _model_rows((160, 160, 192))


def _model_rows(shape: tuple[int, int, int]) -> list[Row]:
    first, second = (lbm.zeros((*shape[:2], 19, shape[2]), "float32") for _ in range(2))
    kinds, matrix = lbm.zeros(shape, "uint8"), np.eye(19, dtype=np.float32) * np.float32(OMEGA)
    count, bulk, ghost = float(np.prod(shape)), 0.1, 1.2
    bound = {
        "BGK": lbm.BGK(VISCOSITY),
        "TRT": lbm.TRT(VISCOSITY, 3 / 16),
        "MRT": lbm.MRT(VISCOSITY, bulk, ghost),
        "Smagorinsky (on demand)": SMAGORINSKY(VISCOSITY, 0.1),
        "generic: matrix": MATRIX(matrix),
        "generic: BGK chosen by number": CHOSEN(0, VISCOSITY, 3 / 16, bulk, ghost),
        "generic: MRT chosen by number": CHOSEN(2, VISCOSITY, 3 / 16, bulk, ghost),
    }
    calls = 1 if count > 1e6 else 50

    def measure(module: dm.Module, model: dm.BoundVariant) -> float:
        def run() -> None:
            for _ in range(calls):
                module.advance(first, second, kinds, 0.0, 0.0, 0.0, DEPTH, model.variant.name, *model.args)

        return calls * DEPTH * count / seconds(run) / 1e6

    subjects = {name: partial(measure, lbm.loaded(model.variant), model) for name, model in bound.items()}
    for subject in subjects.values():
        subject()
    found = interleaved(subjects, 9)
    where = {"lattice": "D3Q19", "dtype": "float32", "cells": "x".join(map(str, shape)), "threads": THREADS}
    generic = {name: rate for name, rate in found.items() if name.startswith("generic")}
    return [
        Row("CPU models", {"model": name, **where}, "MLU/s", rate, generic)
        for name, rate in found.items()
        if name not in generic
    ]


# --- First results and the set built ahead ---

FIRST = """
import sys, time
sys.path[:0] = sys.argv[1:3]
import numpy as np
"""
OURS = """
import lattice_boltzmann as lbm
import dimorph as dm
model = lbm.BGK(0.05)
if sys.argv[3] == "own":
    params = [dm.scalar("viscosity"), dm.scalar("constant")]
    model = dm.Variant("Smagorinsky", header="smagorinsky.h", root=sys.argv[4], params=params)(0.05, 0.1)
flow = lbm.Flow((64, 64, 64), model)
flow.advance(1)
print(abs(flow.populations).max())
"""
NUMBA = """
import lattice_boltzmann as lbm
from benchmarks.fields import lattice_boltzmann_numba as numba
f, g = lbm.zeros((64, 64, 19, 64), "float32"), lbm.zeros((64, 64, 19, 64), "float32")
kinds = lbm.zeros((64, 64, 64), "uint8")
numba.make(lbm.directions(19), lbm.weights(19), "float32", 1.5)(f, g, kinds)
print(abs(g).max())
"""
LBMPY = """
import lattice_boltzmann as lbm
from benchmarks.fields import lattice_boltzmann_lbmpy as lbmpy
lbmpy.make(lbm.directions(19), "float32", 1.5, lbm.zeros((64, 64, 19, 64), "float32"), past_cache=True)()
print(0.0)
"""


def first() -> list[Row]:
    """Measure a new process up to its first result, 64^3 cells of D3Q19, with empty caches; and the set built ahead."""
    with tempfile.TemporaryDirectory() as place:
        ahead = Path(place, "ahead")
        build = seconds(
            lambda: lbm.KERNEL.build(ahead, settings=replace(settings.current(), store=Path(place, "store")))
        )
        size = sum(file.stat().st_size for file in ahead.rglob("*.so"))
        cases = sum(1 for _ in lbm.KERNEL.instantiations())

        def run(code: str, *words: str, **env: str) -> float:
            with tempfile.TemporaryDirectory() as empty:
                places = {
                    "DIMORPH_STORE": f"{empty}/store",
                    "HOME": empty,
                    "NUMBA_CACHE_DIR": empty,
                    "DIMORPH_LOG": "off",
                }
                every = {**os.environ, **places, "PYTHONPATH": str(ROOT / "src"), **env}
                paths = str(PROJECT / "src"), str(ROOT)
                return seconds(lambda: python(FIRST + code, *paths, *words, env=every))

        subjects = {
            "declared, built ahead": partial(run, OURS, "declared", DIMORPH_SHARED_STORES=str(ahead)),
            "declared, compiled": partial(run, OURS, "declared"),
            "own model, compiled": partial(run, OURS, "own", str(PROJECT / "tests")),
        }
        ours = list(subjects)
        subjects |= {"numba": partial(run, NUMBA)} if find_spec("numba") else {}
        subjects |= {"lbmpy": partial(run, LBMPY)} if find_spec("lbmpy") else {}
        found = interleaved(subjects, 3)
    peers = {name: value for name, value in found.items() if name not in ours}
    rows = [Row("first result", {"model": name}, "s", found[name], peers) for name in ours]
    what = {"cases": cases, "kernel": "CPU"}
    return [*rows, Row("set built ahead", what, "s", build), Row("set built ahead", what, "kB", size / 1024)]


# --- The cavity ---


def ghia() -> list[Row]:
    """Compute cavities until they are steady; keep the largest difference from published velocities, of the lid's."""
    rows = []
    for cells, reynolds, turns in ((128, 100, 15), (128, 400, 40), (256, 1000, 60)):
        flow = cavity.cavity(cells, reynolds)
        flow.advance(turns * cells * 10)  # turns: times that the lid passes over the cavity
        found = cavity.profiles(flow)
        published = {"Ghia 1982": cavity.GHIA[reynolds]} | (
            {"Botella 1998": cavity.BOTELLA} if reynolds == 1000 else {}
        )
        for source, profile in published.items():
            cell = {"cells": f"{cells}x{cells}", "Re": reynolds, "source": source}
            rows.append(Row("cavity", cell, "of lid", found.difference(profile)))
    return rows


# --- GPU ---

NOMINAL = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.04e12}  # bytes a second, from NVIDIA's data sheets


def gpu() -> list[Row]:
    """Measure steps on the current GPU, for each lattice, precision, model and size of a block."""
    import torch

    rate = limits.gpu_copy_rate(torch)
    name = torch.cuda.get_device_name()
    nominal = next((rate for chip, rate in NOMINAL.items() if chip in name), rate)
    cells = [("float32", (256, 256, 256), "BGK", block) for block in (64, 128, 256)]
    cells += [("float32", (512, 512, 512), "BGK", block) for block in (64, 128, 256, 512)]
    cells += [("float64", (256, 256, 256), "BGK", 128), ("float64", (384, 384, 384), "BGK", 128)]
    cells += [("float32", (512, 512, 512), model, 128) for model in ("TRT", "MRT")]
    cells += [(dtype, (8192, 1, 8192), "BGK", 128) for dtype in ("float32", "float64")]
    return [_gpu_row(torch, *cell, rate, nominal) for cell in cells]


def _gpu_row(
    torch: Any, dtype: str, shape: tuple[int, ...], model: str, block: int, rate: float, nominal: float
) -> Row:
    directions = 9 if shape[1] == 1 else 19
    collision = {"BGK": lbm.BGK(0.05), "TRT": lbm.TRT(0.05, 3 / 16), "MRT": lbm.MRT(0.05, 0.1, 1.2)}[model]
    module = lbm.GPU_KERNEL.load(dtype=dtype, directions=directions, collision=collision.variant, block=block)
    first = torch.rand((*shape[:2], directions, shape[2]), device="cuda", dtype=getattr(torch, dtype)).mul_(1e-3)
    second, kinds = torch.empty_like(first), torch.zeros(shape, device="cuda", dtype=torch.uint8)
    mass = float(first.sum(dtype=torch.float64))
    steps = 10

    def advance() -> None:
        assert not module.advance(first, second, kinds, 0.0, 0.0, 0.0, steps, model, *collision.args)

    advance()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        advance()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / steps)
    updates = float(np.prod(shape)) / float(np.median(times))
    changed = abs(float(first.sum(dtype=torch.float64)) - mass) / mass
    assert changed < 1e-4, f"mass changed by {changed}"
    moved = bytes_a_cell(directions, dtype)
    cell = {"lattice": lattice(directions), "dtype": dtype, "model": model, "block": block}
    cell["cells"] = "x".join(map(str, shape))
    peers = {"copy limit": rate / moved / 1e6, "nominal limit": nominal / moved / 1e6}
    return Row("GPU steps", cell, "MLU/s", updates / 1e6, peers, device=torch.cuda.get_device_name())


PARTS: dict[str, Callable[[], list[Row]]] = {"steps": steps, "models": models, "first": first, "ghia": ghia, "gpu": gpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="parts; default: all but gpu")
    args = parser.parse_args()
    for part in args.parts or [name for name in PARTS if name != "gpu"]:
        write("lattice_boltzmann", PARTS[part]())


if __name__ == "__main__":
    main()
