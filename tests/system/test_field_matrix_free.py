"""The project examples/matrix_free: its tests and linters, its wheel, its GPU kernels on an emulated GPU."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimorph import settings
from support.emulated import GPUS, Emulator, OnGpu, missing
from support.paths import EXAMPLES
from support.projects import SOURCE, check_diagnostics, cpp_lines, edited, inside, linted
from support.wheels import build_wheel, environment_with

PROJECT = EXAMPLES / "matrix_free"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, in which compilers and editors leave files."""
    return Path(shutil.copytree(PROJECT, tmp_path / "matrix_free", ignore=shutil.ignore_patterns("__pycache__", "_*_")))


@pytest.mark.long
def test_its_tests_pass(project: Path, warm_store: Path) -> None:
    assert re.search(r"\d+ passed", inside(project, sys.executable, "-m", "pytest", "-p", "no:cacheprovider"))


def test_the_first_lines_of_its_readme_run(project: Path, warm_store: Path) -> None:
    assert "largest u: 0.0555" in inside(project, sys.executable, "first.py")


def test_linters_find_nothing(project: Path) -> None:
    assert "no issues found" in linted(project, MYPYPATH=os.pathsep.join([str(project / "src"), str(SOURCE)]))


def test_an_editor_underlines_nothing(project: Path) -> None:
    files = edited(project, "matrix_free:KERNEL")
    assert {file.name for file in files} >= {"matrix_free_case.cc", "element.h", "basis.h", "physics.h"}
    check_diagnostics(project, files)


def test_it_is_small(project: Path) -> None:
    assert 300 < cpp_lines(project) < 400


RUN = """
import json, numpy as np, matrix_free as mf
operator = mf.Operator(mf.grid((3, 3, 3)), 2)
volume = float(operator(np.ones(operator.unknowns)).sum())
print(json.dumps([volume, mf.KERNEL.load(degree=2).resolutions[0].place.partition(" ")[0]]))
"""


@pytest.mark.long
def test_its_wheel_runs_without_a_compiler(project: Path, tmp_path: Path) -> None:
    declared, table = project / "src" / "matrix_free" / "__init__.py", project / "pyproject.toml"
    declared.write_text(declared.read_text().replace("list(range(1, 9))", "[2]"))
    level = "x86-64-v3" if os.uname().machine == "x86_64" else "armv8"
    table.write_text(table.read_text().replace("[tool.dimorph]", f'[tool.dimorph]\ntargets = ["{level}"]'))
    environment = environment_with(tmp_path / "environment", build_wheel(project, tmp_path / "store"))
    volume, place = environment.run(RUN, DIMORPH_POLICY="aot")
    assert (volume, place) == (pytest.approx(1.0, abs=1e-12), "packaged")


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("form", ["jit", "aot"])
def test_the_gpu_kernels_agree_with_the_cpu_on_an_emulated_gpu(
    warm_store: Path, emulated_gpus: Emulator, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "src"))
    mf: Any = importlib.import_module("matrix_free")
    config = replace(settings.current(), nvcc=str(emulated_gpus.nvcc), arch="sm_90")
    gpu = [*GPUS].index("sm_90")
    mesh = mf.grid((3, 2, 2), lambda points: points + 0.05 * np.sin(2 * points[:, ::-1]))
    degrees: dict[str, Any] = {"jit": 3, "aot": [1, 3]}
    for physics, dtype in ((mf.DIFFUSION, "float64"), (mf.MASS, "float32")):
        module = mf.GPU_KERNEL.load(settings=config, degree=degrees[form], dtype=dtype, physics=physics)
        of_gpu = mf.Operator(mesh, 3, physics, dtype, to_gpu=lambda array: OnGpu(array, gpu), module=module)
        of_cpu = mf.Operator(mesh, 3, physics, dtype)
        x = np.random.default_rng(0).standard_normal(of_gpu.unknowns).astype(dtype)
        y = np.full_like(x, np.nan)
        of_gpu(OnGpu(x, gpu), OnGpu(y, gpu))
        same = np.empty_like(x)
        same[of_cpu.numbers()] = x[of_gpu.numbers()]
        expected = of_cpu(same)[of_cpu.numbers()]
        bound = {"float32": 1e-5, "float64": 1e-13}[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(y[of_gpu.numbers()], expected, rtol=0, atol=bound)
