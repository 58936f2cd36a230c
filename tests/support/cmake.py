"""Builds of CMake packages, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.paths import REPOSITORY

LEVELS = ("x86-64-v2", "x86-64-v3") if os.uname().machine == "x86_64" else ("armv8",)


def dimorph(*words: str | Path, store: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dimorph", *map(str, words)]
    path = f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests'}"
    env = {**os.environ, "DIMORPH_STORE": str(store), "PYTHONPATH": path, **more}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)
