"""Rows divided by their root mean square."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import dimorph as dm
import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", np.float32, np.float64)

SCALE = dm.Variant("Scale", header="variants.h", params=[dm.scalar("scale")])
PLAIN = SCALE(1.0)

# The name of this package is that of the kernel and of its files.
KERNEL = dm.Kernel(
    name=__name__,
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        # The wheel holds these widths; any other that `accepts` admits is compiled when it comes.
        dm.int_axis("width", "WIDTH", [64, 256], accepts=lambda width: width > 0 and width % 16 == 0),
        dm.variant_axis("variant", "VARIANT", default=SCALE),
    ],
)


@cache
def _loaded(variant: dm.Variant) -> dm.Module:
    return KERNEL.load(variant=variant)


def my_kernel(x: NDArray[Float], variant: dm.BoundVariant = PLAIN) -> NDArray[Float]:
    """Return x[i, :] / sqrt(mean(x[i, :]^2) + 1e-6), each element transformed by the variant.

    Args:
        x: [rows, width], row-major; the width is a multiple of 16.
        variant: default: `SCALE(1.0)`, which leaves the elements as they are.

    Raises:
        ValueError, TypeError: an argument is of another shape, layout or kind; the message names it.
    """
    y = np.empty(x.shape, x.dtype)
    _loaded(variant.variant).my_kernel(x, y, *variant.args)
    return y
