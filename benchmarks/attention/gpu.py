"""Attention on a GPU beside the peers that are installed, every result checked against float64 in the same run.

python benchmarks/attention/gpu.py [PART ...] [--peers NAME,...]

Parts: prefill, variants, small, call, cold, and prebuilt, which needs neither a GPU nor torch; default: all. Peers:
torch_flash2, cudnn, flashinfer_fa2, flashinfer_fa3, flex; default: those that are installed. FlashInfer compiles at
first use, fa2 a quarter and fa3 a whole minute for each head_dim and variant: with both, all parts take about 20
minutes; without them, or with modules that it has already, 5.

Rates count the logits that a mask leaves. Subjects take turns; each sample is a few calls between two events. Each row
is kept as it comes; the table comes last, and the plot where matplotlib is installed (else: support/plot.py).
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

PARTS = ("prefill", "variants", "small", "call", "cold", "prebuilt")


def measure(part: str, peers: str | None) -> Iterator[Row]:
    if part == "prebuilt":
        from benchmarks.attention.prebuilt import prebuilt

        yield from prebuilt()
        return
    import torch
    from benchmarks.gpu import cells
    from benchmarks.gpu import peers as gpu_peers

    chosen = peers.split(",") if peers else gpu_peers.installed()
    if unknown := set(chosen) - set(gpu_peers.NAMES):
        raise SystemExit(f"--peers: expected some of {', '.join(gpu_peers.NAMES)}, got {', '.join(unknown)}")
    for row in cells.PARTS[part](chosen):
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
        except Exception:  # the other parts are worth having; the exit code tells
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
