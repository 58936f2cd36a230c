"""Fixtures for the tests of the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimorph.store.store import Store


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The directory of the files that are published."""
    return tmp_path / "sources"


@pytest.fixture
def store(store: Path) -> Store:
    return Store(store)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory like tmp_path that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="dimorph-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
