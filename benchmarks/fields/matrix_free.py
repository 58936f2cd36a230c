"""Measure examples/matrix_free: unknowns per second of its operators, beside peers and the machine's limits.

python benchmarks/fields/matrix_free.py         # on the CPU, beside libCEED, MFEM and Numba; about five minutes
python benchmarks/fields/matrix_free.py forms   # first results, and a degree that nobody declared; about two minutes
python benchmarks/fields/matrix_free.py gpu     # on a GPU; needs torch with CUDA, and no peer; about a minute

The peers are `pip install numba libceed mfem`. The wheels of libCEED and MFEM are built for one thread, so they are
compared with one thread: --threads 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])
sys.path.append(str(Path(__file__).parents[2] / "examples" / "matrix_free" / "src"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["cpu", "forms", "gpu"], default="cpu")
    parser.add_argument("--degrees", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--unknowns", type=float, default=1e6, help="about (default: 1e6)")
    parser.add_argument("--threads", type=int, default=1, help="of ours and Numba (default: 1)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each number (default: 7)")
    args = parser.parse_args()
    if args.part == "gpu":
        from benchmarks.fields.matrix_free_gpu import main as on_gpu

        on_gpu(args.repeats)
    elif args.part == "forms":
        from benchmarks.fields.matrix_free_forms import main as in_both_forms

        in_both_forms(args.repeats)
    else:
        from benchmarks.fields.matrix_free_cpu import main as on_cpu

        on_cpu(args.degrees, args.unknowns, args.threads, args.repeats)


if __name__ == "__main__":
    main()
