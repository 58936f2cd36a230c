"""Fixtures for all tests; they keep tests away from the user's own store and settings."""

from __future__ import annotations

import gc
import logging
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
from dimorph.resolve import dependencies, digests
from dimorph.toolchain import nvidia_driver
from support.compilers import Compiler, counting_compiler
from support.forms import Form
from support.skeletons import copy_skeleton

# One thread for the matrix products of references: idle threads of the pools of NumPy and torch spin, and take the CPUs
# from the other workers of pytest-xdist, which would double the time of a run.
for pool in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(pool, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first: all other workers would wait idly for one that begins last."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Exclude the objects that torch and others made during their import from later garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store for one test, with no other setting in the environment."""
    for name in [name for name in os.environ if name.startswith("DIMORPH_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "store"
    monkeypatch.setenv("DIMORPH_STORE", str(path))
    # OMP_NUM_THREADS above is not meant for the kernels under test.
    monkeypatch.setenv("DIMORPH_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    return path


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Leave the log as it was: settings and options of commands are for a process, which here goes on."""
    top = logging.getLogger("dimorph")
    level, handlers = top.level, top.handlers[:]
    yield
    top.setLevel(level)
    top.handlers[:] = handlers


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the whole run, shared by all worker processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def shared_store(shared_directory: Path) -> Path:
    """The store that is shared by all tests that are not about building."""
    return shared_directory / "warm-store"


@pytest.fixture(scope="session")
def emulator(shared_directory: Path) -> Any:
    """The emulated CUDA toolkit and driver (support/emulator), built once for the whole run."""
    from support.emulated import Emulator  # here, because few tests need it

    return Emulator.build(shared_directory / "emulator")


@pytest.fixture
def emulated_gpus(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the emulator's driver be the driver of this process."""
    monkeypatch.setattr(nvidia_driver, "find", lambda: emulator.driver)
    return emulator


@pytest.fixture(scope="session")
def attend(shared_store: Path) -> at.Attention:
    """Attention with specialized modules."""
    return at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store))


@pytest.fixture
def warm_store(store: Path, shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the shared store in the settings."""
    monkeypatch.setenv("DIMORPH_STORE", str(shared_store))
    return shared_store


@pytest.fixture(params=["jit", "aot"])
def mode(request: pytest.FixtureRequest) -> Form:
    """Run a test body once in each form."""
    return Form(request.param)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[..., dm.Kernel]:
    """Return a function that copies a kernel's sources, to be edited, and declares the kernel for the copy."""

    def copied(kernel: dm.Kernel, where: str = "sources", **changes: Any) -> dm.Kernel:
        root = tmp_path / where
        if not root.exists():
            shutil.copytree(kernel.root, root, ignore=shutil.ignore_patterns("__pycache__", "_dimorph"))
            (root / "declared.py").touch()
        axes = [replace(axis, values=[_moved(value, kernel, root) for value in axis.values]) for axis in kernel.axes]
        rows = kernel.only and [
            {name: _moved(value, kernel, root) for name, value in row.items()} for row in kernel.only
        ]
        moved = {"root": root, "origin": root / "declared.py", "axes": axes, "only": rows}
        return replace(kernel, **{**moved, **changes})

    return copied


def _moved(value: Any, kernel: dm.Kernel, root: Path) -> Any:
    """Return a value for the copy of a kernel: a variant beside the kernel gets the header in the copy."""
    return replace(value, root=root) if isinstance(value, dm.Variant) and value.root == kernel.root else value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the skeleton example."""
    return copy_skeleton(tmp_path)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A compiler that records its compiles."""
    made = counting_compiler(tmp_path)
    monkeypatch.setenv("DIMORPH_CXX", str(made.driver))
    return made


@pytest.fixture
def fresh_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what earlier tests found, and rely on stamps at once, so that a test need not wait for them to settle."""
    monkeypatch.setattr(dependencies, "_known", {})
    monkeypatch.setattr(digests, "_SETTLED", 0)
    monkeypatch.setattr(digests._Recent, "_LASTING", 0.0)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Change the umask until the test ends."""
    before = os.umask(0o022)
    os.umask(before)
    yield lambda mask: os.umask(mask) and None
    os.umask(before)
