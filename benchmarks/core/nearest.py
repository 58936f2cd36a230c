"""Measure nearest neighbours on the CPU: examples/nearest beside the same C++ compiled by hand, and beside SciPy.

python benchmarks/core/nearest.py     # two minutes; needs SciPy, pkg-config and nanoflann, one header:
                                      # apt-get install libnanoflann-dev; or unpack that package anywhere, and name the
                                      # directory of a nanoflann.pc that points there in PKG_CONFIG_PATH
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, interleaved, seconds, write

from dimorph.toolchain import flags, targets

sys.path.append(str(ROOT / "examples" / "nearest"))
from nearest import Index

# Points, queries, dimension, neighbours.
CELLS = ((100_000, 100_000, 3, 1), (100_000, 100_000, 3, 8), (50_000, 20_000, 8, 8))
THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each number (default: 15)")
    parser.add_argument("--threads", type=int, default=THREADS, help=f"threads of each (default: {THREADS})")
    args = parser.parse_args()
    os.environ["DIMORPH_NUM_THREADS"] = str(args.threads)
    rows = [_row(*cell, dtype, args.threads, args.repeats) for dtype in ("float32", "float64") for cell in CELLS]
    write("nearest", rows)


def _row(count: int, queries: int, dim: int, k: int, dtype: str, threads: int, repeats: int) -> Row:
    rng = np.random.default_rng(0)
    points, x = (rng.random((number, dim)).astype(dtype) for number in (count, queries))
    index, tree = Index(points), cKDTree(points)
    subjects = {
        "ours": partial(index.query, x, k),
        "by hand": _by_hand(points, x, k, threads),
        "cKDTree": partial(tree.query, x, range(1, k + 1), workers=threads),
    }
    expected = subjects["cKDTree"]()[0]
    for query in subjects.values():
        assert np.allclose(query()[0], expected, rtol=1e-4)
    found = interleaved({name: partial(seconds, query) for name, query in subjects.items()}, repeats)
    cell = {"points": count, "queries": queries, "dim": dim, "k": k, "dtype": dtype, "threads": threads}
    return Row("nearest", cell, "s", found.pop("ours"), found)


def _by_hand(points: np.ndarray, x: np.ndarray, k: int, threads: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return the queries of the C++ beside this file, compiled with the flags that Dimorph gives to GCC."""
    here = subprocess.run(["pkg-config", "--cflags", "nanoflann"], check=True, capture_output=True, text=True)
    element = {"float32": "float", "float64": "double"}[points.dtype.name]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "by_hand.so")
        options = [*flags.COMMON, *flags.RELEASE, *targets.runnable()[0].flags, *here.stdout.split(), "-fopenmp"]
        macros = [f"-DELEMENT={element}", f"-DDIMENSION={points.shape[1]}"]
        source = str(Path(__file__).with_name("nearest_by_hand.cc"))
        subprocess.run(["g++", *options, *macros, "-fvisibility=default", source, "-o", str(out)], check=True)
        library = ctypes.CDLL(str(out))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.build.restype = pointer
    tree = pointer(library.build(pointer(points.ctypes.data), number(len(points))))
    library.query.argtypes = (pointer, pointer, number, number, pointer, pointer, ctypes.c_int)

    def query() -> tuple[np.ndarray, np.ndarray]:
        rows, distances = np.empty((len(x), k), np.int64), np.empty((len(x), k), x.dtype)
        library.query(tree, x.ctypes.data, len(x), k, rows.ctypes.data, distances.ctypes.data, threads)
        return distances, rows

    return query


if __name__ == "__main__":
    main()
