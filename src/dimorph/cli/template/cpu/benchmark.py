"""Time the kernel beside NumPy: python benchmark.py."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from my_kernel import my_kernel


def with_numpy(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6))


def microseconds(run: Callable[[], object]) -> float:
    """Return the best time of a call: what disturbs a measurement only adds to it."""
    run()
    return min(timeit.repeat(run, number=20, repeat=20)) / 20 * 1e6


def main() -> None:
    print(f"{'width':>5} {'kernel':>11} {'NumPy':>11} {'ratio':>7}")
    for width in (64, 256):
        x = np.random.default_rng(0).standard_normal((2**15 // width, width), dtype=np.float32)
        np.testing.assert_allclose(my_kernel(x), with_numpy(x), rtol=1e-4)
        ours = microseconds(partial(my_kernel, x))
        theirs = microseconds(partial(with_numpy, x))
        print(f"{width:5} {ours:8.1f} us {theirs:8.1f} us {theirs / ours:6.1f}x")


if __name__ == "__main__":
    main()
