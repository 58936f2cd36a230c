"""Measure attention on a GPU against the installed peers; results are checked against float64 in the same run.

python benchmarks/attention/gpu.py [PART ...] [--peers NAME,...]

Parts: prefill, variants, small, decode, serving, invariance, append, shared, call, cold, and prebuilt, which needs
neither a GPU nor torch; default: all.
Peers: torch_flash2, cudnn, flashinfer_fa2, flashinfer_fa3, flex; default: those that are installed. FlashInfer compiles
at first use, for each head_dim and variant: fa2 takes 15 seconds and fa3 a minute. With both, all parts take about 20
minutes; without them, or when FlashInfer has compiled before, 5.

Rates count the logits that a mask leaves. The subjects take turns; each sample is a few calls between two CUDA events.
Each row is appended to results/ as soon as it is measured. At the end the table is printed, and the plot is drawn if
matplotlib is installed (later: support/plot.py).
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import Row, append, line, table

PARTS = (
    "prefill",
    "variants",
    "small",
    "decode",
    "serving",
    "invariance",
    "append",
    "shared",
    "call",
    "cold",
    "prebuilt",
)


def measure(part: str, peers: str | None) -> Iterator[Row]:
    if part == "prebuilt":
        from benchmarks.attention.prebuilt import prebuilt

        yield from prebuilt()
        return
    import torch
    from benchmarks.gpu import appending, cells, decode, invariance, serving, sharing
    from benchmarks.gpu import peers as gpu_peers

    chosen = peers.split(",") if peers else gpu_peers.installed()
    if unknown := set(chosen) - set(gpu_peers.NAMES):
        raise SystemExit(f"--peers: expected some of {', '.join(gpu_peers.NAMES)}, got {', '.join(unknown)}")
    parts = {
        "decode": decode.decode,
        "serving": serving.serving,
        "invariance": invariance.invariance,
        "append": appending.appending,
        "shared": sharing.sharing,
    }
    for row in (cells.PARTS | parts)[part](chosen):
        row.device = torch.cuda.get_device_name()
        yield row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--peers", metavar="NAME,...")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
    rows: list[Row] = []
    failed = []
    for part in args.parts or PARTS:
        try:
            for row in measure(part, args.peers):
                print(line(row), flush=True)
                append("attention_gpu", [row])
                rows.append(row)
        except Exception:  # the other parts still run; the exit status is 1
            traceback.print_exc()
            failed.append(part)
    table(rows)
    if find_spec("matplotlib"):
        from benchmarks.support import plot

        plot.main()
    else:
        print("no plot: matplotlib is not installed")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
