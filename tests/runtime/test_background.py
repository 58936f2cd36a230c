"""Loads in the background: the caller goes on, and gets the module, or the error, when it is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from support.kernels import SCALE
from support.skeletons import declared
from support.skeletons import replace as replaced

X = np.ones((2, 7), np.float32)


@pytest.fixture
def held(tmp_path: Path, store: Path) -> tuple[dm.Settings, Path]:
    """Settings with a compiler that compiles nothing until a file is there, and that file."""
    go = tmp_path / "go"
    script = tmp_path / "g++"
    wait = f'case "$*" in *-shared*) while [ ! -e {go} ]; do sleep 0.02; done;; esac'
    script.write_text(f'#!/bin/sh\n{wait}\nnice >> {tmp_path / "priorities"}\nexec g++ "$@"\n')
    script.chmod(0o755)
    return replace(settings.current(), cxx=str(script)), go


def scaled(module: dm.Module) -> bool:
    y = np.zeros_like(X)
    module.scale(X, y, 3.0)
    return bool((y == 3).all())


def test_the_caller_goes_on_until_the_module_is_there(held: tuple[dm.Settings, Path]) -> None:
    compiled_late, go = held
    general = SCALE.load()
    assert scaled(general)  # its case is there; a call that needs one that is being compiled waits for it
    future = SCALE.load_in_background(settings=compiled_late, dtype="float32", width=7)
    assert scaled(general) and not future.done() and not future.cancel()
    go.touch()
    module = future.result(timeout=60)
    assert module.instantiations.specialized and scaled(module)


def test_compiles_in_the_background_leave_the_cpus_to_the_caller(held: tuple[dm.Settings, Path]) -> None:
    found, go = held
    go.touch()
    SCALE.load_in_background(settings=found, dtype="float32", width=7).result(timeout=60)
    SCALE.load(settings=found, dtype="float64", width=7)
    own = os.nice(0)
    assert set((go.parent / "priorities").read_text().split()) == {str(own), str(min(own + 10, 19))}


def test_wrong_values_are_refused_at_once(store: Path) -> None:
    with pytest.raises(dm.DeclarationError, match="dtype"):
        SCALE.load_in_background(dtype="float31")
    with pytest.raises(dm.DeclarationError, match="no axis is called 'wide'"):
        SCALE.load_in_background(wide=3)


def test_errors_of_the_load_are_those_of_the_result(store: Path) -> None:
    future = SCALE.load_in_background(policy="aot", dtype="float32", width=7)
    with pytest.raises(dm.MissingSpecialization, match="width=7"):
        future.result(timeout=60)
    with pytest.raises(ValueError, match="policy: expected one of"):
        SCALE.load_in_background(policy="never", width=7).result(timeout=60)


def test_errors_of_an_author_show_no_frames_of_dimorph(store: Path, root: Path) -> None:
    replaced(root / "affine_case.cc", "  Params params{};", "  Params params{}; int nothing = undeclared_name;")
    with pytest.raises(dm.BuildError, match="undeclared_name") as caught:
        declared(root).load_in_background(dtype="float32", head_dim=64).result(timeout=60)
    assert not [frame for frame in traceback.extract_tb(caught.value.__traceback__) if "/dimorph/" in frame.filename]


def test_settings_are_those_of_the_call(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_POLICY", "aot")
    future = SCALE.load_in_background(dtype="float32", width=7)
    monkeypatch.delenv("DIMORPH_POLICY")
    with pytest.raises(dm.MissingSpecialization):
        future.result(timeout=60)


def test_a_process_ends_before_its_load(held: tuple[dm.Settings, Path], store: Path) -> None:
    compiled_late, _ = held
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.kernels import SCALE
SCALE.load_in_background(dtype="float32", width=7)
"""
    env = {**os.environ, "DIMORPH_STORE": str(store), "DIMORPH_CXX": str(compiled_late.cxx)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - start < 30
