"""The smallest kernel: one declaration, used in both forms."""

import numpy as np

import dimorph as dm

row_sum = dm.Kernel(
    name="row_sum",
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [64, 128], accepts=lambda width: width > 0),
    ],
)
x, sums = np.ones((2, 80), np.float32), np.empty(2, np.float32)

exact = row_sum.load(dtype="float32", width=80)  # one value for every axis: both are constants
exact.row_sum(x, sums)
print(exact, sums)

declared = row_sum.load()  # the declared values: chosen at run time, from the arguments
declared.row_sum(x[:, :64].copy(), sums)
print(declared, sums)
