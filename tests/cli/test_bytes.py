"""Paths and sources that are not UTF-8: no command ends with a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.kernels import ROOT

COMMANDS = (
    "build kernels.py:pick --out ahead",
    "verify kernels.py --out ahead",
    "build kernels.py:pick --out _dimorph",
    "explain kernels.py:pick width=1 depth=1",
    "header kernels.py:pick",
    "cache list",
    "cache verify",
    "doctor",
)
KERNELS = """
import dimorph as dm
axes = [dm.int_axis("width", "WIDTH", [1]), dm.int_axis("depth", "DEPTH", [1])]
pick = dm.Kernel(name="pick", entry="pick.cc", case=["pick_case.cc"], axes=axes)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    made.mkdir()
    for name in ("pick.cc", "pick_case.cc"):
        shutil.copy(ROOT / name, made)
    (made / "kernels.py").write_text(KERNELS)
    return made


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_commands_in_a_directory_of_any_bytes(directory: Path, encoding: str) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    for words in COMMANDS:
        command = [sys.executable, "-m", "dimorph", *words.split()]
        done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, check=False)
        assert done.returncode == 0, (words, done.stderr)


def test_a_message_of_a_compiler_of_any_bytes(directory: Path) -> None:
    with (directory / "pick_case.cc").open("ab") as case:
        case.write(b'static_assert(false, "caf\xe9");\n')
    command = [sys.executable, "-m", "dimorph", "build", "kernels.py:pick", "--out", "ahead"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"static assertion failed: caf" in done.stderr
    assert b"Traceback" not in done.stderr
