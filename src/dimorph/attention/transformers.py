"""Attention for transformers' models: `register()`, then `attn_implementation="dimorph"` or `"dimorph_or_eager"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

import dimorph as dm
from dimorph.attention import Causal, KeyMask, KeyPadding, Plain, Sinks, SoftCap, compose
from dimorph.attention.torch import attend, mask_variant
from dimorph.attention.transformers_eager import OR_EAGER, own_mask, warn_once
from dimorph.attention.transformers_mask import Mask, attention_mask
from dimorph.attention.transformers_models import NAME, check_layer, own_attention, refuse_at_load


def register() -> None:
    """Register the attention implementations "dimorph" and "dimorph_or_eager" and their masks with transformers.

    A model whose layers do not use registered implementations raises ValueError when it is made with "dimorph"; with
    "dimorph_or_eager" it is made with "eager", and there is a warning.
    """
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, attention_mask)
    AttentionInterface.register(OR_EAGER, attention_or_eager)
    AttentionMaskInterface.register(OR_EAGER, attention_mask)
    refuse_at_load()


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    cache: object = None,
    output_attentions: bool = False,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of one layer of a model.

    Args:
        module: the layer, whose own attention the call replaces.
        query: [batch, heads, queries, head_dim].
        key, value: [batch, kv_heads, keys, head_dim].
        attention_mask: a mask made by `attention_mask`, or one of your own, of 4 dimensions that are broadcastable to
            [batch, heads, queries, keys]: bool, True where the query sees the key, or floating point, added to the
            logits.
        dropout: must be 0.
        scaling: factor of the logits; default: 1/sqrt(head_dim).
        is_causal: apply `Causal`, aligned bottom-right; ignored if there is a mask. Without a mask, it must be given
            for several queries of a layer whose attribute `is_causal` is True, which "eager" ignores and "sdpa" obeys.
        softcap: the parameter of `SoftCap`.
        s_aux: the parameter of `Sinks`, [heads].
        position_bias: floating point, broadcastable to [batch, heads, queries, keys], added to the logits.
        cache: must be None; paged caches are not supported.
        output_attentions: must be False.
        others: arguments for other implementations, such as `sliding_window`, which the mask contains here. A tensor
            among them that may change the result is refused.

    Returns:
        The output, [batch, queries, heads, head_dim], and None in place of the weights.

    Raises:
        TypeError, ValueError: an argument does not fit.
        NotImplementedError: an argument is not supported.
    """
    for name, given in (("dropout", dropout != 0.0), ("cache", cache is not None), ("weights", output_attentions)):
        if given:
            raise NotImplementedError(
                f"attention_forward: {name}: not supported by attn_implementation='dimorph'; use another one"
            )
    check_layer(module, others, s_aux)
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    parts: list[dm.Variant | dm.BoundVariant] = [] if softcap is None else [SoftCap(softcap)]
    if isinstance(attention_mask, Mask) and (
        attention_mask.made is not None or attention_mask.shape != (shape[0], 1, *shape[2:])
    ):
        attention_mask = attention_mask.whole()
    if attention_mask is not None and attention_mask.dim() != 4:
        raise ValueError(
            f"attention_forward: argument 'attention_mask': expected 4 dimensions, broadcastable to {shape}, "
            f"got shape {tuple(attention_mask.shape)}"
        )
    if isinstance(attention_mask, Mask):
        parts += mask_parts(attention_mask, shape)
    elif attention_mask is None and shape[2] > 1:
        if is_causal is None and getattr(module, "is_causal", False):
            raise ValueError(
                f"attention_forward: argument 'is_causal': expected a value, as {type(module).__name__} is causal "
                "without a mask, which 'eager' and 'sdpa' understand differently, got None"
            )
        parts += [Causal] if is_causal else []
    elif attention_mask is None:
        pass
    elif position_bias is not None and attention_mask.is_floating_point():
        # A composition takes one bias, because parameters have different names.
        position_bias = position_bias + attention_mask
    else:
        parts.append(mask_variant(attention_mask, shape))
    if position_bias is not None:
        parts.append(mask_variant(position_bias, shape))
    if s_aux is not None:
        parts.append(Sinks(s_aux.float()))
    variant = compose(*parts) if len(parts) > 1 else parts[0] if parts else Plain
    return attend(query, key, value, variant, scaling), None


def attention_or_eager(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute `attention_forward`, or the layer's own attention if that refuses the layer or its arguments.

    There is one warning for each class of layers and each reason. Kernels that cannot be built, tensors that require
    grad, paged caches, and tensors that the layer's own attention would ignore raise as they do in `attention_forward`.
    """
    try:
        return attention_forward(module, query, key, value, attention_mask, **others)
    except (NotImplementedError, TypeError, ValueError) as error:
        eager = own_attention(type(module), others)
        if eager is None or isinstance(error, dm.DimorphError) or others.get("cache") is not None:
            raise
        warn_once(type(module), str(error))
    out, weights = eager(module, query, key, value, own_mask(attention_mask, query.dtype), **others)
    return out, weights


def mask_parts(mask: Mask, shape: Sequence[int]) -> list[dm.Variant | dm.BoundVariant]:
    """Return the variants that apply a mask which was not made whole."""
    parts: list[dm.Variant | dm.BoundVariant] = [Causal] if mask.causal else []
    if mask.lengths is not None and not mask.causal:
        parts.append(KeyPadding(mask.lengths))
    elif mask.keys is not None:
        parts.append(KeyMask(mask.keys))
    if mask.keep is not None:
        parts.append(mask_variant(mask.keep, shape))
    return parts
