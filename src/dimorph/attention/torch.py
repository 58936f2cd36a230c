"""Attention for torch: a function with the arguments of torch's own, and the operator `dimorph::attention`.

Under `torch.compile` and `torch.export`, a call of `dimorph.attention.attention` becomes the operator. Importing this
module also defines it, for direct calls and for exported programs that are loaded in another process; they find the
built-in variants by name, and your own after `register_variant`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import dimorph as dm
from dimorph import attention as library
from dimorph.attention.operation import define_operator
from dimorph.attention.variants import register_variant

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
    """Compute `torch.nn.functional.scaled_dot_product_attention` with `dimorph.attention.attention`.

    Copies only tensors whose last dimension is not contiguous, and masks that are not row-major in float32 or bool. A
    mask that sequences or heads share is not expanded, nor is a bool mask that queries share.

    Args:
        query: [batch, heads, queries, head_dim_qk]; float32, bfloat16 or float16, head dims as for `attention`.
        key: [batch, heads, keys, head_dim_qk].
        value: [batch, heads, keys, head_dim_vo].
        attn_mask: broadcastable to [batch, heads, queries, keys]; bool, True where the query sees the key, or floating
            point, added to the logits.
        dropout_p: must be 0.
        is_causal: query i sees the keys j <= i. This mask is aligned top-left, as torch defines it; `Causal` is aligned
            bottom-right.
        scale: factor of the logits; default: 1/sqrt(head_dim_qk).
        enable_gqa: allow key and value to have fewer heads than query, whose number is a multiple of theirs.

    Returns:
        [batch, heads, queries, head_dim_vo], the transposed view of a contiguous [batch, queries, heads, head_dim_vo].
        A query that sees no key has output 0.

    Raises:
        TypeError, ValueError: an argument does not fit; see `attention` too.
        NotImplementedError: dropout_p is not 0.
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
        # No query sees the keys after the last query; without them, both alignments are the same.
        key, value, variant = key[:, :, :queries], value[:, :, :queries], library.Causal
    return attend(query, key, value, variant, scale).transpose(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, variant: dm.Variant | dm.BoundVariant, scale: float | None
) -> Tensor:
    """Compute `attention` of tensors [batch, heads, seq, head_dim].

    Returns:
        [batch, queries, heads, head_dim_vo], contiguous.
    """
    q, k, v = (x.transpose(1, 2) if x.stride(-1) == 1 else x.transpose(1, 2).contiguous() for x in (query, key, value))
    result: Tensor = library.attention(q, k, v, variant=variant, scale=scale)
    return result


def mask_variant(mask: Tensor, shape: Sequence[int]) -> dm.BoundVariant:
    """Return the variant that applies a mask of torch's kind.

    Args:
        mask: broadcastable to `shape`; bool, True where the query sees the key, or floating point, added to the logits.
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
    return library.additive_bias(mask.expand(-1, -1, shape[2], shape[3]).float().contiguous().resolve_neg())


define_operator()
