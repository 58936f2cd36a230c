"""Functions of one kernel that depend on different axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dimorph as dm
from support.kernels import OWN_AXES

pytestmark = pytest.mark.usefixtures("warm_store")

ONE = {"dtype": "float32", "width": 4, "pair": (2, 1), "twice": True, "variant": "Shift"}


def _arrays(*sizes: int, dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    return [np.ones(size, dtype) for size in sizes]


def test_a_specialized_module_checks_only_the_axes_of_the_function() -> None:
    module = OWN_AXES.load(**ONE)
    (x, y) = _arrays(4, 4)
    module.scaled(x, y, 2, 1, True, "Shift")
    assert y.tolist() == [16] * 4
    assert module.total(_arrays(1, 2, 3)) == 6
    with pytest.raises(dm.SpecializationMismatch, match="axis width: the call has 2, this module was compiled for 4"):
        module.scaled(*_arrays(2, 2), 2, 1, True, "Shift")
    with pytest.raises(dm.SpecializationMismatch, match="axis dtype: the call has float64"):
        module.total(_arrays(1, dtype=np.float64))


def test_a_dispatching_module_takes_any_case_for_the_other_axes() -> None:
    module = OWN_AXES.load(pair=[(1, 2), (2, 1)], variant=["Plain", "Shift"])
    for dtype in (np.float32, np.float64):
        assert module.total(_arrays(5, 7, dtype=dtype)) == 12
        x, y = _arrays(2, 2, dtype=dtype)
        module.scaled(x, y, 1, 2)
        assert y.tolist() == [2, 2]
    cases = [one for one in module.resolutions if one.unit.kind == "case"]
    assert len(cases) == 2, "both functions use the case of the first values"


def test_a_late_build_for_one_function_leaves_the_other_as_it_was() -> None:
    module = OWN_AXES.load(dtype="float64", pair=(1, 2), twice=False, variant="Plain")
    total = module.total
    assert total(_arrays(3, dtype=np.float64)) == 3
    x, y = _arrays(3, 3, dtype=np.float64)
    module.scaled(x, y, 1, 2)
    assert y.tolist() == [3, 3, 3]
    assert total(_arrays(3, dtype=np.float64)) == 3


def test_an_item_that_the_case_refuses_is_named() -> None:
    module = OWN_AXES.load(**ONE)
    with pytest.raises(TypeError, match="total: argument 'xs': item 1: expected dtype float32, got float64"):
        module.total([*_arrays(1), *_arrays(1, dtype=np.float64)])
