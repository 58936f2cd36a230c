"""Attention for torch: the operator `dimorph::attention`, and a function shaped like torch's own.

A call of `dimorph.attention.attention` under `torch.compile` or `torch.export` becomes the operator, which all devices
share. A variant travels through its schema as the names of its parts, joined by "+", and its parameters by kind, each
in declared order. Tracing makes names known by itself; what was exported and is loaded in another process, and who
calls the operator directly, finds the built-in ones, and a user's own after `register_variant`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import dimorph as dm
from dimorph import attention as library
from dimorph.attention.operation import check_no_grad
from dimorph.attention.variants.compose import COMPOSE, composition
from dimorph.attention.variants.registry import known, register_variant

_SCHEMA = (
    "attention(Tensor q, Tensor k, Tensor v, str variant, Tensor?[] tensors, SymInt[] integers, float[] floats, "
    "float? scale=None, Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None, SymInt? max_seqlen_q=None, "
    "SymInt? max_seqlen_k=None, bool return_lse=False) "
    "-> (Tensor, Tensor)"
)

__all__ = ["register_variant", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, computed by `dimorph.attention.attention`.

    Nothing is copied but a tensor whose last dimension is not contiguous and a mask that is not float32 or bool and
    row-major; a mask that is broadcast over sequences or heads stays so, and a bool one over queries too.

    Args:
        query: [batch, heads, queries, head_dim_qk], float32, bfloat16 or float16; head dims as for `attention`.
        key: [batch, heads, keys, head_dim_qk].
        value: [batch, heads, keys, head_dim_vo].
        attn_mask: broadcastable to [batch, heads, queries, keys]; bool, True where a key counts, or floating, added
            to the logits.
        dropout_p: only 0.
        is_causal: query i sees the keys j <= i: aligned top-left, as torch has it, unlike `Causal`.
        scale: factor of the logits; default 1/sqrt(head_dim_qk).
        enable_gqa: key and value may have fewer heads, of which their number is a multiple.

    Returns:
        [batch, heads, queries, head_dim_vo], the transposed view of a contiguous [batch, queries, heads, head_dim_vo].
        A query that sees no key has output 0.

    Raises:
        TypeError, ValueError, NotImplementedError: an argument does not fit or is not supported; see `attention` too.
    """
    function = "scaled_dot_product_attention"
    for name, shape in (("query", query.shape), ("key", key.shape), ("value", value.shape)):
        if len(shape) != 4:
            raise ValueError(
                f"{function}: argument '{name}': expected [batch, heads, seq, head_dim], got shape {tuple(shape)}"
            )
    if dropout_p != 0.0:
        raise NotImplementedError(f"{function}: argument 'dropout_p': expected 0, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise ValueError(f"{function}: arguments 'attn_mask' and 'is_causal': expected one of them, got both")
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(
            f"{function}: argument 'key': expected the {query.shape[1]} heads of 'query', as 'enable_gqa' is False, "
            f"got {key.shape[1]}"
        )
    queries, keys = query.shape[2], key.shape[2]
    variant: dm.Variant | dm.BoundVariant = library.Plain
    if attn_mask is not None:
        variant = mask_variant(attn_mask, (query.shape[0], query.shape[1], queries, keys))
    elif is_causal and queries > keys:
        variant = library.Window(-1, queries - keys)
    elif is_causal:
        # Later keys are seen by no query; without them the two alignments are one.
        key, value, variant = key[:, :, :queries], value[:, :, :queries], library.Causal
    return attend(query, key, value, variant, scale).transpose(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, variant: dm.Variant | dm.BoundVariant, scale: float | None
) -> Tensor:
    """`attention` for tensors [batch, heads, seq, head_dim]; the result is [batch, queries, heads, head_dim_vo]."""
    q, k, v = (x.transpose(1, 2) if x.stride(-1) == 1 else x.transpose(1, 2).contiguous() for x in (query, key, value))
    result: Tensor = library.attention(q, k, v, variant=variant, scale=scale)
    return result


def mask_variant(mask: Tensor, shape: Sequence[int]) -> dm.BoundVariant:
    """The variant for a mask of torch's kind.

    Args:
        mask: bool, True where a key counts, or floating, added to the logits; broadcastable to `shape`.
        shape: batch, heads, queries, keys.

    Raises:
        TypeError, ValueError: the mask has another dtype or does not fit the shape.
    """
    given = tuple(mask.shape)
    if mask.dim() > 4 or any(
        size not in (1, full) for size, full in zip(given[::-1], tuple(shape)[::-1], strict=False)
    ):
        raise ValueError(f"attention mask: expected a shape broadcastable to {tuple(shape)}, got {given}")
    mask = mask[(None,) * (4 - mask.dim())]
    for dim in range(3):
        if mask.stride(dim) == 0:
            mask = mask.narrow(dim, 0, 1)
    if mask.dtype == torch.bool:
        if mask.shape[1] == mask.shape[2] == 1:
            return library.KeyMask(mask[:, 0, 0].expand(shape[0], shape[3]).contiguous())
        return library.broadcast_mask(mask.expand(-1, -1, shape[2], shape[3]).contiguous())
    if not mask.dtype.is_floating_point:
        raise TypeError(f"attention mask: expected dtype bool or a floating one, got {mask.dtype}")
    return library.additive_bias(mask.expand(-1, -1, shape[2], shape[3]).float().contiguous())


def traced(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variant: dm.Variant,
    args: Sequence[Any],
    scale: float | None,
    offsets: tuple[Tensor | None, Tensor | None, int | None, int | None],
    out: Tensor | None,
    return_lse: bool,
    lse: Tensor | None,
) -> Any:
    """What a call of `attention` is while it is traced."""
    tensors: list[Any] = []
    integers: list[Any] = []
    floats: list[Any] = []
    for param, arg in zip(variant.params, args, strict=True):
        (tensors if param.is_tensor else floats if param.dtype.startswith("float") else integers).append(arg)
    # The parts of a composition were made known when it was composed.
    composed = variant.header == COMPOSE
    name = "+".join([part.name for part in variant.parts]) if composed else register_variant(variant)
    results = torch.ops.dimorph.attention.default(
        q, k, v, name, tensors, integers, floats, scale, *offsets, return_lse or lse is not None
    )
    given = [result if to is None else to.copy_(result) for result, to in zip(results, (out, lse), strict=True)]
    return tuple(given) if return_lse else given[0]


def _known(name: str) -> dm.Variant:
    meanings = known.get(name, [])
    if len(meanings) == 1:
        return meanings[0]
    if meanings:
        raise ValueError(f"dimorph::attention: argument 'variant': expected a name of one variant, {name!r} is of two")
    raise ValueError(
        f"dimorph::attention: argument 'variant': expected a known one ({', '.join(sorted(known))}), or several joined "
        f"by '+', got {name!r}; `dimorph.attention.torch.register_variant` makes others known"
    )


def _bound(
    name: str, tensors: Sequence[Tensor | None], integers: Sequence[int], floats: Sequence[float]
) -> dm.BoundVariant:
    parts = [_known(part) for part in name.split("+")]
    variant = parts[0] if len(parts) == 1 else composition(*parts)
    kinds = iter(tensors), iter(integers), iter(floats)
    args = [
        next(kinds[0] if param.is_tensor else kinds[2] if param.dtype.startswith("float") else kinds[1], None)
        for param in variant.params
    ]
    if surplus := sum(len(list(kind)) for kind in kinds):
        raise ValueError(
            f"dimorph::attention: expected parameters ({', '.join(param.name for param in variant.params)}) of "
            f"{name!r}, got {surplus} more"
        )
    return dm.BoundVariant(variant, tuple(args))


def _kernel(
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
    results = library.attention(
        q,
        k,
        v,
        variant=_bound(variant, tensors, integers, floats),
        scale=scale,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        max_seqlen_q=max_seqlen_q,
        max_seqlen_k=max_seqlen_k,
        return_lse=return_lse,
    )
    return results if return_lse else (results, q.new_empty(0, dtype=torch.float32))


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
    if torch.is_grad_enabled():
        bound = _bound(variant, tensors, integers, floats)
        check_no_grad(q, k, v, bound.variant, bound.args)
    with torch._C._AutoDispatchBelowAutograd():
        results: tuple[Tensor, Tensor] = torch.ops.dimorph.attention.default(
            q, k, v, variant, tensors, integers, floats, *rest
        )
        return results


def _register() -> torch.library.Library:
    # Not `custom_op`, which takes twice the time a call.
    made = torch.library.Library("dimorph", "FRAGMENT")  # type: ignore[no-untyped-call]
    made.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))  # type: ignore[no-untyped-call]
    for key in ("CPU", "CUDA"):
        made.impl("attention", _kernel, key)  # type: ignore[no-untyped-call]
    made.impl("attention", _autograd, "Autograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake("dimorph::attention", _fake, lib=made)
    return made


_library = _register()  # the registrations last as long as this object
