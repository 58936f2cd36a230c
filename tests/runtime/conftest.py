"""Fixtures for the tests of calls."""

from __future__ import annotations

import pytest

import dimorph as dm
from support.kernels import ARGUMENTS


@pytest.fixture
def functions(warm_store: object) -> dm.Module:
    """Functions of every kind of argument."""
    return ARGUMENTS.load()
