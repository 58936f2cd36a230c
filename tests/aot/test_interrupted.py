"""Builds on executors that are interrupted or killed: they end soon, and the next one goes on where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.compilers import counting_compiler

# The compile of one case takes a minute, while there is a file beside the compiler. Its name is not written out,
# because a file that a compiler's script names belongs to what it reads.
SLOW = """
for word; do case "$word" in *case_unit.cc)
  if ls "${0%/*}" | grep -q "sl.w" && grep -q "head_dim=256" "$word"; then sleep 60; fi;;
esac; done
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_goes_on_where_it_was(
    number: signal.Signals, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    compiler = counting_compiler(tmp_path, before=SLOW)
    monkeypatch.setenv("DIMORPH_CXX", str(compiler.driver))
    monkeypatch.setenv("DIMORPH_JOBS", "2")
    slow.touch()
    values = ["dtype=float32", "head_dim=64,256"]
    build = [
        sys.executable,
        "-m",
        "dimorph",
        "build",
        str(root / "skeleton.py"),
        *values,
        "--out",
        str(tmp_path / "out"),
    ]
    build += ["--executor", "concurrent.futures:ThreadPoolExecutor"]
    with subprocess.Popen(build, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        assert running.stderr
        for line in running.stderr:
            if line.startswith("[2/3]"):
                break
        began = time.monotonic()
        os.kill(running.pid, number)
        running.wait(timeout=20)
    assert time.monotonic() - began < 10
    assert running.returncode in (1, -number)
    assert len(compiler.compiled()) == 2
    slow.unlink()
    done = subprocess.run(build, capture_output=True, text=True, check=True)
    assert "1 compiled, 2 reused" in done.stdout
    assert sorted(compiler.compiled()) == ["case_unit.cc", "case_unit.cc", "entry_unit.cc"]
