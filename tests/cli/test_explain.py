"""`dimorph explain`: the artifacts that a load would use, and the differences of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimorph.toolchain import targets
from support.cli import Run
from support.skeletons import declared, replace
from support.store import tree

VALUES = ("dtype=float32", "head_dim=64")
CASE = "affine case (dtype=float32, head_dim=64, variant=Scale)"


def test_explain_before_anything_is_built(run: Run, root: Path, tmp_path: Path, store: Path) -> None:
    result = run("explain", "SPEC", *VALUES)
    assert f"+ {CASE}" in result.stdout and "+ affine entry (dtype=float32" in result.stdout
    assert result.stdout.count("would be compiled by /") == 2
    assert result.stdout.count(f"not packaged ({root / '_dimorph'}): not there") == 2
    assert result.stdout.count(f"not store ({store}): not there") == 2
    assert not list(tmp_path.rglob("*.so"))


def test_explain_says_where_a_load_finds_it(run: Run, root: Path, tmp_path: Path, store: Path) -> None:
    declared(root).load(dtype="float32", head_dim=64)
    before = tree(tmp_path)
    result = run("explain", "SPEC", *VALUES)
    assert f"* {CASE}" in result.stdout
    assert result.stdout.count(f"    store ({store}), for ") == 2
    assert "would be compiled" not in result.stdout
    jit = run("explain", "SPEC", *VALUES, "--policy", "jit")
    assert jit.stdout.count("): policy is jit") == 2
    assert tree(tmp_path) == before


def test_explain_names_the_source_that_changed(run: Run, root: Path) -> None:
    run("build", "SPEC", *VALUES, "--out", str(root / "_dimorph"))
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = 0.0f;")
    shown = run("explain", "SPEC", *VALUES).stdout
    entry, case = shown.split("affine case")
    assert f"packaged ({root / '_dimorph'}), for " in entry and "changed" not in entry
    assert f"not packaged ({root / '_dimorph'}): nothing in it has the key of these sources and values" in case
    assert f"packaged ({root / '_dimorph'}) holds it as " in case
    assert "source changed: affine_case.cc\n" in case


def test_explain_names_changed_flags_targets_and_new_headers(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared(root).load(dtype="float32", head_dim=64)
    with monkeypatch.context() as changed:
        changed.setenv("DIMORPH_CXXFLAGS", "-DMORE")
        assert "flags new: -DMORE\n" in run("explain", "SPEC", *VALUES).stdout
    with monkeypatch.context() as changed:
        changed.setenv("DIMORPH_DEBUG", "1")
        assert "flags gone: -O3 -g0" in run("explain", "SPEC", *VALUES).stdout
    with monkeypatch.context() as changed:
        lowest = targets.levels()[-1].name
        changed.setenv("DIMORPH_TARGET", lowest)
        assert f", now {lowest}\n" in run("explain", "SPEC", *VALUES).stdout
    replace(root / "scale.h", "#pragma once", '#pragma once\n#include "more.h"')
    (root / "more.h").touch()
    shown = run("explain", "SPEC", *VALUES).stdout
    assert "source new: more.h\n" in shown and "source changed: scale.h\n" in shown


def test_explain_says_what_a_place_holds_instead(run: Run, root: Path) -> None:
    run("build", "SPEC", *VALUES, "--out", str(root / "_dimorph"))
    shown = run("explain", "SPEC", "dtype=float32", "head_dim=256").stdout
    assert f"packaged ({root / '_dimorph'}) holds this case for: dtype=float32, head_dim=64, variant=Scale\n" in shown


def test_explain_of_a_load_that_would_fail(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aot = run("explain", "SPEC", *VALUES, "--policy", "aot", code=1)
    command = f"dimorph build {root / 'skeleton.py'}:affine dtype=float32 head_dim=64 variant=Scale"
    assert "x affine entry" in aot.stdout and aot.stdout.count(command) == 2
    monkeypatch.setenv("DIMORPH_CXX", "no-such-compiler")
    none = run("explain", "SPEC", *VALUES, code=1)
    assert "fails: DIMORPH_CXX=no-such-compiler: there is no such program" in none.stdout


def test_explain_against_a_recorded_key(run: Run, root: Path, tmp_path: Path) -> None:
    module = declared(root).load(dtype="float32", head_dim=64)
    entry, case = (resolution.artifact for resolution in module.resolutions)
    assert "the keys are equal" in run("explain", "SPEC", *VALUES, "--against", case.meta.key[:8]).stdout
    replace(root / "affine.cc", "// y[i, j] =", "// y[i,  j] =")
    shown = run("explain", "SPEC", *VALUES, "--against", str(entry.path)).stdout.splitlines()
    assert shown[0].startswith(f"then: {entry.meta.key[:12]} (") and shown[1].startswith("now:  ")
    assert shown[2:] == ["source changed: affine.cc"]
    assert "the keys are equal" in run("explain", "SPEC", *VALUES, "--against", str(case.path)).stdout
    for wrong, message in (("12", "at least 4 digits"), ("0123456789", "found none")):
        assert message in run("explain", "SPEC", *VALUES, "--against", wrong, code=1).stderr
    other = run("explain", "SPEC", "dtype=float64", "--against", str(case.path), code=1)
    assert "head_dim=64, variant=Scale, which is not among the requested values" in other.stderr


def test_explain_against_other_values(run: Run) -> None:
    shown = run("explain", "SPEC", *VALUES, "--against", "head_dim=128").stdout
    assert shown.count("-constexpr int HEAD_DIM = 64;\n") == 2
    assert shown.count("+constexpr int HEAD_DIM = 128;\n") == 2
    assert "source" not in shown and "flags" not in shown
    assert run("explain", "SPEC", *VALUES, "--against", "head_dim=64").stdout.count("the keys are equal") == 2
