"""Measure examples/matrix_free on the CPU beside libCEED, MFEM and Numba, and on a GPU: unknowns per second.

python benchmarks/fields/matrix_free.py         # operators, beside the peers and the machine's limits
python benchmarks/fields/matrix_free.py forms   # first results, and a degree that nobody declared
python benchmarks/fields/matrix_free.py gpu     # on a GPU; needs torch with CUDA
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["cpu", "forms", "gpu"], default="cpu")
    part = parser.parse_args().part
    if part == "gpu":
        from benchmarks.fields import matrix_free_gpu as script
    script.main()


if __name__ == "__main__":
    main()
