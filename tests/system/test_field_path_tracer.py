"""The project of examples/path_tracer: its own tests, its looks, its wheel, and its device code on an emulated GPU."""

from __future__ import annotations

import importlib
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
from support.projects import check_diagnostics, cpp_lines, edited, inside, linted, wheel_alone

PROJECT = EXAMPLES / "path_tracer"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project without what was built in it."""
    ignored = shutil.ignore_patterns("__pycache__", "_dimorph", "compile_commands.json", ".dimorph")
    return Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=ignored))


def test_its_tests_pass_without_warnings_of_the_compiler(project: Path) -> None:
    # A failed build would be told by a test; the scene that is meant to fail says so whatever the flags.
    shown = inside(project, sys.executable, *PYTEST, DIMORPH_CXXFLAGS="-Werror")
    assert re.search(r"\d+ passed", shown) and "warning" not in shown


def test_linters_find_nothing(project: Path) -> None:
    assert "no issues found" in linted(project)


def test_the_script_makes_a_picture_and_an_animation(project: Path) -> None:
    small = ["--size", "32", "24", "--samples", "4", "--animation", "turn.png"]
    shown = inside(project, sys.executable, "picture.py", "picture.png", *small, COLUMNS="40")
    assert shown.count("\N{UPPER HALF BLOCK}") >= 32 * 12
    assert (project / "picture.png").read_bytes()[16:24] == b"\0\0\0\x20\0\0\0\x18"
    assert (project / "turn.png").read_bytes().count(b"fcTL") == 24


def test_an_editor_underlines_nothing(project: Path) -> None:
    files = edited(project, "path_tracer.kernels")
    assert {file.suffix for file in files} >= {".cc", ".h"}
    check_diagnostics(project, files)


def test_it_stays_small() -> None:
    assert cpp_lines(PROJECT / "src") < 540


@pytest.mark.long
def test_its_wheel_runs_without_a_compiler(project: Path, tmp_path: Path) -> None:
    _, nothing = wheel_alone(project, tmp_path, "archs = ['sm_90']")
    assert re.search(r"\d+ passed", inside(project, sys.executable, *PYTEST, "-k", "not jit", **nothing))


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_emulated_gpu_makes_the_images_of_the_cpu(
    tmp_path: Path, emulated_gpus: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "src"))
    path_tracer: Any = importlib.import_module("path_tracer")
    config = replace(settings.current(), nvcc=str(emulated_gpus.nvcc), arch="sm_90", store=tmp_path / "store")
    gpu = [*GPUS].index("sm_90")
    box, on_gpu = path_tracer.cornell_box(), path_tracer.cornell_box(asarray=lambda table: OnGpu(table, gpu))
    camera = box.camera.array(12, 8)
    for features, scene, other in ((0, box.compiled, on_gpu.compiled), (3, box.listed, on_gpu.listed)):
        values, numbers = {"features": features, "scene": scene.variant}, (0, 8, 5, 8, features, scene.variant.name)
        expected, film = np.zeros((2, 8, 12, 3), np.float32)
        path_tracer.KERNEL.load(settings=config, **values).render(expected, camera, *numbers, *scene.args)
        module = path_tracer.KERNEL_GPU.load(settings=config, **values, split=2)
        module.render(OnGpu(film, gpu), camera, *numbers, *other.args)
        assert expected.any()
        # A path in some hundreds meets another surface, because products are rounded differently.
        assert np.median(abs(film - expected)) < 1e-4
        assert abs(film.mean() / expected.mean() - 1) < 0.02
