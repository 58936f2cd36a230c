"""Random calls, most of them wrong: a right result, or an error that names an argument (support/attention_fuzz*.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.emulated import missing
from support.paths import SUPPORT


def counted(*command: str) -> list[dict[str, int]]:
    """Run random calls in a process of their own; return how many were right and refused, for each family."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ended by {done.returncode} at seed {done.stderr[-200:]}"
    lines = [re.findall(r"'(\w+)': (\d+)", line) for line in done.stdout.splitlines()]
    found = [{kind: int(number) for kind, number in line} for line in lines]
    assert all(set(counts) == {"right", "refused"} for counts in found), done.stdout
    return found


def test_random_calls_are_right_or_refused_by_name(warm_store: Path) -> None:
    (counts,) = counted("support.attention_fuzz", "4000")
    assert min(counts.values()) > 1000


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_random_calls_of_gpu_kernels_on_the_emulator(shared_directory: Path) -> None:
    for counts in counted("support.attention_fuzz_gpu", str(shared_directory), "400"):
        assert min(counts.values()) > 100
