"""`plan` and `run`: attention over a cache in two steps, of which the first serves all layers of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries
from dimorph.attention.cache import KVCache, tables
from dimorph.attention.cached import attend, gpu_scales, has_few, kv_heads, size_of_plan
from dimorph.attention.request import CachedCall, bind, request_of, shape_of, validate
from dimorph.attention.select import Choice, Functions


@dataclass(frozen=True, eq=False)
class Plan:
    """How the work of attention over a cache is divided: made by `plan`, followed by `run`.

    Attributes:
        workspace: the array that holds the schedule, and the partial results of a `run`. Without a use on the CPU.
        variant, cu_seqlens_q, seqlens_q, max_seqlen_q, batch_invariant: what the plan was made for; see
            `Attention.plan`.
        cache: the cache that it was made for, with lengths and tables on its device.
    """

    workspace: Any
    variant: dm.BoundVariant
    cu_seqlens_q: Any
    seqlens_q: Any
    max_seqlen_q: int | None
    batch_invariant: bool
    cache: KVCache
    _made_for: tuple[Any, ...] = field(repr=False)
    _choice: Choice | None = field(repr=False)  # None on the CPU
    _few: bool = field(repr=False)


def make(functions: Functions, call: CachedCall) -> Plan:
    """Make the schedule of a call; see `Attention.plan`."""
    q, cache = call.q, call.cache
    if not isinstance(cache, KVCache):
        raise TypeError(f"plan: argument 'cache': expected a KVCache, got {describe(cache)}")
    library, bound = libraries[type(q)], bind(call.variant)
    gpu = library.gpu(q)
    workspace, choice, few = call.workspace, None, has_few(call, gpu)
    made_with = call.cu_seqlens_q, call.seqlens_q, call.max_seqlen_q, call.batch_invariant
    if library.is_indirect(q, cache.k, cache.v, workspace) and not call.direct:
        from dimorph.attention import torch_cache_operators

        if workspace is None:
            workspace = library.empty_float32(q, size_of_plan(call) if gpu is not None else 0)
        torch_cache_operators.plan(functions, call._replace(workspace=workspace))
        return Plan(workspace, bound, *made_with, cache, _made_for(q, cache), None, few)
    variant, args = validate(library, q, cache.k, cache.v, bound, call.cu_seqlens_q)
    if gpu is not None:
        request = request_of(variant, q, cache.v, gpu, few, cache, call.batch_invariant)
        choice = functions.find(request, variant)
        if workspace is None and call.stream is not None:
            raise ValueError("plan: argument 'workspace': expected an array, as 'stream' is given")
        if workspace is None:
            workspace = library.empty_float32(q, size_of_plan(call))
        lengths = call.cu_seqlens_q, call.seqlens_q, *tables(cache)
        most = call.max_seqlen_q, call.max_seqlen_k
        choice.module.plan(
            q, cache.k, cache.v, variant.name, *lengths, *gpu_scales(cache), cache.layout == "HND", workspace,
            *most, few, *args, stream=call.stream,
        )  # fmt: skip
    return Plan(workspace, bound, *made_with, cache, _made_for(q, cache), choice, few)


def run(
    functions: Functions,
    plan: Plan,
    q: Any,
    cache: KVCache,
    variant: dm.Variant | dm.BoundVariant | None,
    scale: float | None,
    results: tuple[Any, bool, Any],
    stream: Any,
) -> Any:
    """Compute a call by a plan; see `Attention.run`. `results`: out, return_lse, lse."""
    if type(plan) is not Plan:
        raise TypeError(f"run: argument 'plan': expected a Plan, got {describe(plan)}")
    given = _made_for(q, cache)
    if given != plan._made_for:
        made = next(x for x in zip(_NAMES, given, plan._made_for, strict=True) if x[1] != x[2])
        raise ValueError(f"run: argument 'plan': expected one made for {made[0]} {made[1]}, got {made[2]}")
    bound = plan.variant if variant is None else bind(variant)
    if bound.variant is not plan.variant.variant:
        name, other = bound.variant.name, plan.variant.variant.name
        raise ValueError(f"run: argument 'plan': expected one made for variant {name}, got {other}")
    library, (out, return_lse, lse), choice = libraries[type(q)], results, plan._choice
    plain = stream is None and out is not None and (lse is not None or return_lse is False)
    if choice is None or not plain or not library.native or library.is_indirect(q, cache.k, cache.v, out):
        lengths = plan.cu_seqlens_q, plan.seqlens_q, plan.max_seqlen_q, None
        call = CachedCall(
            q, cache, bound, scale, *lengths, *results, plan.workspace, stream, plan.batch_invariant, planned=True
        )
        return attend(functions, call)
    # The common call, written out, because each layer of a model makes it.
    validate(library, q, cache.k, cache.v, bound, plan.cu_seqlens_q)
    arguments = (
        q, cache.k, cache.v, out, choice.scale if scale is None else scale, bound.variant.name, lse,
        plan.cu_seqlens_q, plan.seqlens_q, *tables(cache), *gpu_scales(cache), cache.layout == "HND",
        plan.workspace, plan.max_seqlen_q, None, plan._few, True, *bound.args,
    )  # fmt: skip
    try:
        choice.function.native(*arguments)
    except BufferError:
        choice.function(*arguments)
    return (out, lse) if return_lse else out


_NAMES = "q of shape", "q of dtype", "device", "keys in float8", "KV heads", "values of head dim", "page table"


def _made_for(q: Any, cache: Any) -> tuple[Any, ...]:
    """Return what the arguments of a run have in common with those of its plan."""
    if type(cache) is not KVCache and not isinstance(cache, KVCache):
        raise TypeError(f"run: argument 'cache': expected a KVCache, got {describe(cache)}")
    table = "block_table" if cache.block_table is not None else "none" if cache.indptr is None else "indptr"
    heads, dim = kv_heads(cache), shape_of(cache.v, "v")[-1]
    return q.shape, q.dtype, libraries[type(q)].gpu(q), cache.k_scale is not None, heads, dim, table
