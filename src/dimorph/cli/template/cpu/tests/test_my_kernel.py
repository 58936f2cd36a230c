"""The kernel agrees with NumPy in both forms, and refuses what it cannot compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from my_kernel import KERNEL, SCALE, my_kernel


def rows(dtype: str, width: int) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal((5, width)).astype(dtype)


def expected(x: NDArray[Any], scale: float) -> NDArray[Any]:
    return np.asarray(x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6) * scale)


@pytest.mark.parametrize("form", ["jit", "aot"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [64, 256])
def test_both_forms_agree_with_numpy(form: str, dtype: str, width: int) -> None:
    # One value for every axis, or all declared ones: the same sources, constants or a switch.
    module = KERNEL.load(dtype=dtype, width=width) if form == "jit" else KERNEL.load()
    x = rows(dtype, width)
    y = np.empty_like(x)
    module.my_kernel(x, y, 2.0)
    np.testing.assert_allclose(y, expected(x, 2.0), rtol=1e-5)


def test_the_function_takes_a_variant() -> None:
    x = rows("float32", 64)
    np.testing.assert_allclose(my_kernel(x), expected(x, 1.0), rtol=1e-5)
    np.testing.assert_allclose(my_kernel(x, SCALE(0.5)), expected(x, 0.5), rtol=1e-5)


def test_jit_serves_a_width_that_nobody_declared() -> None:
    x = rows("float32", 80)
    np.testing.assert_allclose(my_kernel(x), expected(x, 1.0), rtol=1e-5)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 'x': expected shape .rows, width."):
        my_kernel(np.ones(64, np.float32))
    with pytest.raises(ValueError, match="argument 'x'"):
        my_kernel(np.ones((64, 5), np.float32).T)
