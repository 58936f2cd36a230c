"""Wheels built by a real front end, and virtual environments in which they are installed beside one of Dimorph."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm_ffi

from support.paths import REPOSITORY

EPOCH = 1_700_000_000

# The packages that the new environment gets from the one that runs the tests; none of them is a compiler.
BORROWED = ("tvm_ffi", "numpy", "numpy.libs", "typing_extensions.py")


def build_wheel(project: Path, store: Path) -> Path:
    """Build a project's wheel with `build`, into a directory beside the project."""
    out = project.parent / "dist"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "-o", str(out)]
    env = {**os.environ, "DIMORPH_STORE": str(store), "SOURCE_DATE_EPOCH": str(EPOCH)}
    done = subprocess.run([*command, str(project)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel installed."""

    root: Path
    packages: Path

    def run(self, code: str, **env: str) -> Any:
        """Run code there with an otherwise empty environment; return its last line of output, parsed as JSON."""
        python = self.root / "bin" / "python"
        given = {"PATH": str(python.parent), "HOME": str(self.root / "no-home"), **env}
        done = subprocess.run([python, "-c", code], env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def tree(self) -> dict[str, str]:
        """Return path -> hash of the content for every file of the environment."""
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def environment_with(root: Path, *wheels: Path) -> Environment:
    """Make a virtual environment in a directory, with wheels and one of Dimorph installed."""
    stage = root / "stage"
    ignored = shutil.ignore_patterns("__pycache__", "_dimorph")
    shutil.copytree(REPOSITORY / "src", stage / "src", ignore=ignored)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, stage)
    (stage / "README.md").touch()
    dimorph = build_wheel(stage, root / "no-store")

    venv.create(root / "venv", symlinks=True)
    (packages,) = (root / "venv" / "lib").glob("python*/site-packages")
    borrowed = root / "borrowed"
    borrowed.mkdir()
    for name in BORROWED:
        source = Path(tvm_ffi.__file__).parents[1] / name
        (borrowed / name).symlink_to(source)
    (packages / "borrowed.pth").write_text(f"{borrowed}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(root / "venv"), "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*pip, dimorph, *wheels], check=True)
    return Environment(root / "venv", packages)
