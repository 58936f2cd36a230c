"""The project of examples/path_tracer: its own tests, its looks, its wheel, and its device code on an emulated GPU."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from dimorph.toolchain import nvidia_driver
from support.emulated import GPUS, Emulator, OnGpu, missing
from support.lsp import clangd
from support.paths import EXAMPLES

SOURCE = Path(dm.__file__).parents[1]
PROJECT = EXAMPLES / "path_tracer"
BIN = Path(sysconfig.get_path("scripts"))
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project without what was built in it."""
    ignored = shutil.ignore_patterns("__pycache__", "_dimorph", "compile_commands.json", ".dimorph")
    return Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=ignored))


def inside(project: Path, *words: str | Path, **env: str) -> str:
    """Run a program in the project, with its package and this Dimorph on the path; return its output."""
    path = os.pathsep.join([str(project / "src"), str(SOURCE)])
    env = {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(SOURCE), **env}
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_pass_without_warnings_of_the_compiler(project: Path) -> None:
    # A failed build would be told by a test; the scene that is meant to fail says so whatever the flags.
    shown = inside(project, sys.executable, *PYTEST, DIMORPH_CXXFLAGS="-Werror")
    assert re.search(r"\d+ passed", shown) and "warning" not in shown


def test_linters_find_nothing(project: Path) -> None:
    inside(project, BIN / "ruff", "check", "--no-cache", ".")
    inside(project, BIN / "ruff", "format", "--no-cache", "--check", ".")
    assert "no issues found" in inside(project, BIN / "mypy", "--cache-dir", os.devnull)


def test_the_script_makes_a_picture_and_an_animation(project: Path) -> None:
    small = ["--size", "32", "24", "--samples", "4", "--animation", "turn.png"]
    shown = inside(project, sys.executable, "picture.py", "picture.png", *small, COLUMNS="40")
    assert shown.count("\N{UPPER HALF BLOCK}") >= 32 * 12
    assert (project / "picture.png").read_bytes()[16:24] == b"\0\0\0\x20\0\0\0\x18"
    assert (project / "turn.png").read_bytes().count(b"fcTL") == 24


def test_an_editor_underlines_nothing(project: Path) -> None:
    shown = inside(project, sys.executable, "-m", "dimorph", "ide", "path_tracer.kernels", "--json")
    files = {Path(file) for kernel in json.loads(shown)["kernels"] for file in kernel["files"]}
    assert {file.suffix for file in files} >= {".cc", ".h"}
    with clangd(project) as server:
        assert {file.name: server.diagnostics(file) for file in files} == {file.name: [] for file in files}


def test_it_stays_small() -> None:
    sources = [path for path in (PROJECT / "src").rglob("*") if path.suffix in (".cc", ".cu", ".h")]
    lines = [line.strip() for path in sources for line in path.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith("//")]) < 540


@pytest.mark.long
def test_its_wheel_runs_without_a_compiler(project: Path, tmp_path: Path) -> None:
    levels = json.dumps(["x86-64-v2"] if os.uname().machine == "x86_64" else ["armv8"])
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(
        text.replace("[tool.dimorph]", f"[tool.dimorph]\ntargets = {levels}\narchs = ['sm_90']")
    )
    build = ["-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", str(tmp_path)]
    inside(project, sys.executable, *build)
    (wheel,) = tmp_path.glob("path_tracer-0.1.0-py3-none-*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    for path in (project / "src").rglob("*"):
        if path.is_file():
            path.unlink()
    path = os.pathsep.join([str(tmp_path / "installed"), str(SOURCE)])
    nothing = {"PYTHONPATH": path, "PATH": "/nowhere", "DIMORPH_POLICY": "aot", "DIMORPH_STORE": str(tmp_path / "none")}
    assert re.search(r"\d+ passed", inside(project, sys.executable, *PYTEST, "-k", "not jit", **nothing))


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_emulated_gpu_makes_the_images_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = Emulator.build(tmp_path / "emulator")
    monkeypatch.setattr(nvidia_driver, "find", lambda: emulator.driver)
    monkeypatch.syspath_prepend(str(PROJECT / "src"))
    path_tracer: Any = importlib.import_module("path_tracer")
    config = replace(settings.current(), nvcc=str(emulator.nvcc), arch="sm_90", store=tmp_path / "store")
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
