"""The kernels of the attention library, declared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dimorph as dm
from dimorph.attention.variants import Causal, FlashSigmoid, Plain

_HERE = Path(__file__).parent


def _head_dims(dims: tuple[int, ...]) -> bool:
    """The registers of a kernel are laid out for multiples of 16; above 256 they no longer hold a row of output."""
    return all(dim % 16 == 0 and 16 <= dim <= 256 for dim in dims)


def _tile_keys(values: Mapping[str, Any]) -> int:
    """Keys a tile: long enough that rescaling the output once a tile costs 1/64 of the product, short enough that the
    weights of a block of queries (12 KB with 16 lanes: floats, or pairs of bfloat16) stay in a first-level cache.
    Single rows have fewer weights; their tile is what one prefetch covers.
    """
    return 128 if values["dtype"] == "bfloat16" and not values["few_queries"] else 64


def _variants() -> dm.Axis:
    return dm.variant_axis("variant", "ATTENTION_VARIANT", default=Plain, values=(Plain, Causal, FlashSigmoid))


attention_cpu = dm.Kernel(
    name="attention",
    entry="cpu/attention.cc",
    case=("cpu/attention_case.cc",),
    axes=(
        dm.dtype_axis("dtype", "DType", ["float32", "bfloat16", "float16"]),
        dm.tuple_axis(
            "head_dims", ("HEAD_DIM_QK", "HEAD_DIM_VO"), [(32, 32), (64, 64), (128, 128)], accepts=_head_dims
        ),
        dm.flag_axis("few_queries", "FEW_QUERIES"),  # single rows or blocks of queries, by `ops.few_queries`
        dm.int_axis("tile_keys", "TILE_KEYS", [32, 64, 128, 256], choose=_tile_keys),
        _variants(),
    ),
    root=_HERE / "csrc",
    include_dirs=("../include",),
)

attention_sm80 = dm.Kernel(
    name="attention_sm80",
    entry="sm80/attention.cc",
    case=("sm80/attention_case.cc",),
    device=("sm80/attention.cu", "gpu/merge.cu"),
    archs=("sm_80", "sm_90"),
    functions=("attention",),
    axes=(
        dm.dtype_axis("dtype", "DType", ["bfloat16", "float16"]),
        dm.tuple_axis(
            "head_dims", ("HEAD_DIM_QK", "HEAD_DIM_VO"), [(64, 64), (128, 128), (256, 256)], accepts=_head_dims
        ),
        _variants(),
    ),
    root=_HERE / "csrc",
    include_dirs=("sm80", "../include"),
)

attention_sm90 = dm.Kernel(
    name="attention_sm90",
    entry="sm90/attention.cc",
    case=("sm90/attention_case.cc",),
    device=("sm90/attention.cu", "gpu/merge.cu"),
    archs=("sm_90a",),
    functions=("attention",),
    axes=(
        dm.dtype_axis("dtype", "DType", ["bfloat16", "float16"]),
        dm.tuple_axis(
            "head_dims",
            ("HEAD_DIM_QK", "HEAD_DIM_VO"),
            [(64, 64), (96, 96), (128, 128), (192, 128), (256, 256)],
            accepts=_head_dims,
        ),
        _variants(),
    ),
    root=_HERE / "csrc",
    include_dirs=("sm90", "../include"),
)
