"""Builds of CMake packages by the command line, and of the programs that use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import REPOSITORY, SUPPORT

NATIVE = SUPPORT / "native"

LEVELS = ("x86-64-v2", "x86-64-v3") if os.uname().machine == "x86_64" else ("armv8",)


def dimorph(*words: str | Path, store: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dimorph", *map(str, words)]
    path = f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests'}:{os.environ.get('PYTHONPATH', '')}"
    env = {**os.environ, "DIMORPH_STORE": str(store), "PYTHONPATH": path, **more}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def compiled(prefix: Path, build: Path, source: str | Path) -> Path:
    """Compile a program, or a project with one, with CMake, and return the path of the program."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    project, name = (source, "program") if isinstance(source, Path) else (NATIVE, source.partition(".")[0])
    configure = ["cmake", "-S", str(project), "-B", str(build), f"-DCMAKE_PREFIX_PATH={prefix}"]
    if isinstance(source, str):
        configure += [f"-DPACKAGE={prefix.name}", f"-DSOURCES={NATIVE / source}"]
    for command in (configure, ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / name


def run(*command: str | Path, **env: str) -> list[str]:
    """Return the lines that a program prints in an otherwise empty environment."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
