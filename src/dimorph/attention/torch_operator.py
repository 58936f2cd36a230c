"""The torch operator `dimorph::attention`, which stands for a call that torch's dispatcher has to see.

That is so in a traced graph, under a mode or a transform, and for tensors whose memory does not hold their values.

Its arguments hold a variant as the names of its parts, joined by "+", and the variant's parameters sorted by kind
(tensors, integers, floats), each kind in declared order. Tracing registers the names. This module does not import the
operation, which imports it: `define` is given the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

import dimorph as dm
from dimorph.attention.arrays import describe
from dimorph.attention.request import bind, check_no_grad
from dimorph.attention.variants.compose import COMPOSE, composition
from dimorph.attention.variants.registry import known, register_variant

_SCHEMA = (
    "attention(Tensor q, Tensor k, Tensor v, str variant, Tensor?[] tensors, SymInt[] integers, float[] floats, "
    "float? scale=None, Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None, SymInt? max_seqlen_q=None, "
    "SymInt? max_seqlen_k=None, bool return_lse=False) "
    "-> (Tensor, Tensor)"
)
# The registration of the operator; it ends with the object.
_libraries: list[torch.library.Library] = []


def define(attention: Callable[..., Any]) -> None:
    """Register `torch.ops.dimorph.attention`, once.

    Args:
        attention: `dimorph.attention.attention` without the way back to the operator.
    """
    if _libraries:
        return

    def compute(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        variant: str,
        tensors: Sequence[Tensor | None],
        integers: Sequence[int],
        floats: Sequence[float],
        scale: float | None = None,
        cu_seqlens_q: Tensor | None = None,
        cu_seqlens_k: Tensor | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
        return_lse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        # The dispatcher resolves all tensors but those in a list of optional ones.
        tensors = [None if tensor is None else tensor.resolve_neg() for tensor in tensors]
        results = attention(
            q,
            k,
            v,
            variant=unpacked(variant, tensors, integers, floats),
            scale=scale,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k,
            return_lse=return_lse,
        )
        return results if return_lse else (results, q.new_empty(0, dtype=torch.float32))

    # A call takes half the time that it would take with `custom_op`.
    library = torch.library.Library("dimorph", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))  # type: ignore[no-untyped-call]
    for key in ("CPU", "CUDA"):
        library.impl("attention", compute, key)  # type: ignore[no-untyped-call]
    library.impl("attention", _autograd, "Autograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake("dimorph::attention", _fake, lib=library)
    torch.library.register_vmap("dimorph::attention", _vmap, lib=library)
    _libraries.append(library)


def refuse_own() -> None:
    """Refuse an `Attention` of the caller's where only the operator can serve, which stands for `attention`.

    Raises:
        NotImplementedError: not while torch.compile traces, which calls the object outside of its graph.
    """
    if not torch.compiler.is_compiling():
        raise NotImplementedError(
            "Attention: expected plain tensors outside of torch's tracers, modes and transforms, where only "
            "`dimorph.attention.attention` can be called"
        )


def call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variant: dm.Variant | dm.BoundVariant,
    scale: float | None,
    lengths: tuple[Tensor | None, Tensor | None, int | None, int | None],
    out: Tensor | None,
    return_lse: bool,
    lse: Tensor | None,
    stream: Any,
) -> Any:
    """Call the operator in place of `attention`, so that torch's dispatcher sees the call.

    Args:
        lengths: cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k.
        out, lse: if given, the results are copied to them.
        stream: must be None.
        others: as for `attention`.

    Raises:
        TypeError, ValueError: `variant` or `stream` does not fit, or there are arrays of other libraries.
        NotImplementedError: the caller is traced by torch.jit.trace.
    """
    if stream is not None:
        raise ValueError("attention: argument 'stream': expected none in what is traced, which has its own")
    if torch._C._get_tracing_state() is not None:
        raise NotImplementedError(
            "attention: not supported by torch.jit.trace, which cannot record its operator; use torch.export"
        )
    bound = bind(variant)
    names = ("q", "k", "v", *(param.name if param.is_tensor else "" for param in bound.variant.params))
    for argument, array in zip(names, (q, k, v, *bound.args), strict=True):
        if isinstance(array, Tensor) and array.is_nested:
            raise ValueError(
                f"attention: argument '{argument}': expected a dense tensor, got a nested one; give its values() and, "
                "as cu_seqlens, its offsets()"
            )
        if argument and array is not None and not isinstance(array, Tensor):
            raise TypeError(
                f"attention: argument '{argument}': expected a torch tensor, as torch has to compute or resolve values "
                f"of others first, got {describe(array)}"
            )
    name, tensors, integers, floats = packed(bound)
    results = torch.ops.dimorph.attention.default(
        q, k, v, name, tensors, integers, floats, scale, *lengths, return_lse or lse is not None
    )
    given = [result if to is None else to.copy_(result) for result, to in zip(results, (out, lse), strict=True)]
    return tuple(given) if return_lse else given[0]


def _is_float(param: dm.Param) -> bool:
    # No property of Param: torch.compile reads only fields of frozen dataclasses.
    return not param.dtype or param.dtype.startswith("float")


def packed(bound: dm.BoundVariant) -> tuple[str, list[Any], list[Any], list[Any]]:
    """Return the operator's arguments for a variant: names, tensors, integers, floats."""
    tensors: list[Any] = []
    integers: list[Any] = []
    floats: list[Any] = []
    variant = bound.variant
    for param, arg in zip(variant.params, bound.args, strict=True):
        (tensors if param.is_tensor else floats if _is_float(param) else integers).append(arg)
    # The parts of a composition were registered when it was composed.
    composed = variant.header == COMPOSE
    name = "+".join([part.name for part in variant.parts]) if composed else register_variant(variant)
    return name, tensors, integers, floats


def unpacked(
    name: str, tensors: Sequence[Tensor | None], integers: Sequence[int], floats: Sequence[float]
) -> dm.BoundVariant:
    """Return the variant for the operator's arguments; the inverse of `packed`.

    Raises:
        ValueError: a name is not that of exactly one variant, or there are more parameters than the variant has.
    """
    parts = [_registered(part) for part in name.split("+")]
    variant = parts[0] if len(parts) == 1 else composition(*parts)
    kinds = iter(tensors), iter(integers), iter(floats)
    args = [
        next(kinds[0] if param.is_tensor else kinds[2] if _is_float(param) else kinds[1], None)
        for param in variant.params
    ]
    if surplus := sum(len(list(kind)) for kind in kinds):
        raise ValueError(
            f"dimorph::attention: expected parameters ({', '.join(param.name for param in variant.params)}) of "
            f"{name!r}, got {surplus} more"
        )
    return dm.BoundVariant(variant, tuple(args))


def _registered(name: str) -> dm.Variant:
    meanings = known.get(name, [])
    if len(meanings) == 1:
        return meanings[0]
    if meanings:
        raise ValueError(f"dimorph::attention: argument 'variant': expected a name of one variant, {name!r} is of two")
    raise ValueError(
        f"dimorph::attention: argument 'variant': expected a known one ({', '.join(sorted(known))}), or several joined "
        f"by '+', got {name!r}; `dimorph.attention.torch.register_variant` makes others known"
    )


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variant: str,
    tensors: Sequence[Tensor | None],
    integers: Sequence[int],
    floats: Sequence[float],
    scale: float | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    return_lse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return uninitialised results: of the right shapes, strides and dtypes for a trace.

    Raises:
        ValueError: q, k and v do not lie on one device.
    """
    for array, argument in ((k, "k"), (v, "v")):
        if array.device != q.device:
            raise ValueError(
                f"attention: argument '{argument}': expected the device of 'q', {q.device}, got {array.device}"
            )
    lse = q.new_empty(q.shape[:-1] if return_lse else 0, dtype=torch.float32)
    return q.new_empty((*q.shape[:-1], v.shape[-1])), lse


def _autograd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variant: str,
    tensors: Sequence[Tensor | None],
    integers: Sequence[int],
    floats: Sequence[float],
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """Refuse tensors that require grad, then call the operator below autograd."""
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        bound = unpacked(variant, tensors, integers, floats)
        if torch.is_grad_enabled():
            check_no_grad(q, k, v, bound.variant, bound.args)
        _check_no_tangent(q, k, v, bound)
    with torch._C._AutoDispatchBelowAutograd():
        results: tuple[Tensor, Tensor] = torch.ops.dimorph.attention.default(
            q, k, v, variant, tensors, integers, floats, *rest
        )
        return results


def _check_no_tangent(q: Tensor, k: Tensor, v: Tensor, bound: dm.BoundVariant) -> None:
    """Refuse tensors with a tangent of forward-mode AD, which the result would lose silently.

    Raises:
        RuntimeError: names the first such argument.
    """
    names = ("q", "k", "v", *(param.name for param in bound.variant.params))
    for name, array in zip(names, (q, k, v, *bound.args), strict=True):
        if isinstance(array, Tensor) and forward_ad.unpack_dual(array).tangent is not None:  # type: ignore[no-untyped-call]
            raise RuntimeError(
                f"attention: argument '{name}': expected a tensor without a tangent, as there is no forward-mode "
                "derivative, got one with it"
            )


def _vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Compute the elements of a vmapped dimension one by one."""
    results = []
    for index in range(info.batch_size):
        element = [_element(arg, dim, index) for arg, dim in zip(args, in_dims, strict=True)]
        results.append(torch.ops.dimorph.attention.default(*element))
    outs, lses = zip(*results, strict=True)
    return (torch.stack(outs), torch.stack(lses)), (0, 0)


def _element(arg: Any, dim: Any, index: int) -> Any:
    if isinstance(arg, (list, tuple)):
        return [_element(item, of, index) for item, of in zip(arg, dim, strict=True)] if dim is not None else arg
    return arg if dim is None else arg.select(dim, index)
