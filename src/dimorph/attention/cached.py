"""The call of attention with a `KVCache`, in the four steps of the operation: validate, choose, allocate, launch."""

from __future__ import annotations

from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries
from dimorph.attention.cache import KVCache, in_pages, scales, tables
from dimorph.attention.request import (
    CachedCall,
    check_others,
    check_stream,
    few_queries,
    few_rows,
    request_of,
    shape_of,
    validate,
)
from dimorph.attention.select import Functions
from dimorph.attention.workspace import fits_small_tile, plan_size


def is_dense(call: CachedCall) -> bool:
    """Return True for what the kernels without pages and lengths compute."""
    cache = call.cache
    apart = call.seqlens_q is not None or cache.seqlens is not None or in_pages(cache) or cache.layout != "NHD"
    apart = apart or call.batch_invariant
    return not apart and cache.k_scale is None and (cache.cu_seqlens is None) == (call.cu_seqlens_q is None)


def cache_of(k: Any, v: Any, cu_seqlens_k: Any) -> KVCache:
    """Return the cache that a call has given as `k`, or made of its keys and values.

    Raises:
        TypeError: both a cache and what it replaces are given, or neither.
    """
    if not isinstance(k, KVCache):
        if v is None:
            raise TypeError(
                "attention: argument 'v': expected a KVCache as 'k', or keys and values, got None beside keys "
                f"{describe(k)}"
            )
        return KVCache(k, v, cu_seqlens=cu_seqlens_k)
    for name, array in (("v", v), ("cu_seqlens_k", cu_seqlens_k)):
        if array is not None:
            raise TypeError(f"attention: argument {name!r}: expected none beside a KVCache, got {describe(array)}")
    return k


def attend(functions: Functions, call: CachedCall) -> Any:
    """Compute attention over a cache; return out, or (out, lse).

    Raises:
        NotImplementedError: torch has to see the call, and `functions` are not those of `attention`.
        all others: see `attention`.
    """
    q, cache = call.q, call.cache
    library = libraries[type(q)]
    bound = call.variant.args if isinstance(call.variant, dm.BoundVariant) else ()
    factors = scales(cache)
    given = call.cu_seqlens_q, call.seqlens_q, call.lse, *tables(cache), *factors[:2], *bound
    others = [x for x in given if x is not None]
    if (library.is_indirect(q, cache.k, cache.v, call.out) or library.is_lazy(*others)) and not call.direct:
        from dimorph.attention import torch_cache_operators

        return torch_cache_operators.attend(functions, call)
    variant, args = validate(library, q, cache.k, cache.v, call.variant, call.cu_seqlens_q)
    gpu = library.gpu(q)
    return_lse = check_others(call.return_lse, call.workspace, call.max_seqlen_q, call.max_seqlen_k)
    few = has_few(call, gpu)
    request = request_of(variant, q, cache.v, gpu, few, cache, call.batch_invariant)
    choice = functions.find(request, variant)
    check_stream(call.stream, gpu, call.out, call.lse if return_lse else call.out)

    # The kernels write no rows behind those in use.
    partly = call.cu_seqlens_q is not None or call.seqlens_q is not None
    out, lse = call.out, call.lse
    if out is None:
        out = (library.unseen_rows if partly else library.empty_rows)(q, shape_of(cache.v, "v")[-1])
    if lse is None and return_lse:
        lse = (library.unseen_lse if partly else library.empty_float32)(q, *q.shape[:-1])
    scale = choice.scale if call.scale is None else call.scale
    arrays = q, cache.k, cache.v, out, scale, variant.name, lse, call.cu_seqlens_q, call.seqlens_q, *tables(cache)
    heads_first = cache.layout == "HND"
    if gpu is not None:
        workspace = call.workspace
        if workspace is None and call.stream is None:
            workspace = library.empty_float32(q, size_of_plan(call))
        lengths = call.max_seqlen_q, call.max_seqlen_k
        choice.function(
            *arrays, *gpu_scales(cache), heads_first, workspace, *lengths, few, call.planned, *args, stream=call.stream
        )
    elif choice.function(*arrays, *factors, heads_first, few, call.batch_invariant, *args):
        # Some sequences have few queries and some have many, unless one kernel computes both. All kernels are found
        # before the first one writes.
        for chosen in [choice, functions.find(request._replace(few_queries=not few), variant)]:
            chosen.function(*arrays, *factors, heads_first, chosen.few_queries, True, *args)
    return (out, lse) if return_lse else out


def has_few(call: CachedCall, gpu: int | None) -> bool:
    """Tell whether a call asks for the kernel for few queries; see `Request.few_queries`."""
    q, heads = call.q, kv_heads(call.cache)
    if gpu is None:
        # Blocks of queries have other bits than single rows, which serve any number of them.
        return call.batch_invariant or few_queries(q, call.cu_seqlens_q)
    if call.cache.k_scale is not None:
        return few_rows(q, heads, call.cu_seqlens_q, call.max_seqlen_q)
    shape = shape_of(q, "q")
    most = shape[1] if call.cu_seqlens_q is None else shape[0] if call.max_seqlen_q is None else call.max_seqlen_q
    return fits_small_tile(most, shape[-2] // heads)


def gpu_scales(cache: KVCache) -> tuple[Any, ...]:
    """Return the arguments with the scales of a cache in float8, which other kernels for GPUs do not take."""
    return () if cache.k_scale is None else scales(cache)


def kv_heads(cache: KVCache) -> int:
    """Return the heads of k and v, or 1 where there are none."""
    heads: int = shape_of(cache.k, "k")[-3 if cache.layout == "HND" else -2]
    return max(heads, 1)


def size_of_plan(call: CachedCall) -> int:
    """Return the `plan_size` of a call."""
    sequences = None if call.cu_seqlens_q is None else call.cu_seqlens_q.shape[0] - 1
    shape, head_dim_vo = shape_of(call.q, "q"), shape_of(call.cache.v, "v")[-1]
    return plan_size(
        shape,
        kv_heads(call.cache),
        head_dim_vo,
        sequences=sequences,
        max_seqlen_q=call.max_seqlen_q,
        batch_invariant=call.batch_invariant,
    )
