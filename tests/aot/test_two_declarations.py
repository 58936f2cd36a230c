"""Kernels of one file name and one name, declared in different places and built into one directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import aot, settings
from dimorph.store import manifest
from support.kernels import SCALE

DECLARATION = """
import dimorph as dm

scale = dm.Kernel(
    "scale",
    entry="scale.cc",
    case=["scale_case.cc"],
    axes=[dm.dtype_axis("dtype", "DType", ["float32"]), dm.int_axis("width", "WIDTH", [7])],
)
"""


def declare(directory: Path, note: str, *, package: bool) -> dm.Kernel:
    """Write a kernel's sources, which differ by a note, and return the kernel."""
    shutil.copytree(SCALE.root, directory, ignore=shutil.ignore_patterns("__*", "_dimorph"))
    if package:
        (directory / "__init__.py").touch()
    edit(directory, note)
    return declared(directory)


def edit(directory: Path, note: str) -> None:
    text = (SCALE.root / "scale_case.cc").read_text()
    (directory / "scale_case.cc").write_text(f"{text}\n// {note}\n")


def declared(directory: Path) -> dm.Kernel:
    """Return the kernel as it would be declared by the file in this directory, without importing it."""
    (directory / "kernels.py").write_text(DECLARATION)
    axes = [dm.dtype_axis("dtype", "DType", ["float32"]), dm.int_axis("width", "WIDTH", [7])]
    return replace(SCALE, axes=axes, root=directory, origin=directory / "kernels.py")


Pair = Callable[[str], tuple[dm.Kernel, dm.Kernel]]

PLACES = {
    "packages": ("alpha", "beta", True),
    "packages of one name": ("one/kernels", "two/kernels", True),
    "namespace packages": ("ns/alpha", "ns/beta", False),
    "scripts": ("first", "second", False),
}


@pytest.fixture(params=PLACES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dm.Kernel, dm.Kernel]:
    one, other, package = PLACES[request.param]
    (tmp_path / one).parent.mkdir(exist_ok=True)
    (tmp_path / other).parent.mkdir(exist_ok=True)
    return declare(tmp_path / one, "first", package=package), declare(tmp_path / other, "second", package=package)


def served(kernel: dm.Kernel, out: Path) -> bool:
    config = replace(settings.current(), shared_stores=(out,), store=out.parent / "empty")
    return isinstance(kernel.load(policy="aot", settings=config, dtype="float32", width=7), dm.Module)


def test_both_are_kept(pair: tuple[dm.Kernel, dm.Kernel], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert [kernel.build(out).removed for kernel in pair] == [0, 0]
    assert len(manifest.read(out).kernels) == 2
    coverage = aot.verify(pair, out)
    assert coverage.ok, str(coverage)
    assert len(coverage.covered) == 2
    assert served(pair[0], out) and served(pair[1], out)


def test_each_removes_its_own_outdated_artifacts_only(pair: tuple[dm.Kernel, dm.Kernel], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = pair
    first.build(out)
    second.build(out)
    edit(first.root, "edited")
    assert first.build(out).removed == 1  # the case; both have the same entry
    assert aot.verify(pair, out).ok
    assert served(first, out) and served(second, out)
    edit(second.root, "edited too")
    assert second.build(out).removed == 1
    assert aot.verify(pair, out).ok


def test_a_tree_that_moves_as_a_whole_keeps_its_records(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    kernels = [declare(tree / name, name, package=False) for name in ("first", "second")]
    for kernel in kernels:
        kernel.build(tree / "out")
    tree.rename(tmp_path / "moved")
    moved = [declared(tmp_path / "moved" / name) for name in ("first", "second")]
    edit(moved[0].root, "edited")
    assert moved[0].build(tmp_path / "moved" / "out").removed == 1
    assert aot.verify(moved, tmp_path / "moved" / "out").ok


def test_a_directory_that_moves_alone_is_still_understood(tmp_path: Path) -> None:
    kernel = declare(tmp_path / "first", "first", package=False)
    kernel.build(tmp_path / "out")
    (tmp_path / "far").mkdir()
    (tmp_path / "out").rename(tmp_path / "far" / "away")
    assert aot.verify([kernel], tmp_path / "far" / "away").ok
    assert served(kernel, tmp_path / "far" / "away")
    edit(kernel.root, "edited")
    # Whether another declaration made the earlier artifacts is not known any more, so they stay.
    assert kernel.build(tmp_path / "far" / "away").removed == 0
