"""Handles: C++ objects that one call makes and later calls use."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from support.forms import Form
from support.kernels import BAG

pytestmark = pytest.mark.usefixtures("warm_store")


@pytest.fixture
def counts() -> np.ndarray:
    """How many bags were made and destroyed; C++ counts in it."""
    return np.zeros(2, np.int64)


def _values(width: int = 3, dtype: str = "float32") -> np.ndarray:
    return np.arange(1, width + 1).astype(dtype)


# --- Made in one call, used in others, destroyed once ---


def test_an_object_lives_from_its_call_to_its_last_reference(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag = module.make(_values(), counts)
    assert module.sum(bag, 1.0) == 6
    assert module.sum(bag, 0.5) == 3
    again = [bag]
    del bag
    assert counts.tolist() == [1, 0]
    assert module.sum(again[0], 1.0) == 6
    again.clear()
    assert counts.tolist() == [1, 1]


def test_each_handle_finds_the_case_that_made_it(counts: np.ndarray) -> None:
    """In turns, so that a place that was remembered for another handle would show."""
    module = BAG.load()
    bags = {
        (dtype, width): module.make(_values(width, dtype), counts)
        for dtype in ("float32", "float64")
        for width in (2, 3)
    }
    for _ in range(2):
        assert [module.sum(bag, 1.0) for bag in bags.values()] == [3, 6, 3, 6]


def test_a_constructor_that_throws_leaves_nothing_to_destroy(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    with pytest.raises(ValueError, match="expected no negative element, got -1"):
        module.make(-_values(), counts)
    gc.collect()
    assert counts.tolist() == [0, 0]
