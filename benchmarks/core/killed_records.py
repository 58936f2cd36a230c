"""Kill processes that write one record of use, 51 times: nothing that was finished is lost, and the file can be read.

PYTHONPATH=src python benchmarks/core/killed_records.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "store"))
from test_use import killed_writers

if __name__ == "__main__":
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "use.json")
        lines = killed_writers(path, rounds=17, seconds=0.05)
        size = path.stat().st_size
    print(
        f"51 processes killed: {lines} finished lines, all read; {size / 1e6:.0f} MB, {time.monotonic() - began:.0f} s"
    )
