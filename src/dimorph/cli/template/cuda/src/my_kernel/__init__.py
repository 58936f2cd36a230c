"""Rows divided by their root mean square, on the GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import dimorph as dm

# The name of this package is that of the kernel and of its files.
KERNEL = dm.Kernel(
    name=__name__,
    device=[f"{__name__}.cu"],  # on the GPU
    archs=["sm_80", "sm_90"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float16", "bfloat16"]),
        # The wheel holds these widths; any other that `accepts` admits is compiled when it comes.
        dm.int_axis("width", "WIDTH", [1024, 4096], accepts=lambda width: width > 0),
    ],
)


@cache
def _loaded() -> dm.Module:
    return KERNEL.load()


def my_kernel(x: Any, out: Any, epsilon: float = 1e-6) -> None:
    """Write x[i, :] / sqrt(mean(x[i, :]^2) + epsilon), computed in float32, to out[i, :], on the current stream.

    Args:
        x: [rows, width], row-major, float32, float16 or bfloat16, on a GPU; of any library that speaks DLPack.
        out: like x.
        epsilon: keeps a row of zeros from a division by zero.

    Raises:
        ValueError, TypeError: an argument is of another shape, layout, device or kind; the message names it.
    """
    _loaded().my_kernel(x, out, epsilon)
