"""Fixtures for everybody: no test reads or writes the user's own store or settings."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from support.compilers import Compiler, counting_compiler
from support.forms import Form
from support.skeletons import copy_skeleton

# One thread for the references' matrix products: idle threads of NumPy's and torch's pools spin, and take the processor
# from the other workers of pytest-xdist. Half of the tests' time was that.
for pool in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(pool, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: one that began last would be waited for by workers that have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Leave what torch and others made at import out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own store, still empty; no other setting is in force."""
    for name in [name for name in os.environ if name.startswith("DIMORPH_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "store"
    monkeypatch.setenv("DIMORPH_STORE", str(path))
    return path


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for the whole run, whichever process of pytest-xdist a test is in."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def shared_store(shared_directory: Path) -> Path:
    """The store that all tests share that are not about building."""
    return shared_directory / "warm-store"


@pytest.fixture(scope="session")
def attend(shared_store: Path) -> at.Attention:
    """Attention with specialized modules."""
    return at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store))


@pytest.fixture
def warm_store(store: Path, shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings' store is the shared one."""
    monkeypatch.setenv("DIMORPH_STORE", str(shared_store))
    return shared_store


@pytest.fixture(params=["jit", "aot"])
def mode(request: pytest.FixtureRequest) -> Form:
    """Runs a test body once in each form."""
    return Form(request.param)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[..., dm.Kernel]:
    """Makes a copy of a kernel's sources, to be edited, and declares the kernel for it."""

    def copied(kernel: dm.Kernel, where: str = "sources", **changes: Any) -> dm.Kernel:
        root = tmp_path / where
        if not root.exists():
            shutil.copytree(kernel.root, root, ignore=shutil.ignore_patterns("__pycache__", "_dimorph"))
        axes = [replace(axis, values=[_moved(value, kernel, root) for value in axis.values]) for axis in kernel.axes]
        rows = kernel.only and [
            {name: _moved(value, kernel, root) for name, value in row.items()} for row in kernel.only
        ]
        moved = {"root": root, "origin": root / "declared.py", "axes": axes, "only": rows}
        return replace(kernel, **{**moved, **changes})

    return copied


def _moved(value: Any, kernel: dm.Kernel, root: Path) -> Any:
    """A variant that lies beside the kernel goes with it."""
    return replace(value, root=root) if isinstance(value, dm.Variant) and value.root == kernel.root else value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the skeleton example."""
    return copy_skeleton(tmp_path)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A compiler that notes what it is asked to compile."""
    made = counting_compiler(tmp_path)
    monkeypatch.setenv("DIMORPH_CXX", str(made.driver))
    return made


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Changes the umask until the test ends."""
    before = os.umask(0o022)
    os.umask(before)
    yield lambda mask: os.umask(mask) and None
    os.umask(before)
