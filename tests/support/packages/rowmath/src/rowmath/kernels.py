"""The declarations of the kernels, from which the content of the wheel is derived."""

import dimorph as dm

rms_norm = dm.Kernel(
    name="rms_norm",
    entry="csrc/rms_norm.cc",
    case=["csrc/rms_norm_case.cc"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [64, 128], accepts=lambda width: width % 8 == 0),
    ],
)

row_dot = dm.Kernel(
    name="row_dot",
    entry="csrc/row_dot.cc",
    case=["csrc/row_dot_case.cc"],
    axes=[dm.dtype_axis("dtype", "DType", ["float32", "float64"])],
)
