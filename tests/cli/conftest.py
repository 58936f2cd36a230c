"""Fixtures for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimorph.store.store import Store
from support.cli import Run, runner
from support.store import publish


@pytest.fixture
def run(root: Path) -> Run:
    return runner(root)


@pytest.fixture
def filled(store: Path, tmp_path: Path) -> Store:
    """The test's store with three artifacts of 1000 bytes, and their descriptions."""
    filled = Store(store)
    for key in (1, 2, 3):
        publish(filled, tmp_path / "sources", key)
    return filled
