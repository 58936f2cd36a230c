"""The torch operators over caches, which stand for calls that torch's dispatcher has to see.

They are `dimorph::attention_cached`, `attention_plan`, `attention_run`, `attention_append` and
`attention_merge_states`. A `KVCache` is flat in their arguments, and a variant is as in `torch_operator`. This module
does not import what they stand for, which imports it: `define` is given the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dimorph.attention.arrays import describe
from dimorph.attention.cache import KVCache, scales, tables
from dimorph.attention.kernels import FLOAT8
from dimorph.attention.request import CachedCall, bind
from dimorph.attention.select import Functions
from dimorph.attention.torch_operator import packed, unpacked

# As `_flat` makes it.
_CACHE = (
    "Tensor{} k, Tensor{} v, Tensor? cu_seqlens, Tensor? seqlens, Tensor? block_table, Tensor? indptr, "
    "Tensor? indices, Tensor? last_page_len, Tensor? k_scale, Tensor? v_scale, float k_number, float v_number, "
    "bool heads_first"
)
_CALL = (
    f"Tensor q, {_CACHE.format('', '')}, str variant, Tensor?[] tensors, SymInt[] integers, float[] floats, "
    "float? scale, Tensor? cu_seqlens_q, Tensor? seqlens_q, SymInt? max_seqlen_q, SymInt? max_seqlen_k, "
    "bool batch_invariant, bool return_lse"
)
_SCHEMAS = {
    "attention_cached": f"({_CALL}) -> (Tensor, Tensor)",
    "attention_plan": f"(Tensor(w!) workspace, {_CALL}) -> ()",
    # A run leaves partial results in the workspace, behind the schedule.
    "attention_run": f"(Tensor(w!)? workspace, {_CALL}) -> (Tensor, Tensor)",
    "attention_append": f"({_CACHE.format('(k!)', '(v!)')}, Tensor new_k, Tensor new_v, Tensor positions, "
    "Tensor? cu_seqlens_new) -> ()",
    "attention_merge_states": "(Tensor[] outs, Tensor[] lses, bool stacked) -> (Tensor, Tensor)",
}
_CACHE_SIZE = 13  # arguments of _CACHE
# The registration of each operator; it ends with the object.
_libraries: dict[str, torch.library.Library] = {}


def define(name: str, compute: Callable[..., Any]) -> None:
    """Register an operator, once.

    Args:
        name: one of `_SCHEMAS`.
        compute: what it stands for, which does not call the operator.
    """
    if name in _libraries:
        return
    kernel, fake = _KERNELS[name]
    library = torch.library.Library("dimorph", "FRAGMENT")  # type: ignore[no-untyped-call]
    tags = torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides
    library.define(name + _SCHEMAS[name], tags=tags)  # type: ignore[no-untyped-call]
    for key in ("CPU", "CUDA"):
        library.impl(name, partial(kernel, compute), key)  # type: ignore[no-untyped-call]
    library.impl(name, partial(_autograd, name), "Autograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"dimorph::{name}", fake, lib=library)
    torch.library.register_vmap(f"dimorph::{name}", partial(_refuse_vmap, name), lib=library)
    _libraries[name] = library


def attend(functions: Functions, call: CachedCall) -> Any:
    """Call the operator in place of attention over a cache; `call.planned`: in place of a run.

    Raises:
        TypeError, ValueError: the variant or the stream does not fit, or there are arrays of other libraries.
        NotImplementedError: the caller is traced by torch.jit.trace.
    """
    args = _checked("run" if call.planned else "attention", functions, call)
    if call.planned:
        results = torch.ops.dimorph.attention_run.default(call.workspace, *args)
    else:
        results = torch.ops.dimorph.attention_cached.default(*args)
    given = [
        result if to is None else to.copy_(result) for result, to in zip(results, (call.out, call.lse), strict=True)
    ]
    return tuple(given) if call.return_lse else given[0]


def plan(functions: Functions, call: CachedCall) -> None:
    """Call the operator that writes the schedule of a call to its workspace; raises as `attend`."""
    args = _checked("plan", functions, call)  # defines the operator
    torch.ops.dimorph.attention_plan.default(call.workspace, *args)


def append(cache: KVCache, k: Any, v: Any, positions: Any, cu_seqlens: Any, stream: Any) -> None:
    """Call the operator in place of `append`; raises as `attend`."""
    names = "k", "v", "positions", "cu_seqlens"
    _check("append", stream, [*zip(names, (k, v, positions, cu_seqlens), strict=True), *_arrays(cache)])
    torch.ops.dimorph.attention_append.default(*_flat(cache), k, v, positions, cu_seqlens)


def merge_states(outs: Sequence[Any], lses: Sequence[Any], stacked: bool, out: Any, lse: Any) -> tuple[Any, Any]:
    """Call the operator in place of `merge_states`; raises as `attend`."""
    named = [(f"outs[{i}]", x) for i, x in enumerate(outs)] + [(f"lses[{i}]", x) for i, x in enumerate(lses)]
    _check("merge_states", None, [*named, ("out", out), ("lse", lse)])
    results = torch.ops.dimorph.attention_merge_states.default(outs, lses, stacked)
    return tuple(result if to is None else to.copy_(result) for result, to in zip(results, (out, lse), strict=True))


def _checked(function: str, functions: Functions, call: CachedCall) -> tuple[Any, ...]:
    """Return the operators' arguments for a call, those of `_CALL`.

    Raises:
        NotImplementedError: the functions are not those of `attention`, which the operators stand for.
        all others: see `_check`.
    """
    if functions.define_operator is None:
        raise NotImplementedError(
            f"Attention: argument 'cache' of {function}: expected plain tensors outside of torch's tracers, modes and "
            "transforms, where only `attention`, `plan` and `run` of `dimorph.attention` can be called with a KVCache"
        )
    functions.define_operator()
    bound = bind(call.variant)
    named = [(name, getattr(call, name)) for name in ("q", "cu_seqlens_q", "seqlens_q", "out", "lse", "workspace")]
    params = [(p.name, x) for p, x in zip(bound.variant.params, bound.args, strict=True) if p.is_tensor]
    _check(function, call.stream, named + params + _arrays(call.cache))
    lengths = call.cu_seqlens_q, call.seqlens_q, call.max_seqlen_q, call.max_seqlen_k
    return_lse = bool(call.return_lse) or call.lse is not None
    return call.q, *_flat(call.cache), *packed(bound), call.scale, *lengths, call.batch_invariant, return_lse


def _arrays(cache: KVCache) -> list[tuple[str, Any]]:
    """Return the arrays of a cache with their names in messages."""
    names = "k", "v", "cu_seqlens", "seqlens", "block_table", "indptr", "indices", "last_page_len", "k_scale", "v_scale"
    return [(f"cache.{name}", x) for name, x in zip(names, _flat(cache)[: len(names)], strict=True)]


def _check(function: str, stream: Any, arrays: list[tuple[str, Any]]) -> None:
    """Check what the operators cannot take.

    Raises:
        TypeError, ValueError: `stream` is given, or an array is no dense tensor.
        NotImplementedError: the caller is traced by torch.jit.trace.
    """
    if stream is not None:
        raise ValueError(f"{function}: argument 'stream': expected none in what is traced, which has its own")
    if torch._C._get_tracing_state() is not None:
        raise NotImplementedError(
            f"{function}: not supported by torch.jit.trace, which cannot record its operator; use torch.export"
        )
    for name, array in arrays:
        if array is not None and not isinstance(array, Tensor):
            raise TypeError(
                f"{function}: argument '{name}': expected a torch tensor, as torch has to compute or resolve values of "
                f"others first, got {describe(array)}"
            )
        if array is not None and array.is_nested:
            raise ValueError(f"{function}: argument '{name}': expected a dense tensor, got a nested one")


def _flat(cache: KVCache) -> tuple[Any, ...]:
    """Return a cache as the arguments of `_CACHE`."""
    return cache.k, cache.v, *tables(cache), *scales(cache), cache.layout == "HND"


def _cache_of(k: Tensor, v: Tensor, *rest: Any) -> KVCache:
    """Return the cache for the arguments of `_CACHE`; the inverse of `_flat`."""
    *arrays, k_scale, v_scale, k_number, v_number, heads_first = rest
    names = "cu_seqlens", "seqlens", "block_table", "indptr", "indices", "last_page_len"
    factors = {}
    if str(k.dtype).removeprefix("torch.") in FLOAT8:
        factors = {
            "k_scale": k_number if k_scale is None else k_scale,
            "v_scale": v_number if v_scale is None else v_scale,
        }
    return KVCache(k, v, layout="HND" if heads_first else "NHD", **dict(zip(names, arrays, strict=True)), **factors)


def _call_of(workspace: Tensor | None, q: Tensor, *rest: Any) -> CachedCall:
    """Return the call for the arguments of `_CALL`; the inverse of `_checked`."""
    variant, tensors, integers, floats, scale, *others = rest[_CACHE_SIZE:]
    cu_seqlens_q, seqlens_q, most_q, most_k, batch_invariant, return_lse = others
    # The dispatcher resolves all tensors but those in a list of optional ones.
    tensors = [None if tensor is None else tensor.resolve_neg() for tensor in tensors]
    bound = unpacked(variant, tensors, integers, floats)
    given = cu_seqlens_q, seqlens_q, most_q, most_k, None, return_lse, None, workspace, None, batch_invariant
    return CachedCall(q, _cache_of(*rest[:_CACHE_SIZE]), bound, scale, *given, direct=True)


def _fake_cached(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Return uninitialised results: of the right shapes, strides and dtypes for a trace.

    Raises:
        ValueError: q, k and v do not lie on one device.
    """
    for array, argument in ((k, "cache.k"), (v, "cache.v")):
        if array.device != q.device:
            raise ValueError(
                f"attention: argument '{argument}': expected the device of 'q', {q.device}, got {array.device}"
            )
    lse = q.new_empty(q.shape[:-1] if rest[-1] else 0, dtype=torch.float32)
    return q.new_empty((*q.shape[:-1], v.shape[-1])), lse


def _fake_run(workspace: Tensor | None, *args: Any) -> tuple[Tensor, Tensor]:
    return _fake_cached(*args)


def _fake_nothing(*args: Any) -> None:
    return None


def _fake_merge(outs: list[Tensor], lses: list[Tensor], stacked: bool) -> tuple[Tensor, Tensor]:
    like = outs[0][0] if stacked else outs[0]
    return like.new_empty(like.shape), like.new_empty(like.shape[:-1], dtype=torch.float32)


def _autograd(name: str, *args: Any) -> Any:
    """Refuse tensors that require grad or have a tangent, then call the operator below autograd.

    Raises:
        RuntimeError: names the first such argument.
    """
    operator = getattr(torch.ops.dimorph, name).default
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        for argument, tensor in _tensors(operator, args):
            if torch.is_grad_enabled() and tensor.requires_grad:
                raise RuntimeError(
                    f"{name}: argument '{argument}': expected a tensor that requires no grad, as there is no backward "
                    "pass, got one that does; call under torch.no_grad(), or detach it"
                )
            if forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
                raise RuntimeError(
                    f"{name}: argument '{argument}': expected a tensor without a tangent, as there is no forward-mode "
                    "derivative, got one with it"
                )
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


def _tensors(operator: Any, args: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    for argument, arg in zip(operator._schema.arguments, args, strict=True):
        for item in arg if isinstance(arg, (list, tuple)) else (arg,):
            if isinstance(item, Tensor):
                yield argument.name, item


def _refuse_vmap(name: str, *_: Any) -> Any:
    raise NotImplementedError(f"{name}: not supported under torch.vmap; give the sequences of the batch in one call")


def _cached(attend: Callable[[CachedCall], Any], *args: Any) -> tuple[Tensor, Tensor]:
    return _results(attend, _call_of(None, *args))


def _run(attend: Callable[[CachedCall], Any], workspace: Tensor | None, *args: Any) -> tuple[Tensor, Tensor]:
    return _results(attend, _call_of(workspace, *args)._replace(planned=True))


def _results(attend: Callable[[CachedCall], Any], call: CachedCall) -> tuple[Tensor, Tensor]:
    results: Any = attend(call)
    return results if call.return_lse else (results, call.q.new_empty(0, dtype=torch.float32))


def _plan(make: Callable[[CachedCall], Any], workspace: Tensor, *args: Any) -> None:
    make(_call_of(workspace, *args))


def _append(write: Callable[..., None], *args: Any) -> None:
    write(_cache_of(*args[:_CACHE_SIZE]), *args[_CACHE_SIZE:])


def _merge(
    merge: Callable[..., tuple[Tensor, Tensor]], outs: list[Tensor], lses: list[Tensor], stacked: bool
) -> tuple[Tensor, Tensor]:
    return merge(outs, lses, stacked, None, None)


_KERNELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "attention_cached": (_cached, _fake_cached),
    "attention_plan": (_plan, _fake_nothing),
    "attention_run": (_run, _fake_run),
    "attention_append": (_append, _fake_nothing),
    "attention_merge_states": (_merge, _fake_merge),
}
