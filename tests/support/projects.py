"""Projects that use Dimorph, as their authors work with them: tests, linters, an editor, a wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

import dimorph as dm
from support.lsp import clangd

BIN = Path(sysconfig.get_path("scripts"))
SOURCE = Path(dm.__file__).parents[1]


def inside(project: Path, *words: str | Path, **env: str) -> str:
    """Run a program in a project, with its package and this Dimorph on the path; return its output."""
    path = os.pathsep.join([str(project / "src"), str(SOURCE)])
    env = {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(SOURCE), **env}
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def linted(project: Path, **env: str) -> str:
    """Check a project with ruff and mypy, neither of which may find anything; return the output of mypy."""
    inside(project, BIN / "ruff", "check", "--no-cache", ".")
    inside(project, BIN / "ruff", "format", "--no-cache", "--check", ".")
    return inside(project, BIN / "mypy", "--cache-dir", os.devnull, **env)


def edited(project: Path, kernels: str) -> set[Path]:
    """Describe kernels for an editor; return the files that it can open."""
    shown = json.loads(inside(project, sys.executable, "-m", "dimorph", "ide", kernels, "--json"))
    return {Path(file) for kernel in shown["kernels"] for file in kernel["files"]}


def check_diagnostics(project: Path, files: Iterable[Path]) -> None:
    """Open files in clangd, which may underline nothing."""
    with clangd(project) as server:
        found = {file.name: server.diagnostics(file) for file in files}
    assert found == {name: [] for name in found}


def cpp_lines(directory: Path) -> int:
    """Return the number of lines of C++ and CUDA below a directory, without blanks and comments."""
    files = [file for file in directory.rglob("*") if file.suffix in {".cc", ".cu", ".h"}]
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    return sum(line != "" and not line.startswith("//") for line in lines)


def wheel_alone(project: Path, out: Path, settings: str = "") -> tuple[list[str], dict[str, str]]:
    """Build a project's wheel for one target, unpack it, and remove the sources.

    Args:
        project: the project, which is changed.
        out: a directory to build and unpack in.
        settings: more lines of its table `tool.dimorph`.

    Returns:
        The names of the wheel's files, and variables with which `inside` finds it and no compiler or store.
    """
    level = "x86-64-v2" if os.uname().machine == "x86_64" else "armv8"
    table = project / "pyproject.toml"
    table.write_text(table.read_text().replace("[tool.dimorph]", f'[tool.dimorph]\ntargets = ["{level}"]\n{settings}'))
    build = ["-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", str(out)]
    inside(project, sys.executable, *build)
    (wheel,) = out.glob("*-0.1.0-py3-none-*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(out / "installed")
        names = archive.namelist()
    for path in (project / "src").rglob("*"):
        if path.is_file():
            path.unlink()
    path = os.pathsep.join([str(out / "installed"), str(SOURCE)])
    nothing = {"PYTHONPATH": path, "PATH": "/nowhere", "DIMORPH_POLICY": "aot", "DIMORPH_STORE": str(out / "none")}
    return names, nothing
