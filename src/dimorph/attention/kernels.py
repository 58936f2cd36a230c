"""The kernels of the attention library, declared."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm
from dimorph.attention.variants import Causal, FlashSigmoid, Plain

_HERE = Path(__file__).parent


def _head_dims(dims: tuple[int, ...]) -> bool:
    """The registers of a kernel are laid out for multiples of 16; above 256 they no longer hold a row of output."""
    return all(dim % 16 == 0 and 16 <= dim <= 256 for dim in dims)


attention_cpu = dm.Kernel(
    name="attention",
    entry="attention.cc",
    case=("attention_cpu_case.cc",),
    axes=(
        dm.dtype_axis("dtype", "DType", ["float32"]),
        dm.tuple_axis(
            "head_dims", ("HEAD_DIM_QK", "HEAD_DIM_VO"), [(32, 32), (64, 64), (128, 128)], accepts=_head_dims
        ),
        dm.variant_slot("variant", "ATTENTION_VARIANT", default=Plain, values=(Plain, Causal, FlashSigmoid)),
    ),
    root=_HERE / "csrc",
    include_dirs=("../include",),
)
