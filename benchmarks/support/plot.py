"""The rates of prefill as grouped bars, from the rows that are kept: makes docs/prefill.svg. Needs no GPU.

python benchmarks/support/plot.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import RESULTS, ROOT

BENCH = "gpu/prefill"
OUT = ROOT / "docs" / "prefill.svg"
SUBJECTS = {
    "ours": ("Dimorph", "#1b6ca8"),
    "cudnn": ("cuDNN", "#e0a040"),
    "flashinfer_fa3": ("FlashInfer fa3", "#3c8c5a"),
    "flashinfer_fa2": ("FlashInfer fa2", "#8fbc8f"),
    "torch_flash2": ("torch flash", "#b8b8b8"),
}


def last_rows() -> list[dict[str, Any]]:
    """Of every cell the row that was measured last."""
    found = {}
    for line in (RESULTS / "attention_gpu.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["bench"] == BENCH:
            found[json.dumps(row["cell"], sort_keys=True)] = row
    return list(found.values())


def main() -> None:
    # Text stays text and ids do not change: equal rows make an equal file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "prefill", "font.size": 9})
    rows = last_rows()
    if not rows:
        raise SystemExit(f"no rows of {BENCH} are kept: run attention/gpu.py prefill")
    dims = sorted({row["cell"]["head_dim"] for row in rows})
    figure, axes = pyplot.subplots(len(dims), 1, figsize=(9, 2.6 * len(dims)), sharey=True, layout="constrained")
    for axis, dim in zip(axes, dims, strict=True):
        cells = [row for row in rows if row["cell"]["head_dim"] == dim]
        cells.sort(key=lambda row: (row["cell"]["mask"] != "full", row["cell"]["seq"]))
        subjects = [name for name in SUBJECTS if any(name == "ours" or name in row["peers"] for row in cells)]
        width = 0.8 / len(subjects)
        for place, name in enumerate(subjects):
            label, color = SUBJECTS[name]
            values = [row["ours"] if name == "ours" else row["peers"].get(name, 0.0) for row in cells]
            at = [group + (place - (len(subjects) - 1) / 2) * width for group in range(len(cells))]
            bars = axis.bar(at, values, width * 0.92, label=label, color=color)
            axis.bar_label(bars, [f"{value:.0f}" if value else "" for value in values], fontsize=6)
        labels = [f"{row['cell']['seq'] // 1024}k {row['cell']['mask']}" for row in cells]
        axis.set_xticks(range(len(cells)), labels)
        axis.set_ylabel("TFLOP/s")
        axis.set_title(f"head_dim {dim}, {cells[0]['cell']['heads']} heads, bfloat16", loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    devices = sorted({row["device"] for row in rows})
    commits = sorted({row["commit"] for row in rows})
    figure.supxlabel(f"{', '.join(devices)}; commit {', '.join(commits)}; higher is better", fontsize=8)
    figure.savefig(OUT, metadata={"Date": None})
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
