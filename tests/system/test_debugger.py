"""gdb stops on chosen lines of a debug build, by their real numbers, and steps through them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.skeletons import copy_skeleton, line_of

GDB = shutil.which("gdb")
pytestmark = pytest.mark.skipif(GDB is None, reason="gdb is not installed (apt-get install gdb)")

# The program to debug: it loads the kernel and calls it. It avoids torch, whose symbols take gdb seconds to read.
SCRIPT = """
import sys
sys.modules["torch"] = None
import numpy as np
from skeleton import affine
x, y = np.full((1, 64), 3, np.float32), np.empty((1, 64), np.float32)
affine.load({values}).affine(x, y, 2.0)
print("result", y[0, 0])
"""
MODES = pytest.mark.parametrize("values", ['dtype="float32", head_dim=64', ""], ids=["jit", "aot"])


def _gdb(root: Path, values: str, *commands: str) -> list[str]:
    """Return the output of gdb when it runs the script in a debug build, with a new store."""
    script = root / "script.py"
    script.write_text(SCRIPT.format(values=values))
    environ = {**os.environ, "DIMORPH_DEBUG": "1", "DIMORPH_STORE": str(root / "store"), "DEBUGINFOD_URLS": ""}
    options = [f"--eval-command={command}" for command in ("set breakpoint pending on", *commands)]
    done = subprocess.run(
        [str(GDB), "--batch", "-nx", *options, "--args", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def _stops(output: list[str]) -> list[int]:
    """Return the numbers of the lines that gdb showed as the next to run."""
    return [int(found[1]) for line in output if (found := re.match(r"(\d+)\t", line))]


@MODES
def test_stops_in_a_case_and_steps_line_by_line(values: str, tmp_path: Path) -> None:
    root = copy_skeleton(tmp_path)
    case = root / "affine_case.cc"
    first = line_of(case, "const DType* in = x.data")
    show = ["print scale", "print HEAD_DIM", "print in[0]", "print row", "ptype DType", "info symbol $pc"]
    output = _gdb(
        root, values, f"break affine_case.cc:{first}", "run", "next", "next", "next", *show, "next", "continue"
    )
    text = "\n".join(output)

    # The stop names the combination, the real file and the real line.
    assert re.search(
        rf"Breakpoint 1, affine__float32__64__Scale::affine \(.*\) at {re.escape(str(case))}:{first}$", text, re.M
    )
    # Steps go line by line, and reach the line of the loop after its body.
    names = ["const DType* in = x", "DType* out = y", "const DType scale =", "out[i] = variant", "for (int64_t row"]
    assert _stops(output) == [line_of(case, name) for name in names]
    assert re.search(r"^\$1 = 0\.333333\d*$", text, re.M)  # 1 / rms
    assert re.search(r"^\$2 = 64$", text, re.M)
    assert re.search(r"^\$3 = 3$", text, re.M)
    assert re.search(r"^\$4 = 0$", text, re.M)
    assert "type = float" in output
    assert any(line.startswith("affine__float32__64__Scale::affine(") for line in output)
    assert any(line.startswith("result 1.99") for line in output)


@MODES
def test_steps_into_a_helper_and_a_variant(values: str, tmp_path: Path) -> None:
    root = copy_skeleton(tmp_path)
    variant = line_of(root / "scale.h", "return value * scale; }")
    helper = line_of(root / "affine_case.cc", "DType sum = 0;")
    commands = ["break inverse_rms", f"break scale.h:{variant}", "run", "continue", "print value", "print scale", "up"]
    output = _gdb(root, values, *commands)
    text = "\n".join(output)
    assert "inverse_rms (row=" in text and f"affine_case.cc:{helper}" in text
    assert re.search(
        rf"Breakpoint 2, Scale<.*>::transform \(.*\) at {re.escape(str(root / 'scale.h'))}:{variant}$", text, re.M
    )
    assert "$2 = 2" in output
    assert _stops(output)[-1] == line_of(root / "affine_case.cc", "out[i] = variant.transform")


@MODES
def test_stops_in_an_entry(values: str, tmp_path: Path) -> None:
    root = copy_skeleton(tmp_path)
    entry = root / "affine.cc"
    checks = ["x.expect({rows", "y.expect({rows", "DISPATCH_dtype("]
    lines = [line_of(entry, check) for check in checks]
    output = _gdb(root, values, f"break affine.cc:{lines[0]}", "run", "next", "next", "info args", "backtrace 1")
    text = "\n".join(output)
    assert re.search(rf"Breakpoint 1, affine \(x=.*\) at {re.escape(str(entry))}:{lines[0]}$", text, re.M)
    assert _stops(output) == lines
    assert "function = 0x" in text and '"affine"' in text
    assert re.search(rf"^#0  affine \(.*\) at {re.escape(str(entry))}:{lines[2]}$", text, re.M)
