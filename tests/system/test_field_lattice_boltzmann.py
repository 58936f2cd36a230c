"""examples/lattice_boltzmann as a project of its own: its tests, its style, an editor, its wheel, an emulated GPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from dimorph.toolchain import nvidia_driver
from support.emulated import GPUS, Emulator, OnGpu, missing
from support.lsp import clangd
from support.paths import REPOSITORY

NAME = "lattice_boltzmann"
PROJECT = REPOSITORY / "examples" / NAME
BIN = Path(sysconfig.get_path("scripts"))
SOURCE = Path(dm.__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, so that nothing is written beside the sources."""
    ignored = shutil.ignore_patterns("__pycache__", "_dimorph", "compile_commands.json", ".*_cache")
    return Path(shutil.copytree(PROJECT, tmp_path / NAME, ignore=ignored))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "src"))
    import lattice_boltzmann

    return lattice_boltzmann


def inside(project: Path, *words: str | Path, **env: str) -> str:
    """Run a program in a project, with its package and this Dimorph on the path; return its output."""
    path = os.pathsep.join([str(project / "src"), str(SOURCE)])
    env = {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(SOURCE), **env}
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_pass(project: Path) -> None:
    shown = inside(
        project, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-m", "not gpu"
    )
    assert re.search(r"\d+ passed", shown) and "warning" not in shown


def test_linters_find_nothing(project: Path) -> None:
    inside(project, BIN / "ruff", "check", "--no-cache", ".")
    inside(project, BIN / "ruff", "format", "--no-cache", "--check", ".")
    assert "no issues found" in inside(project, BIN / "mypy", "--cache-dir", os.devnull)


def test_an_editor_underlines_nothing(project: Path) -> None:
    shown = inside(project, sys.executable, "-m", "dimorph", "ide", NAME, "--json")
    kernels = json.loads(shown)["kernels"]
    # Device code needs a CUDA toolkit there.
    files = {Path(file) for kernel in kernels for file in kernel["files"] if not file.endswith(".cu")}
    assert {file.name for file in files} >= {f"{NAME}.cc", f"{NAME}_case.cc", "cell.h", "collisions.h", "domain.h"}
    with clangd(project) as server:
        assert {file.name: server.diagnostics(file) for file in files} == {file.name: [] for file in files}


@pytest.mark.long
def test_its_wheel_runs_without_a_compiler(project: Path, tmp_path: Path) -> None:
    levels = json.dumps(["x86-64-v2"] if os.uname().machine == "x86_64" else ["armv8"])
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace("[tool.dimorph]", f"[tool.dimorph]\ntargets = {levels}"))
    build = ["-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", str(tmp_path)]
    inside(project, sys.executable, *build)
    (wheel,) = tmp_path.glob(f"{NAME}-0.1.0-py3-none-*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shutil.rmtree(project / "src")
    path = os.pathsep.join([str(tmp_path / "installed"), str(SOURCE)])
    nothing = {"PYTHONPATH": path, "PATH": "/nowhere", "DIMORPH_POLICY": "aot", "DIMORPH_STORE": str(tmp_path / "none")}
    pytest_ = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "vortices_decay_by or conserved"]
    assert "9 passed" in inside(project, sys.executable, *pytest_, **nothing)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_emulated_gpu_computes_what_the_cpu_does(
    package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = Emulator.build(tmp_path / "emulator")
    monkeypatch.setattr(nvidia_driver, "find", lambda: emulator.driver)
    config = replace(settings.current(), nvcc=str(emulator.nvcc), arch="sm_90")
    gpu = [*GPUS].index("sm_90")
    rng = np.random.default_rng(0)
    for shape, model in (((5, 1, 9, 32), package.BGK(0.03)), ((3, 4, 19, 16), package.MRT(0.03, 0.1, 1.2))):
        values = {"dtype": "float64", "directions": shape[2], "collision": model.variant}
        cells = package.zeros((*shape[:2], shape[3]), "uint8")
        cells[...] = np.where(rng.random(cells.shape) < 0.7, 0, rng.integers(0, 4, cells.shape))
        first, second, third, fourth = (package.zeros(shape, "float64") for _ in range(4))
        first[...] = third[...] = 0.01 * rng.standard_normal(shape)
        rest = (0.03, 0.0, 0.01, 3, model.variant.name, *model.args)
        on_gpu = package.GPU_KERNEL.load(settings=config, **values)
        assert on_gpu.advance(OnGpu(first, gpu), OnGpu(second, gpu), OnGpu(cells, gpu), *rest)
        assert package.KERNEL.load(**values).advance(third, fourth, cells, *rest)
        np.testing.assert_allclose(second, fourth, atol=1e-15)
