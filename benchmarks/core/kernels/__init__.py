"""Kernels so small that a benchmark of them measures the core: loads, calls and builds."""

import dimorph as dm

add_scalar = dm.Kernel(
    name="add_scalar",
    entry="add_scalar.cc",
    case=("add_scalar_case.cc",),
    axes=(dm.dtype_axis("dtype", "DType", ["float32", "float64"]),),
)

# 500 declared combinations.
empty = dm.Kernel(
    name="empty",
    entry="empty.cc",
    case=("empty_case.cc",),
    axes=(
        dm.int_axis("first", "FIRST", range(5)),
        dm.int_axis("second", "SECOND", range(10)),
        dm.int_axis("third", "THIRD", range(10)),
    ),
)

wide = dm.Kernel(
    name="wide",
    entry="wide.cc",
    case=("wide_case.cc",),
    axes=(dm.int_axis("value", "VALUE", range(48), accepts=lambda value: value >= 0),),
)

read_all = dm.Kernel(
    name="read_all",
    entry="read_all.cc",
    case=("read_all_case.cc",),
    axes=(dm.dtype_axis("dtype", "DType", ["float32", "bfloat16"]),),
)

gpu_add = dm.Kernel(
    name="gpu_add",
    entry="gpu_add.cc",
    case=("gpu_add_case.cc",),
    device=("gpu_add.cu",),
    archs=("sm_80",),
    axes=(dm.dtype_axis("dtype", "DType", ["float32"]),),
)

# A call with four tensors.
gpu_sum = dm.Kernel(
    name="gpu_sum",
    entry="gpu_sum.cc",
    case=("gpu_sum_case.cc",),
    device=("gpu_sum.cu",),
    archs=("sm_80",),
    axes=(dm.dtype_axis("dtype", "DType", ["float32"]),),
)

each = dm.Kernel(
    name="each",
    entry="each.cc",
    case=("each_case.cc",),
    functions=("in_loop", "in_parallel"),
    axes=(dm.dtype_axis("dtype", "DType", ["float32"]),),
)

checked = dm.Kernel(
    name="checked",
    entry="checked.cc",
    case=("checked_case.cc",),
    functions=("nothing",),
    axes=(dm.dtype_axis("dtype", "DType", ["float32"]),),
)
