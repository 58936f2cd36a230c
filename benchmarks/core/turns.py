"""Measure the core on the CPU at two commits in turns: first call, store hit, import and calls.

python benchmarks/core/turns.py OTHER     # a checkout of the other commit; about two minutes, on a quiet machine
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, interleaved, python, table

# Each program prints one number. It imports the kernels of its own checkout.
LOAD = """
import time, numpy
{first}
from benchmarks.core.kernels import add_scalar
x = numpy.zeros(1000, "float32")
start = time.perf_counter()
add_scalar.load(dtype="float32").add_scalar(x, 1.0)
print((time.perf_counter() - start) * 1e3)
assert (x == 1).all()
"""
IMPORT = "import time; start = time.process_time(); import dimorph; print((time.process_time() - start) * 1e3)"
CALL = """
import time, numpy, statistics
from benchmarks.core.kernels import add_scalar, empty
x = numpy.zeros(1, "float32")
call = {call}
samples = []
for _ in range(9):
    start = time.perf_counter_ns()
    for _ in range(20000):
        call({arguments})
    samples.append((time.perf_counter_ns() - start) / 20000)
print(statistics.median(samples))
"""
BESIDE = LOAD.format(first="import tvm_ffi")
PROGRAMS = {
    "store hit, tvm-ffi imported": ("ms", BESIDE),
    "store hit, tvm-ffi not imported": ("ms", LOAD.format(first="")),
    "import dimorph, processor time": ("ms", IMPORT),
    "call with one array and one scalar": (
        "ns",
        CALL.format(call='add_scalar.load(dtype="float32").add_scalar', arguments="x, 1"),
    ),
    "empty call over 3 axes, dispatching": ("ns", CALL.format(call="empty.load().empty", arguments="1, 2, 3")),
    "empty call, specialized": (
        "ns",
        CALL.format(call="empty.load(first=1, second=2, third=3).empty", arguments="1, 2, 3"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the other commit")
    parser.add_argument("--repeats", type=int, default=21, help="processes for each number (default: 21)")
    args = parser.parse_args()
    checkouts = {"ours": ROOT, "other": args.other.resolve()}
    with tempfile.TemporaryDirectory() as directory:
        envs = {name: _environment(root, Path(directory, name)) for name, root in checkouts.items()}

        def first_call(name: str) -> float:
            with tempfile.TemporaryDirectory() as store:
                return float(python(BESIDE, env={**envs[name], "DIMORPH_STORE": store}))

        found = {
            "first call, empty store": ("ms", interleaved({n: partial(first_call, n) for n in envs}, args.repeats))
        }
        for what, (unit, program) in PROGRAMS.items():
            runs = {name: partial(_number, program, env) for name, env in envs.items()}
            for run in runs.values():  # compiles what is missing
                run()
            found[what] = (unit, interleaved(runs, args.repeats))
    table([Row("turns", {"what": what}, unit, two.pop("ours"), two) for what, (unit, two) in found.items()])


def _environment(root: Path, store: Path) -> dict[str, str]:
    paths = os.pathsep.join((str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, "PYTHONPATH": paths, "DIMORPH_STORE": str(store)}


def _number(program: str, env: Mapping[str, str]) -> float:
    return float(python(program, env=env))


if __name__ == "__main__":
    main()
