"""`plan` and `run`: attention over a cache in two steps, of which the first serves all layers of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries
from dimorph.attention.cache import KVCache, kv_dtype, tables
from dimorph.attention.cached import CachedCall, attend, gpu_scales, has_few, kv_heads, size_of_plan
from dimorph.attention.request import bind, request_of, shape_of, validate
from dimorph.attention.select import Functions


@dataclass(frozen=True, eq=False)
class Plan:
    """What `plan` returns and `run` takes.

    Attributes:
        workspace: the array that holds the schedule, and the partial results of a `run`. None on the CPU.
        variant, cu_seqlens_q, seqlens_q, max_seqlen_q: what the plan was made for; see `Attention.plan`.
    """

    workspace: Any
    variant: dm.BoundVariant
    cu_seqlens_q: Any
    seqlens_q: Any
    max_seqlen_q: int | None
    _made_for: dict[str, Any] = field(repr=False)


def make(functions: Functions, call: CachedCall) -> Plan:
    """Make the schedule of a call; see `Attention.plan`."""
    q, cache = call.q, call.cache
    if not isinstance(cache, KVCache):
        raise TypeError(f"plan: argument 'cache': expected a KVCache, got {describe(cache)}")
    library, bound = libraries[type(q)], bind(call.variant)
    variant, args = validate(library, q, cache.k, cache.v, bound, call.cu_seqlens_q)
    gpu = library.gpu(q)
    workspace = call.workspace
    if gpu is not None:
        few = has_few(call, gpu)
        request = request_of(variant, q, cache.v, gpu, few, paged=True, kv_dtype=kv_dtype(cache))
        choice = functions.find(request, variant)
        if workspace is None:
            workspace = library.empty_float32(q, size_of_plan(call))
        lengths = call.cu_seqlens_q, call.seqlens_q, *tables(cache)
        most = call.max_seqlen_q, call.max_seqlen_k
        choice.module.plan(
            q, cache.k, cache.v, variant.name, *lengths, *gpu_scales(cache), cache.layout == "HND", workspace,
            *most, few, *args, stream=call.stream,
        )  # fmt: skip
    return Plan(workspace, bound, call.cu_seqlens_q, call.seqlens_q, call.max_seqlen_q, _made_for(q, cache))


def run(functions: Functions, plan: Plan, call: CachedCall) -> Any:
    """Compute a call by a plan; see `Attention.run`."""
    if not isinstance(plan, Plan):
        raise TypeError(f"run: argument 'plan': expected a Plan, got {describe(plan)}")
    for name, value in _made_for(call.q, call.cache).items():
        if value != plan._made_for[name]:
            raise ValueError(f"run: argument 'plan': expected one made for {name} {value}, got {plan._made_for[name]}")
    variant = plan.variant if call.variant is None else bind(call.variant)
    if variant.variant is not plan.variant.variant:
        made, given = plan.variant.variant.name, variant.variant.name
        raise ValueError(f"run: argument 'plan': expected one made for variant {given}, got {made}")
    lengths = {name: getattr(plan, name) for name in ("cu_seqlens_q", "seqlens_q", "max_seqlen_q")}
    return attend(functions, call._replace(variant=variant, workspace=plan.workspace, planned=True, **lengths))


def _made_for(q: Any, cache: Any) -> dict[str, Any]:
    """Return what the arguments of a run have in common with those of its plan."""
    if not isinstance(cache, KVCache):
        raise TypeError(f"run: argument 'cache': expected a KVCache, got {describe(cache)}")
    table = next((name for name in ("block_table", "indptr") if getattr(cache, name) is not None), "none")
    return {
        "q of shape": tuple(shape_of(q, "q")),
        "q of dtype": str(q.dtype),
        "keys in float8": cache.k_scale is not None,
        "KV heads": kv_heads(cache),
        "values of head dim": shape_of(cache.v, "v")[-1],
        "page table": table,
        "device": libraries[type(q)].gpu(q),
    }
