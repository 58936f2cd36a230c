"""The arguments and the request of a call of attention, and the checks that the kernel's entry does not do."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import dimorph as dm
from dimorph.attention.arrays import Library, describe, libraries, requires_grad
from dimorph.attention.cache import KVCache, in_pages, kv_dtype

_BoundVariant, _Variant = dm.BoundVariant, dm.Variant
_FEW_QUERIES = 32  # of a sequence: csrc/cpu/kinds.h
_FEW_ROWS = 16  # of a KV head's queries: csrc/sm80/config.h


class Request(NamedTuple):
    """The kernel that a call asks for.

    Attributes:
        variant: the name of the variant to compute.
        dtype: the dtype of q, as its library has it.
        head_dim_qk, head_dim_vo: sizes of the last dimensions of q and v.
        gpu: ordinal of the GPU that q lies on; None: q lies on the CPU.
        few_queries: on the CPU, True for a kernel that computes single rows of queries, False for blocks of them. On a
            GPU of 9.0, True for a kernel over a cache with smaller tiles.
        paged: True for a kernel that takes keys in pages, and lengths apart from the room of sequences.
        in_pages: True if keys lie in pages. Kernels for a GPU of 9.0 differ in it.
        kv_dtype: "as_q", or the name of the dtype of 8 bits that keys and values have. Beside it, few_queries on a GPU
            is True for a kernel whose blocks compute few rows, see `few_rows`.
        batch_invariant: True for a kernel whose results do not depend on the batch.
    """

    variant: str
    dtype: Any
    head_dim_qk: int
    head_dim_vo: int
    gpu: int | None
    few_queries: bool
    paged: bool = False
    in_pages: bool = False
    kv_dtype: str = "as_q"
    batch_invariant: bool = False


class CachedCall(NamedTuple):
    """The arguments of a call with a `KVCache`; see `attention`."""

    q: Any
    cache: KVCache
    variant: dm.Variant | dm.BoundVariant
    scale: float | None
    cu_seqlens_q: Any
    seqlens_q: Any
    max_seqlen_q: int | None
    max_seqlen_k: int | None
    out: Any
    return_lse: bool
    lse: Any
    workspace: Any
    stream: Any
    batch_invariant: bool = False
    planned: bool = False  # the workspace holds a schedule
    direct: bool = False  # the caller is a torch operator


def request_of(
    variant: dm.Variant,
    q: Any,
    v: Any,
    gpu: int | None,
    few_queries: bool,
    cache: KVCache | None = None,
    batch_invariant: bool = False,
) -> Request:
    """Return the request of a call, which may have a cache.

    Raises:
        ValueError: q or v does not have 3 or 4 dimensions.
    """
    dims = shape_of(q, "q")[-1], shape_of(v, "v")[-1]
    if cache is None:
        return Request(variant.name, q.dtype, *dims, gpu, few_queries)
    pages, stored = in_pages(cache), kv_dtype(cache)
    return Request(variant.name, q.dtype, *dims, gpu, few_queries, True, pages, stored, batch_invariant)


def validate(
    library: Library, q: Any, k: Any, v: Any, variant: dm.Variant | dm.BoundVariant, cu_seqlens_q: Any
) -> tuple[dm.Variant, tuple[Any, ...]]:
    """Check those arguments of `attention` that the kernel's entry cannot check.

    Returns:
        The variant and the values of its parameters.

    Raises:
        TypeError, ValueError, RuntimeError: see `attention`.
    """
    args: tuple[Any, ...] = ()
    if type(variant) is _BoundVariant:
        args = variant.args
        variant = variant.variant
    elif type(variant) is not _Variant or variant.params:
        bound = bind(variant)
        args = bound.args
        variant = bound.variant
    records = library.records_gradients()
    alike = type(q) is type(k) is type(v)
    if not alike or library.checks:
        records |= check_libraries(q, k, v)
    if args and not library.native:  # otherwise torch has been asked
        for arg in args:
            records |= libraries[type(arg)].records_gradients()
    # Written out for three tensors, because the function takes as long as the rest of this one.
    if records and (args or not alike or q.requires_grad or k.requires_grad or v.requires_grad):
        check_no_grad(q, k, v, variant, args)
    if cu_seqlens_q is not None and dimensions(cu_seqlens_q) != 1:
        raise TypeError(
            f"attention: argument 'cu_seqlens_q': expected an int32 array [batch + 1], got {describe(cu_seqlens_q)}"
        )
    return variant, args


def dimensions(array: Any) -> int:
    """Return the number of dimensions of an array; 0 for what is none."""
    shape = getattr(array, "shape", ())
    return 0 if isinstance(array, type) else len(shape)


def bind(variant: dm.Variant | dm.BoundVariant) -> dm.BoundVariant:
    """Return a variant with the values of its parameters; one without parameters may be given as it is.

    Raises:
        TypeError: it is no variant, or values are missing.
    """
    if isinstance(variant, _BoundVariant):
        return variant
    if isinstance(variant, _Variant):
        return variant()
    raise TypeError(f"attention: argument 'variant': expected a dimorph.Variant, got {describe(variant)}")


def check_stream(stream: Any, gpu: int | None, out: Any, lse: Any) -> None:
    """Refuse a given stream where it has no meaning, or where a result (None) would be made for another one.

    Raises:
        ValueError: q is not on a GPU, or an array to write to is missing.
    """
    if stream is None:
        return
    if gpu is None:
        raise ValueError("attention: argument 'stream': expected none, as 'q' is not on a GPU")
    if out is None or lse is None:
        name = "out" if out is None else "lse"
        raise ValueError(f"attention: argument '{name}': expected an array to write to, as 'stream' is given")


def check_others(return_lse: Any, workspace: Any, max_seqlen_q: Any, max_seqlen_k: Any) -> bool:
    """Check arguments that the kernel's entry does not get, or not on a CPU; return `return_lse` as a bool.

    The CPU has no use for some, but a call that is wrong on a GPU is to fail here too.

    Raises:
        TypeError: one of them is of another kind than a GPU takes.
    """
    if workspace is not None and (isinstance(workspace, type) or not hasattr(workspace, "__dlpack__")):
        raise TypeError(f"attention: argument 'workspace': expected a float32 array, got {describe(workspace)}")
    for name, length in (("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)):
        if length is not None and not isinstance(length, Integral):
            raise TypeError(f"attention: argument '{name}': expected a whole number, got {describe(length)}")
    return truth("return_lse", return_lse)


def truth(name: str, given: Any) -> bool:
    """Return an argument as a bool.

    Raises:
        TypeError: it is none.
    """
    # The truth of an array would be that of its elements. NumPy's bool has another name before 2.0.
    if not isinstance(given, int) and type(given).__name__ not in ("bool", "bool_"):
        raise TypeError(f"attention: argument '{name}': expected True or False, got {describe(given)}")
    return bool(given)


def check_libraries(q: Any, k: Any, v: Any) -> bool:
    """Check arrays that may belong to several libraries; return True if one of these records gradients.

    Raises:
        TypeError: one of q, k and v is no array that attention takes.
    """
    records = False
    for name, array in (("q", q), ("k", k), ("v", v)):
        library = libraries[type(array)]
        library.check(array, name)
        records |= library.records_gradients()
    return records


def check_no_grad(q: Any, k: Any, v: Any, variant: dm.Variant, args: Sequence[Any]) -> None:
    """Refuse tensors that require grad, because the result would be cut off from them silently.

    Raises:
        RuntimeError: names the first such argument.
    """
    for index, array in enumerate((q, k, v, *args)):
        if requires_grad(array):
            name = ("q", "k", "v", *(param.name for param in variant.params))[index]
            raise RuntimeError(
                f"attention: argument '{name}': expected a tensor that requires no grad, as there is no backward "
                f"pass, got one that does; call under torch.no_grad(), or detach it"
            )


def few_queries(q: Any, cu_seqlens_q: Any) -> bool:
    """Tell whether a CPU computes these queries faster one by one than in blocks.

    For ragged sequences it is a guess by their mean length, and for dense ones with `seqlens_q` by their room: the
    kernel says if it does not fit all of them.
    """
    shape = shape_of(q, "q")
    if cu_seqlens_q is None:
        return shape[1] <= _FEW_QUERIES
    sequences: int = cu_seqlens_q.shape[0] - 1
    return shape[0] <= _FEW_QUERIES * sequences


def few_rows(q: Any, kv_heads: int, cu_seqlens_q: Any, max_seqlen_q: int | None) -> bool:
    """Tell whether the queries of a KV head fit the 16 rows of one warp on a GPU, where each warp can be a block.

    For ragged sequences whose longest is not given it is a guess by their mean length; both kernels compute all.
    """
    shape = shape_of(q, "q")
    queries: int = shape[-3] if cu_seqlens_q is None or max_seqlen_q is None else max_seqlen_q
    if cu_seqlens_q is not None and max_seqlen_q is None:
        queries = -(-queries // max(1, cu_seqlens_q.shape[0] - 1))
    return bool(queries * shape[-2] <= _FEW_ROWS * kv_heads)


def shape_of(array: Any, name: str) -> Sequence[int]:
    """Return the shape of q, k or v.

    Raises:
        ValueError: it does not have 3 or 4 dimensions.
    """
    try:
        shape: Sequence[int] = array.shape
    except AttributeError:
        shape = ()
    if 3 <= len(shape) <= 4:
        return shape
    raise ValueError(
        f"attention: argument '{name}': expected an array [batch, seq, heads, head_dim] or [tokens, heads, head_dim], "
        f"got {describe(array)}"
    )
