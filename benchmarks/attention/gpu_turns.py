"""Measure attention on a GPU at two commits in turns: the 18 cells of prefill, and the variants.

python benchmarks/attention/gpu_turns.py OTHER [PATTERN]     # a checkout of the other commit; about four minutes

A process of each checkout keeps its calls ready, and measures one cell when it is asked to; results are checked against
float64 first. PATTERN is a regular expression for the names of cells.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, interleaved, table

# It prints the names of its cells; then, for each name that it reads, the milliseconds of a call.
SERVER = """
import re, sys
import torch
from benchmarks.gpu import cells
from benchmarks.gpu.check import CAUSAL, PLAIN
from dimorph import attention as at

names = {}
for dim in (128, 64, 256):
    for seq in (1024, 4096, 16384):
        for mask, variant, formula in (("full", at.Plain, PLAIN), ("causal", at.Causal, CAUSAL)):
            names[f"prefill {dim} {seq} {mask}"] = (16384 // seq, seq, dim, variant, formula)
for name, (seq, bound, formula, _) in cells.variant_cells(128, 32).items():
    names[f"variant {name}"] = (1, seq, 128, bound, formula)
names = {name: cell for name, cell in names.items() if re.search(sys.argv[1], name)}
print(*names, sep="|", flush=True)
ready = call = None
for line in sys.stdin:
    if line != ready:
        batch, seq, dim, variant, formula = names[line.strip()]
        call = None  # its tensors are freed before the next are made
        tensors = cells.inputs(batch, seq, cells.HEADS[dim], dim)
        call, ready = cells.ours(cells.FAMILIES[0], *tensors, variant, formula), line
    cells.milliseconds(call, 2)
    print(cells.milliseconds(call, 5), flush=True)
"""


class Server:
    """A process of one checkout that measures cells.

    Args:
        root: the checkout.
        pattern: a regular expression for the names of its cells.
        store: its store.
    """

    def __init__(self, root: Path, pattern: str, store: Path) -> None:
        env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}:{os.environ.get('PYTHONPATH', '')}"}
        command = [sys.executable, "-c", SERVER, pattern]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env={**env, "DIMORPH_STORE": str(store)}, **pipes)
        self.cells = self._answer().split("|")

    def milliseconds(self, cell: str) -> float:
        """Return the milliseconds of a call."""
        print(cell, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"a process ended with exit code {self._process.wait()}")
        return line.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the other commit")
    parser.add_argument("pattern", nargs="?", default="", help="which cells (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="turns for each cell (default: 15)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as stores:
        roots = {"ours": ROOT, "other": args.other.resolve()}
        servers = {name: Server(root, args.pattern, Path(stores, name)) for name, root in roots.items()}
        rows = []
        for cell in servers["ours"].cells:
            subjects = {name: partial(server.milliseconds, cell) for name, server in servers.items()}
            for subject in subjects.values():
                subject()
            took = interleaved(subjects, args.repeats)
            rows.append(Row("turns", {"what": cell}, "ms", took.pop("ours"), took))
    table(rows)


if __name__ == "__main__":
    main()
