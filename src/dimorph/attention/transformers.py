"""Attention for transformers' models: `register()`, then `attn_implementation="dimorph"`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    prepare_padding_mask,
    sdpa_mask,
)

import dimorph as dm
from dimorph.attention import Causal, KeyMask, KeyPadding, Plain, Sinks, SoftCap, compose
from dimorph.attention.torch import attend, mask_variant


def register() -> None:
    """Register the attention implementation "dimorph" and its masks with transformers."""
    AttentionInterface.register("dimorph", attention_forward)
    AttentionMaskInterface.register("dimorph", attention_mask)


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
    **_ignored: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of one layer of a model.

    Args:
        module: the layer; its attribute `is_causal` is the default of the argument.
        query: [batch, heads, queries, head_dim].
        key, value: [batch, kv_heads, keys, head_dim].
        attention_mask: a mask made by `attention_mask` of this module, or one of your own that is broadcastable to
            [batch, heads, queries, keys]: bool, True where the query sees the key, or floating point, added to the
            logits.
        dropout: must be 0.
        scaling: factor of the logits; default: 1/sqrt(head_dim).
        is_causal: apply `Causal`, aligned bottom-right; ignored if there is a mask.
        softcap: the parameter of `SoftCap`.
        s_aux: the parameter of `Sinks`, [heads].
        position_bias: floating point, broadcastable to [batch, heads, queries, keys], added to the logits.
        cache: must be None; paged caches are not supported.
        output_attentions: must be False.
        _ignored: arguments for other implementations, such as `sliding_window`, which the mask contains here.

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
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    parts: list[dm.Variant | dm.BoundVariant] = [] if softcap is None else [SoftCap(softcap)]
    if position_bias is not None:
        # A composition takes one bias, because parameters have different names.
        if attention_mask is not None and attention_mask.dim() == 4 and attention_mask.is_floating_point():
            position_bias, attention_mask, is_causal = position_bias + attention_mask, None, False
        parts.append(mask_variant(position_bias, shape))
    if attention_mask is None:
        parts += [Causal] if is_causal and shape[2] > 1 else []
    elif attention_mask.dim() == 1:
        parts.append(KeyPadding(attention_mask))
    elif attention_mask.dim() == 2:
        parts += [Causal, KeyMask(attention_mask)]
    else:
        parts.append(mask_variant(attention_mask, shape))
    if s_aux is not None:
        parts.append(Sinks(s_aux.float()))
    variant = compose(*parts) if len(parts) > 1 else parts[0] if parts else Plain
    return attend(query, key, value, variant, scaling), None


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **others: Any,
) -> Tensor | None:
    """Make the mask of a forward pass, for all layers, as small as possible.

    Args:
        attention_mask: bool [batch, keys or more], False for padding.
        others: the arguments of `transformers.masking_utils.sdpa_mask`.

    Returns:
        One of these, which `attention_forward` tells apart:
        None: no mask, or the causal one if the layer's `is_causal` is True.
        int32 [batch]: padding on the right; the number of keys in each sequence.
        bool [batch, 1, 1, keys]: other padding, False for padded keys.
        bool [batch, keys]: the same, together with the causal mask, aligned bottom-right.
        bool [batch, 1, queries, keys]: any other mask, True where the query sees the key.
    """
    bidirectional = mask_function is bidirectional_mask_function and allow_is_bidirectional_skip
    causal = (
        mask_function is causal_mask_function
        and allow_is_causal_skip
        and isinstance(q_offset, int)  # static caches give a tensor, and have keys after the last query
        and q_offset + q_length == kv_offset + kv_length
    )
    if not bidirectional and not causal:
        whole: Tensor | None = sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function,
            attention_mask,
            allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False,
            **others,
        )
        return whole
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is None:
        return None
    padding = padding[:, kv_offset : kv_offset + kv_length]
    if torch.compiler.is_compiling():  # a graph serves other padding than that of the traced call
        return padding if causal else padding[:, None, None]
    lengths = padding.sum(-1, dtype=torch.int32)
    if bool((lengths == kv_length).all()):
        return None
    if causal:
        return padding
    on_the_right = torch.arange(kv_length, device=padding.device) < lengths[:, None]
    return lengths if torch.equal(on_the_right, padding) else padding[:, None, None]
