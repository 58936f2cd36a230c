"""The built-in variants. A user's own is declared the same way: a struct in a header, and one `dimorph.Variant`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dimorph as dm
from dimorph.attention.variants.registry import register_variant

_INCLUDE = Path(__file__).parents[1] / "include"


def _variant(struct: str, header: str, *params: dm.Param) -> dm.Variant:
    name = f"dimorph/attention/variants/{header}"
    variant = dm.Variant(struct, header=name, struct=f"dm::{struct}", params=params, root=_INCLUDE)
    register_variant(variant)
    return variant


Plain = _variant("Plain", "plain.h")
"""softmax(scale q k^T) v (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762). No parameters."""

Causal = _variant("Causal", "causal.h")
"""Plain, where query i sees the keys j <= i + (keys - queries): aligned bottom-right. No parameters."""

FlashSigmoid = _variant("FlashSigmoid", "flash_sigmoid.h", dm.scalar("scale"), dm.scalar("bias"))
"""sigmoid(scale q k^T + bias) v, not normalised (Ramapuram et al. 2024, https://arxiv.org/abs/2409.04431).

Parameters: scale, bias (the paper advises -ln(number of keys)). `attention`'s own scale does not count here.
"""

Window = _variant("Window", "window.h", dm.scalar("window_left", "int32"), dm.scalar("window_right", "int32"))
"""Sliding window (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150).

Query i, which stands at key p = i + keys - queries, sees the keys p - window_left to p + window_right; a negative width
has no bound.
"""

PrefixLM = _variant("PrefixLM", "prefix_lm.h", dm.tensor("prefix_lens", "int32", "batch"))
"""Causal, and every query sees the first prefix_lens[b] keys (Raffel et al. 2020, https://arxiv.org/abs/1910.10683).

Parameters: prefix_lens, int32 [batch].
"""

KeyPadding = _variant("KeyPadding", "key_padding.h", dm.tensor("kv_valid", "int32", "batch"))
"""Only the first kv_valid[b] keys of a sequence count. Parameters: kv_valid, int32 [batch]."""

KeyMask = _variant("KeyMask", "key_mask.h", dm.tensor("key_mask", "bool", "*keys"))
"""Only the keys where key_mask is True count. Parameters: key_mask, bool [batch, keys] or ragged [tokens]."""

DocumentMask = _variant(
    "DocumentMask",
    "document_mask.h",
    dm.tensor("qo_documents", "int32", "*queries"),
    dm.tensor("kv_documents", "int32", "*keys"),
)
"""A query sees the keys of its own document: packed sequences.

Parameters: qo_documents, kv_documents, int32, the number of each token's document, [batch, length] or ragged [tokens].
"""

SoftCap = _variant("SoftCap", "soft_cap.h", dm.scalar("soft_cap"))
"""Logits x become soft_cap tanh(x / soft_cap) (Gemma 2, https://arxiv.org/abs/2408.00118)."""

ALiBi = _variant("ALiBi", "alibi.h", dm.tensor("alibi_slopes", "float32", "heads"))
"""Logits fall by slope[h] |j - p|, p as for Window (Press et al. 2022, https://arxiv.org/abs/2108.12409).

Parameters: alibi_slopes, float32 [heads].
"""

Sinks = _variant("Sinks", "sinks.h", dm.tensor("sinks", "float32", "heads"))
"""One more logit a head in the softmax that has no value (gpt-oss; Xiao et al. 2024, https://arxiv.org/abs/2309.17453).

Parameters: sinks, float32 [heads], natural units.
"""

CustomMask = _variant(
    "CustomMask",
    "custom_mask.h",
    dm.tensor("mask", "bool", "batch, queries, keys"),
    dm.tensor("maybe_mask_starts", "int64", "batch"),
)
"""A key counts where mask is True.

Parameters: mask, bool [batch, queries, keys] row-major, or flat with maybe_mask_starts, int64 [batch], where each
sequence's begins.
"""

BroadcastMask = _variant(
    "BroadcastMask",
    "broadcast_mask.h",
    dm.tensor("broadcast_mask", "bool", "batch|1, heads|1, queries, keys"),
    dm.scalar("mask_batch_stride", "int64"),
    dm.scalar("mask_head_stride", "int64"),
)
"""A key counts where the mask is True, by head and shared by sequences; use `broadcast_mask(array)` to make one."""

PackedMask = _variant(
    "PackedMask", "custom_mask.h", dm.tensor("mask", "uint8"), dm.tensor("maybe_mask_starts", "int64", "batch")
)
"""CustomMask in bits: `numpy.packbits(mask, bitorder="little")` of the whole mask. Starts count bits."""

Bias = _variant(
    "Bias",
    "bias.h",
    dm.tensor("bias", "float32", "batch|1, heads|1, queries, keys"),
    dm.scalar("bias_batch_stride", "int64"),
    dm.scalar("bias_head_stride", "int64"),
)
"""Logits get bias[b, h, i, j] in natural units; use `additive_bias(array)` to make one."""


def additive_bias(bias: Any) -> dm.BoundVariant:
    """`Bias` from a float32 array [batch or 1, heads or 1, queries, keys], row-major.

    One batch or head is for all of them; queries and keys are those of the call.
    """
    return Bias(bias, *_strides("additive_bias", "bias", bias))


def broadcast_mask(mask: Any) -> dm.BoundVariant:
    """`BroadcastMask` from a bool array [batch or 1, heads or 1, queries, keys], as for `additive_bias`."""
    return BroadcastMask(mask, *_strides("broadcast_mask", "mask", mask))


def _strides(function: str, name: str, array: Any) -> tuple[int, int]:
    """Elements from one batch and one head to the next; 0 where there is one for all."""
    if len(array.shape) != 4:
        raise ValueError(f"{function}: argument '{name}': expected 4 dimensions, got shape {tuple(array.shape)}")
    batch, heads, queries, keys = array.shape
    return (heads * queries * keys if batch > 1 else 0), (queries * keys if heads > 1 else 0)
