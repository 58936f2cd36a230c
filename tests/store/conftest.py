"""Fixtures for the tests of the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimorph.store.store import Store


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Where the files lie that are published."""
    return tmp_path / "sources"


@pytest.fixture
def store(store: Path) -> Store:
    return Store(store)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Like tmp_path, but where other users can get."""
    with tempfile.TemporaryDirectory(prefix="dimorph-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
