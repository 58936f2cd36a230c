"""Measure the flow of examples/lattice_boltzmann beside Numba and lbmpy on the CPU, and beside the limits of memory.

python benchmarks/fields/lattice_boltzmann.py              # about 6 minutes; needs Numba, lbmpy and pystencils
python benchmarks/fields/lattice_boltzmann.py first        # first results and the set built ahead
python benchmarks/fields/lattice_boltzmann.py ghia         # the cavity at Re 100, 400 and 1000 beside published values
python benchmarks/fields/lattice_boltzmann.py gpu          # a GPU, torch with CUDA; under a minute

MLU/s are millions of cells that advance by a step in a second. The limit of memory is what the machine copies in the
same run, for the bytes that a step of all cells moves once: each population is read and written, and the kind is read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support import limits
from benchmarks.support.rows import ROOT, Row, write

sys.path.append(str(ROOT / "examples" / "lattice_boltzmann" / "src"))
import lattice_boltzmann as lbm

THREADS = len(os.sched_getaffinity(0))


def bytes_a_cell(directions: int, dtype: str) -> int:
    """Return the bytes that a step moves for a cell: populations in and out, and the kind."""
    return 2 * directions * np.dtype(dtype).itemsize + 1


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
    cell = {"lattice": f"D{2 if directions == 9 else 3}Q{directions}", "dtype": dtype, "model": model, "block": block}
    cell["cells"] = "x".join(map(str, shape))
    peers = {"copy limit": rate / moved / 1e6, "nominal limit": nominal / moved / 1e6}
    return Row("GPU steps", cell, "MLU/s", updates / 1e6, peers, device=torch.cuda.get_device_name())


PARTS: dict[str, Callable[[], list[Row]]] = {"gpu": gpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="parts; default: all but gpu")
    args = parser.parse_args()
    for part in args.parts or [name for name in PARTS if name != "gpu"]:
        write("lattice_boltzmann", PARTS[part]())


if __name__ == "__main__":
    main()
