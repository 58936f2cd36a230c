"""What limits attention's kernels: the hardware's counters, read by Nsight Compute (`ncu`, which must be on the path).

python benchmarks/gpu/counters.py          # prints a row for each kernel
python benchmarks/gpu/counters.py --keep   # and keeps them in results/gpu_counters.csv

bfloat16, 2 sequences of 8192 tokens. Clocks are left as they are, as for the other benchmarks. Percentages are of what
the unit can do in the cycles in which a multiprocessor works; stalls are cycles that a warp waits, for each
instruction that it issues, by reason, the largest first.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import RESULTS, write_csv

TABLE = RESULTS / "gpu_counters.csv"
CASES = (
    *(("sm90", dim, variant) for dim in (64, 128, 256) for variant in ("plain", "causal")),
    *(("sm90", 128, variant) for variant in ("softcap30", "alibi+causal", "causal+window1024")),
    *(("sm80", dim, variant) for dim in (64, 128, 256) for variant in ("plain", "causal")),
    ("sm80", 128, "softcap30"),
)
COUNTERS = {
    "us": "gpu__time_duration.sum",
    "GHz": "gpc__cycles_elapsed.avg.per_second",
    "tensor_pct": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "issue_pct": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "special_functions_pct": "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",
    "alu_pct": "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active",
    "fma_pct": "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
    "cycles_an_instruction": "smsp__average_warp_latency_per_inst_issued.ratio",
}
_SCALE = {"us": 1e-3, "GHz": 1e-9}
_STALL = ("smsp__average_warps_issue_stalled_", "_per_issue_active.ratio")


def launch_all() -> None:
    """What is looked at: one launch of each case, in their order."""
    from benchmarks.gpu import cells

    for family, dim, name in CASES:
        problem = cells.inputs(2, 8192, cells.HEADS[dim], dim)
        if name in cells.NAMED:
            variant, _ = cells.NAMED[name]()
        else:
            _, variant, _, _ = cells.variant_cells(dim, cells.HEADS[dim])[name]
        cells.ATTEND[family](*problem, variant=variant)
        cells.torch.cuda.synchronize()


def rows() -> Iterator[dict[str, str]]:
    """A row for each case, as text."""
    ncu = shutil.which("ncu")
    if ncu is None:
        raise SystemExit("ncu (Nsight Compute) is not on the path")
    command = [ncu, "--clock-control", "none", "--target-processes", "application-only"]
    command += ["--kernel-name", "attention_forward", "--csv", "--page", "raw", "--print-units", "base"]
    command += ["--section", "WarpStateStats", "--metrics", ",".join(COUNTERS.values())]
    done = subprocess.run([*command, sys.executable, __file__, "--launch"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if done.returncode or start is None:
        raise SystemExit(f"ncu ended with exit code {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    # The second line has the units.
    found = [one for one in csv.DictReader(lines[start:]) if one["ID"]]
    for (family, dim, variant), one in zip(CASES, found, strict=True):
        counters = {name: _number(one[metric]) * _SCALE.get(name, 1.0) for name, metric in COUNTERS.items()}
        row = {"family": family, "head_dim": str(dim), "variant": variant}
        yield row | {name: f"{value:.3g}" for name, value in counters.items()} | {"stalls": _stalls(one)}


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _stalls(one: dict[str, str]) -> str:
    first, last = _STALL
    cycles = {
        name.removeprefix(first).removesuffix(last): _number(value)
        for name, value in one.items()
        if name.startswith(first) and name.endswith(last)
    }
    named = [(value, name) for name, value in cycles.items() if name != "selected" and value >= 0.1]
    return ", ".join(f"{name} {value:.2f}" for value, name in sorted(named, reverse=True))


def main() -> None:
    if "--launch" in sys.argv[1:]:
        launch_all()
        return
    found = list(rows())
    write_csv(sys.stdout, found)
    if "--keep" in sys.argv[1:]:
        with TABLE.open("w", newline="") as file:
            write_csv(file, found)


if __name__ == "__main__":
    main()
