"""4,000 random calls, most of them wrong: a right result, or an error that names an argument (attention_fuzz.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.paths import SUPPORT


def test_random_calls_are_right_or_refused_by_name(warm_store: Path) -> None:
    command = [sys.executable, "-m", "support.attention_fuzz", "4000"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended by {done.returncode} at seed {done.stderr[-200:]}"
    counts = {kind: int(number) for kind, number in re.findall(r"'(\w+)': (\d+)", done.stdout)}
    assert set(counts) == {"right", "refused"} and min(counts.values()) > 1000, done.stdout
