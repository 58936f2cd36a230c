"""Fixtures for the tests of the whole system."""

from __future__ import annotations

import pytest

from dimorph.demo.minilm import MiniLM, load_model


@pytest.fixture(scope="session")
def model() -> MiniLM:
    """The model of the demo with its published weights."""
    return load_model()
