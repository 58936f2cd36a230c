"""Measure what checks of arrays cost a call, and parallel_for over small bodies beside a loop.

python benchmarks/core/kernel_code.py     # about ten seconds
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.core.kernels import checked, each
from benchmarks.support.rows import Row, interleaved, nanoseconds_each, write


def checks() -> Row:
    module = checked.load(dtype="float32")
    arrays = [np.zeros((2, 3), "float32"), np.zeros((2, 3), "float32"), np.zeros(3, "float32")]
    args = (*arrays, np.zeros((2, 3), "float32"))
    subjects = {name: getattr(module, name) for name in ("checked", "unchecked")}
    found = {name: float("inf") for name in subjects}
    for _ in range(100):  # the least of each, because the difference is below the noise of a median
        for name, call in subjects.items():
            found[name] = min(found[name], nanoseconds_each(call, *args, count=2000))
    each_argument = (found["checked"] - found["unchecked"]) / 4
    print(f"checks of an argument: {each_argument:.1f} ns")
    return Row("cpu/checks", {"args": "four arrays"}, "ns", found["checked"], {"unchecked": found["unchecked"]})


def small_bodies(count: int, grain: int) -> Row:
    x = np.zeros(count, "float32")
    module = each.load(dtype="float32")
    repeat = max(10, 2_000_000 // count)
    found = interleaved(
        {
            "parallel_for": lambda: nanoseconds_each(module.in_parallel, x, grain, count=repeat),
            "loop": lambda: nanoseconds_each(module.in_loop, x, count=repeat),
        },
        11,
    )
    return Row("cpu/small_bodies", {"count": count, "grain": grain}, "ns", found.pop("parallel_for"), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        os.environ["DIMORPH_STORE"] = store
        cells = [(count, grain) for count in (100, 10_000, 1_000_000) for grain in (1, 10_000)]
        write("core", [checks(), *(small_bodies(*cell) for cell in cells)])


if __name__ == "__main__":
    main()
