"""The part of matrix_free.py for a GPU: unknowns per second for each degree and number of elements in a block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from benchmarks.fields.matrix_free_counts import instructions
from benchmarks.fields.matrix_free_mesh import bend
from benchmarks.support.limits import gpu_copy_rate
from benchmarks.support.rows import Row, interleaved, write
from matrix_free import DIFFUSION, GPU_KERNEL, KERNEL, MASS, Operator, grid

import dimorph as dm

DEGREES = range(1, 9)
THREADS = (64, 128, 256)  # of a block, about
CASES = [(MASS, "float64"), (DIFFUSION, "float64"), (MASS, "float32"), (DIFFUSION, "float32")]


def main(repeats: int) -> None:
    tiles = {degree: sorted({max(1, threads // (degree + 2) ** 2) for threads in THREADS}) for degree in DEGREES}
    wanted = [(p, t, d, e) for d in DEGREES for p, t in CASES for e in tiles[d]]
    of_cpu = [(p, t, d) for d in DEGREES for p, t in CASES]
    with ThreadPoolExecutor() as pool:
        checks = pool.map(lambda key: _load(KERNEL, *key), of_cpu)
        modules = dict(
            zip(wanted, pool.map(lambda key: _load(GPU_KERNEL, *key[:3], elements=key[3]), wanted), strict=True)
        )
        against = dict(zip(of_cpu, checks, strict=True))
    rate = gpu_copy_rate(torch)
    print(f"{torch.cuda.get_device_name()}: copies {rate / 1e12:.2f} TB/s")
    rows = []
    for degree in DEGREES:
        size = round(({1: 2e6, 2: 4e6}.get(degree, 8e6)) ** (1 / 3) / degree)
        mesh = grid((size,) * 3, bend)
        for dtype in ("float64", "float32"):
            operator = Operator(mesh, degree, MASS, dtype, _to_gpu, modules[MASS, dtype, degree, tiles[degree][0]])
            for physics in (MASS, DIFFUSION):
                of = {e: modules[physics, dtype, degree, e] for e in tiles[degree]}
                for module in of.values():
                    _check(physics, dtype, degree, module, against[physics, dtype, degree])
                rows.append(_row(operator, physics, of, rate, repeats))
    write("matrix_free_gpu", rows)


def _load(kernel: dm.Kernel, physics: dm.Variant, dtype: str, degree: int, **tile: int) -> dm.Module:
    return kernel.load(dtype=dtype, degree=degree, physics=physics, **tile)


def _to_gpu(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).cuda()


def _check(physics: dm.Variant, dtype: str, degree: int, module: dm.Module, against: dm.Module) -> None:
    """Compare a GPU's result with the CPU's on a small mesh."""
    mesh = grid((3, 4, 2), bend)
    ours = Operator(mesh, degree, physics, dtype, _to_gpu, module)
    theirs = Operator(mesh, degree, physics, dtype, module=against)
    values = np.random.default_rng(0).standard_normal(ours.unknowns).astype(dtype)
    x = _to_gpu(values)
    y = ours(x, torch.full_like(x, float("nan"))).cpu().numpy()
    of_cpu = np.empty_like(values)
    of_cpu[theirs.numbers()] = values[ours.numbers()]
    expected = theirs(of_cpu)[theirs.numbers()]
    error = np.abs(y[ours.numbers()] - expected).max() / np.abs(expected).max()
    assert error < {"float64": 1e-12, "float32": 1e-4}[dtype], f"{physics.name} {dtype} {degree}: error {error:.1e}"


def _row(operator: Operator, physics: dm.Variant, modules: dict[int, dm.Module], rate: float, repeats: int) -> Row:
    """Measure a physics in each of its modules, on the arrays of an operator, which serve all of them."""
    degree, dtype, unknowns = operator.degree, operator.dtype.name, operator.unknowns
    x = torch.randn(unknowns, device="cuda", dtype=getattr(torch, dtype))
    arguments = *operator.arrays, x, torch.empty_like(x), degree, physics.name
    calls = {str(e): partial(_seconds, partial(module.apply, *arguments)) for e, module in modules.items()}
    found = interleaved(calls, repeats)
    best = min(found, key=lambda e: found[e])
    moved = 2 * x.nbytes + sum(array.nbytes for array in operator.arrays[:2])  # each read or written once
    slots = {"float64": 17e12, "float32": 33.5e12}[dtype]  # multiply-adds/s of an H200, by NVIDIA's data sheet
    peers = {
        "memory limit": unknowns / (moved / rate),
        "arithmetic limit": unknowns / (operator.mesh.elements * instructions(degree, physics.name) / slots),
    } | {f"{e} elements in a block": unknowns / time for e, time in found.items()}
    cell = {"physics": physics.name, "degree": degree, "dtype": dtype, "unknowns": unknowns, "elements": best}
    name = torch.cuda.get_device_name()
    return Row("matrix_free/gpu", cell, "DoF/s", unknowns / found[best], peers, device=name)


def _seconds(call: object, count: int = 10) -> float:
    """Return the seconds of a call on the GPU, of some in a graph."""
    assert callable(call)
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    graph.replay()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count / 1e3
