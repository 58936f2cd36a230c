"""Declarations of the attention kernels: one for the CPU, one for each GPU family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dimorph as dm
from dimorph.attention.variants import Causal, FlashSigmoid, Plain

_HERE = Path(__file__).parent


class HeadDims(NamedTuple):
    """Head dims that kernels for one kind of device take.

    Attributes:
        most: the largest.
        multiple: what each is a multiple of.
        device: the kind of device, as words for messages.
    """

    most: int
    multiple: int
    device: str

    def fit(self, dims: tuple[int, ...]) -> bool:
        """Tell whether all of some head dims are taken."""
        return all(dim % self.multiple == 0 and 1 <= dim <= self.most for dim in dims)

    def __str__(self) -> str:
        """Return the head dims as words for messages."""
        multiple = f" that is a multiple of {self.multiple}, up to" if self.multiple > 1 else " from 1 to"
        return f"a head dim{multiple} {self.most}, {self.device}"


_GPU_ARCHS = ("sm_80", "sm_90")  # of device code for every GPU

# Dtypes that keys and values of a `KVCache` may have besides that of the queries.
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
# On a CPU, a block of queries and its output fit into the second-level cache.
CPU_HEAD_DIMS = HeadDims(1024, 1, "on the CPU")
# On a GPU, copies are of 16 bytes, and registers hold no longer row of output: of 512 values, a thread would hold 256,
# more registers than it has. Two calls, with v[..., :256] and v[..., 256:], have the same weights, and a kernel of two
# passes would compute the logits twice, too.
GPU_HEAD_DIMS = HeadDims(256, 8, "on a GPU")
GPU_FLOAT8_HEAD_DIMS = HeadDims(256, 16, "on a GPU beside keys and values in float8")


def _tile_keys(values: Mapping[str, Any]) -> int:
    """Choose the number of keys in a tile.

    A tile is long enough that rescaling the output once a tile costs 1/64 of the product, and short enough that the
    weights of a block of queries (12 KB with 16 lanes: floats, or pairs of bfloat16) stay in the first-level cache.
    Single rows have fewer weights; their tile is as long as one prefetch reaches.
    """
    return 128 if values["dtype"] == "bfloat16" and not values["few_queries"] else 64


def _covers(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name the cases that serve until the one for some values is built, besides the same case for a lower level.

    Blocks may have few queries, but are computed slower then. Many queries are not computed one by one instead, as that
    may take longer than the compile; a plan for one kernel over a cache does not fit the other one on a GPU; and
    results that do not depend on the batch are those of one kernel.
    """
    if not values.get("few_queries") or "tile_keys" not in values or values["batch_invariant"]:
        return []
    return [{"few_queries": False}]


def _variants() -> dm.Axis:
    return dm.variant_axis(
        "variant",
        "ATTENTION_VARIANT",
        default=Plain,
        values=(Plain, Causal, FlashSigmoid),
        sizes=("batch", "heads", "kv_heads", "queries", "keys", "*queries", "*keys"),  # see param_checks.h
    )


def _batch_invariant() -> dm.Axis:
    """Return the axis of kernels whose results do not depend on the batch: the caller fixes it (`select.py`)."""
    return dm.flag_axis("batch_invariant", "BATCH_INVARIANT", choose=lambda _: False)


def _kv_dtype(*values: str) -> dm.Axis:
    """Return the axis of the dtype of keys and values: that of the queries, or one of 8 bits."""
    return dm.enum_axis("kv_dtype", "KV_DTYPE", values, cpp_type="::dimorph::attention::KvDtype", header="kv_dtype.h")


def _cpu_kernel(name: str, entry: str, paged: bool) -> dm.Kernel:
    return dm.Kernel(
        name=name,
        entry=f"cpu/{entry}",
        case=("cpu/attention_case.cc",),
        functions=("attention",),
        config="attention_config.h",
        axes=(
            dm.dtype_axis("dtype", "DType", ["float32", "bfloat16", "float16"]),
            dm.tuple_axis(
                "head_dims", ("HEAD_DIM_QK", "HEAD_DIM_VO"), [(32, 32), (64, 64), (128, 128)], accepts=CPU_HEAD_DIMS.fit
            ),
            _kv_dtype("as_q", *FLOAT8) if paged else _kv_dtype("as_q"),
            dm.flag_axis("few_queries", "FEW_QUERIES"),  # see `request.few_queries`
            dm.int_axis("tile_keys", "TILE_KEYS", [32, 64, 128, 256], choose=_tile_keys),
            # Keys may lie in pages, and sequences have lengths apart from their room: others pay nothing for it.
            dm.flag_axis("paged", "PAGED", [paged]),
            _batch_invariant(),
            _variants(),
        ),
        covers=_covers,
        root=_HERE / "csrc",
        include_dirs=("../include",),
        origin=Path(__file__),
    )


attention_cpu = _cpu_kernel("attention", "attention.cc", paged=False)
paged_cpu = _cpu_kernel("attention_paged", "paged.cc", paged=True)

append_cpu = dm.Kernel(
    name="append",
    entry="cpu/append.cc",
    case=("cpu/append_case.cc",),
    axes=(dm.dtype_axis("dtype", "DType", ["float32", "bfloat16", "float16"]), _kv_dtype("as_q", *FLOAT8)),
    covers=_covers,
    root=_HERE / "csrc",
    include_dirs=("../include",),
)

append_gpu = dm.Kernel(
    name="append_gpu",
    entry="gpu/append.cc",
    case=("gpu/append_case.cc",),
    device=("gpu/append.cu",),
    archs=_GPU_ARCHS,
    functions=("append",),
    axes=(dm.dtype_axis("dtype", "DType", ["bfloat16", "float16", "float32"]), _kv_dtype("as_q", *FLOAT8)),
    # No kernel of attention on a GPU reads a cache in float32.
    where=lambda values: values["dtype"] != "float32" or values["kv_dtype"] != "as_q",
    covers=_covers,
    root=_HERE / "csrc",
    include_dirs=("../include",),
)


def _merge_kernel(name: str, device: Sequence[str] = ()) -> dm.Kernel:
    folder = "gpu" if device else "cpu"
    return dm.Kernel(
        name=name,
        entry="merge_states.cc",
        case=(f"{folder}/merge_states_case.cc",),
        device=tuple(device),
        archs=_GPU_ARCHS if device else (),
        functions=("merge_states",),
        config="merge_states_config.h",
        axes=(dm.dtype_axis("dtype", "DType", ["float32", "bfloat16", "float16"]),),
        covers=_covers,
        root=_HERE / "csrc",
        include_dirs=("../include",),
        origin=Path(__file__),
    )


merge_states_cpu = _merge_kernel("merge_states")
merge_states_gpu = _merge_kernel("merge_states_gpu", ["gpu/merge_states.cu"])


class Family(NamedTuple):
    """The kernels of one generation of GPUs.

    Attributes:
        kernel: the declaration.
        capability: the compute capability of the only GPUs that run it; None: all GPUs from 8.0 on.
        paged: the same kernel for keys in pages, and lengths apart from offsets; None: there is none.
        float8: the same for keys and values in float8, in pages or not; None: there is none.
    """

    kernel: dm.Kernel
    capability: tuple[int, int] | None = None
    paged: dm.Kernel | None = None
    float8: dm.Kernel | None = None


def _gpu_kernel(
    family: str,
    archs: Sequence[str],
    head_dims: Sequence[tuple[int, int]],
    paged: bool = False,
    more: Sequence[dm.Axis] = (),
) -> dm.Kernel:
    """Declare the kernel whose sources are the folder of a family in `csrc`.

    Args:
        family: the name of the folder.
        archs: the GPU architectures that the device code is for.
        head_dims: the pairs (head_dim_qk, head_dim_vo) that are built ahead.
        paged: declare the kernel for keys in pages.
        more: further axes of the family.
    """
    scheduled = paged and family == "sm90"  # see csrc/gpu/schedule.h
    folder = family if family == "sm80" else f"{family}/{'paged' if paged else 'dense'}"
    return dm.Kernel(
        name=f"attention_paged_{family}" if paged else f"attention_{family}",
        entry=f"{folder}/{'paged' if paged and not scheduled else 'attention'}.cc",
        case=(f"{folder}/attention_case.cc",),
        device=(f"{family}/attention.cu", "gpu/schedule.cu" if scheduled else "gpu/merge.cu"),
        archs=tuple(archs),
        functions=("plan", "attention") if scheduled else ("attention",),
        config=f"attention_{family}_config.h",
        axes=(
            dm.dtype_axis("dtype", "DType", ["bfloat16", "float16"]),
            dm.tuple_axis("head_dims", ("HEAD_DIM_QK", "HEAD_DIM_VO"), head_dims, accepts=GPU_HEAD_DIMS.fit),
            *more,
            dm.flag_axis("paged", "PAGED", [paged]),
            # Without pages a tile of keys is one piece.
            *([dm.flag_axis(name, name.upper()) for name in ("in_pages", "few_queries")] if scheduled else []),
            _batch_invariant(),
            _variants(),
        ),
        covers=_covers,
        root=_HERE / "csrc",
        include_dirs=(folder, "../include"),
        origin=Path(__file__),
    )


_SM80_DIMS = [(64, 64), (128, 128), (256, 256)]
_AS_Q = _kv_dtype("as_q"), dm.flag_axis("few_rows", "FEW_ROWS", [False])
attention_sm80 = _gpu_kernel("sm80", _GPU_ARCHS, _SM80_DIMS, more=_AS_Q)
paged_sm80 = _gpu_kernel("sm80", _GPU_ARCHS, _SM80_DIMS, paged=True, more=_AS_Q)
float8_sm80 = dm.Kernel(
    name="attention_float8_sm80",
    entry="sm80/float8.cc",
    case=paged_sm80.case,
    device=paged_sm80.device,
    archs=paged_sm80.archs,
    functions=paged_sm80.functions,
    config=paged_sm80.config,
    axes=(
        dm.dtype_axis("dtype", "DType", ["bfloat16", "float16"]),
        dm.tuple_axis("head_dims", ("HEAD_DIM_QK", "HEAD_DIM_VO"), _SM80_DIMS, accepts=GPU_FLOAT8_HEAD_DIMS.fit),
        _kv_dtype(*FLOAT8),
        dm.flag_axis("few_rows", "FEW_ROWS"),  # see `request.few_rows`
        dm.flag_axis("paged", "PAGED", [True]),
        _batch_invariant(),
        _variants(),
    ),
    covers=_covers,
    root=_HERE / "csrc",
    include_dirs=paged_sm80.include_dirs,
    origin=Path(__file__),
)
_SM90_HEAD_DIMS = [(64, 64), (96, 96), (128, 128), (192, 128), (256, 256)]
attention_sm90 = _gpu_kernel("sm90", ["sm_90a"], _SM90_HEAD_DIMS)
paged_sm90 = _gpu_kernel("sm90", ["sm_90a"], _SM90_HEAD_DIMS, paged=True)

# The best for a GPU comes first.
GPU_FAMILIES = {
    "sm90": Family(attention_sm90, (9, 0), paged=paged_sm90),
    "sm80": Family(attention_sm80, paged=paged_sm80, float8=float8_sm80),
}
