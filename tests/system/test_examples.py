"""Each example runs unchanged; the skeleton's kernel built ahead of time gives the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimorph import settings
from support.dependencies import has_pkg_config
from support.paths import EXAMPLES, PROJECTS, example_files
from support.skeletons import declared

GUIDES = (
    "attention_calls.py",
    "building.py",
    "choices.py",
    "loading.py",
    "serving.py",
    "temperature.py",
    "torch_attention.py",
    "torch_serving.py",
    "transformers_model.py",
    "tree_of_tokens.py",
    "variant_ahead.py",
)
# They need a library of the system.
LIBRARIES = ("library/crc.py",)
ALL = (
    "first/row_sum.py",
    "skeleton/skeleton.py",
    "variant/variant.py",
    "cuda/rms.py",
    "stencil/stencil.py",
    "histogram/histogram.py",
    "nbody/nbody.py",
    *LIBRARIES,
    "handle/tree.py",
    *(f"guides/{n}" for n in GUIDES),
)


@pytest.mark.parametrize("name", ALL)
def test_example_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    if name in LIBRARIES and not has_pkg_config("zlib"):
        pytest.skip("needs pkg-config and zlib: apt-get install pkg-config zlib1g-dev")
    env = {**os.environ, "DIMORPH_STORE": str(tmp_path / "store"), "DIMORPH_POLICY": "jit"}
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_no_example_is_left_out() -> None:
    """One of them has tests of its own, in test_nearest, and each project has."""
    assert {path.relative_to(EXAMPLES).as_posix() for path in example_files()} == {*ALL, "nearest/nearest.py"}
    fields = {path.stem.removeprefix("test_field_") for path in Path(__file__).parent.glob("test_field_*.py")}
    assert {project.name for project in PROJECTS} == fields


def test_the_skeleton_in_both_forms(tmp_path: Path) -> None:
    kernel = declared(EXAMPLES / "skeleton")
    config = replace(settings.current(), store=tmp_path / "store", shared_stores=())
    kernel.build(tmp_path / "ahead", settings=config, head_dim=[64, 80])
    nowhere = replace(config, store=tmp_path / "nowhere", shared_stores=(tmp_path / "ahead",))
    x = np.random.default_rng(0).standard_normal((3, 80), dtype=np.float32)
    just_in_time, ahead = np.empty_like(x), np.empty_like(x)
    kernel.load(policy="jit", settings=config, dtype="float32", head_dim=80).affine(x, just_in_time, 2.0)
    kernel.load(policy="aot", settings=nowhere, head_dim=[64, 80]).affine(x, ahead, 2.0)
    assert np.array_equal(just_in_time, ahead)
    assert not nowhere.store.exists()
