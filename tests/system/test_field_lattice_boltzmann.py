"""examples/lattice_boltzmann as a project of its own: its tests, its style, an editor, its wheel, an emulated GPU."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dimorph import settings
from support.emulated import GPUS, Emulator, OnGpu, missing
from support.paths import EXAMPLES
from support.projects import check_diagnostics, edited, inside, linted, wheel_alone

NAME = "lattice_boltzmann"
PROJECT = EXAMPLES / NAME


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


def test_its_tests_pass(project: Path) -> None:
    shown = inside(
        project, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-m", "not gpu"
    )
    assert re.search(r"\d+ passed", shown) and "warning" not in shown


def test_linters_find_nothing(project: Path) -> None:
    assert "no issues found" in linted(project)


def test_an_editor_underlines_nothing(project: Path) -> None:
    # Device code needs a CUDA toolkit there.
    files = {file for file in edited(project, NAME) if file.suffix != ".cu"}
    assert {file.name for file in files} >= {f"{NAME}.cc", f"{NAME}_case.cc", "cell.h", "collisions.h", "domain.h"}
    check_diagnostics(project, files)


@pytest.mark.long
def test_its_wheel_runs_without_a_compiler(project: Path, tmp_path: Path) -> None:
    declared, both = project / "src" / NAME / "__init__.py", '["float32", "float64"]'
    text = declared.read_text()
    assert both in text
    declared.write_text(text.replace(both, '["float64"]'))  # the dtype of the tests below
    _, nothing = wheel_alone(project, tmp_path)
    pytest_ = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "vortices_decay_by or conserved"]
    assert "9 passed" in inside(project, sys.executable, *pytest_, **nothing)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_emulated_gpu_computes_what_the_cpu_does(package: Any, emulated_gpus: Emulator) -> None:
    config = replace(settings.current(), nvcc=str(emulated_gpus.nvcc), arch="sm_90")
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
