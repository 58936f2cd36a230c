"""Type checkers, as users run them over code that uses Dimorph."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.paths import REPOSITORY

# Code of torch and transformers is untyped in places. Of Dimorph itself only types are read, as where it is installed.
MYPY = """
[mypy]
strict = True
disallow_untyped_calls = False
warn_return_any = False
[mypy-dimorph.*]
ignore_errors = True
"""


def mypy(*paths: Path, project: Path, path: Sequence[Path] = ()) -> str:
    """Check files with mypy; return its output. `project` gets its settings, `path` is searched for imports."""
    (project / "mypy.ini").write_text(MYPY)
    env = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, [REPOSITORY / "src", *path]))}
    options = ["--config-file", str(project / "mypy.ini"), "--cache-dir", str(project / "cache")]
    command = [sys.executable, "-m", "mypy", *options, *map(str, paths)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def pyright(*paths: Path, project: Path) -> str:
    """Check files with pyright, copied into `project`; return its output. Skips the test where there is none."""
    program = shutil.which("pyright")
    if program is None:
        pytest.skip("there is no pyright, which needs Node")
    roots = ", ".join(f'"{root}"' for root in [REPOSITORY / "src"])
    (project / "pyrightconfig.json").write_text(f'{{"typeCheckingMode": "standard", "extraPaths": [{roots}]}}')
    for one in paths:  # flat, because examples import from beside them
        if one.parent != project:
            shutil.copy(one, project)
    command = [program, "--pythonpath", sys.executable, "--project", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def refused(output: str) -> set[int]:
    """Return the numbers of the lines that a checker's output calls errors."""
    return {int(line.split(" - ")[0].split(":")[1]) for line in output.splitlines() if "error" in line and ":" in line}


def expected(text: str) -> set[int]:
    """Return the numbers of the lines that are marked `# no`."""
    return {number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# no")}
