"""The built-in variants: a struct in a header each, and its declaration here.

In the docstrings, query i of a sequence stands at key p = i + keys - queries: masks are aligned bottom-right. A variant
of your own is declared in the same way, with `dimorph.Variant`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""Causal mask: query i sees the keys j <= p. No parameters."""

FlashSigmoid = _variant("FlashSigmoid", "flash_sigmoid.h", dm.scalar("scale"), dm.scalar("bias"))
"""sigmoid(scale q k^T + bias) v, not normalised (Ramapuram et al. 2024, https://arxiv.org/abs/2409.04431).

Parameters: scale and bias, float32. The paper advises a bias of -ln(keys). The `scale` of `attention` is ignored.
"""

Window = _variant("Window", "window.h", dm.scalar("window_left", "int32"), dm.scalar("window_right", "int32"))
"""Sliding window: query i sees the keys p - window_left to p + window_right (Beltagy et al. 2020,
https://arxiv.org/abs/2004.05150).

Parameters: window_left and window_right, int32, numbers of keys; a negative one sets no bound on its side.
"""

ChunkedCausal = _variant("ChunkedCausal", "chunked_causal.h", dm.scalar("chunk", "int32"))
"""Causal mask inside chunks: query i sees the keys j <= p with j // chunk == p // chunk (Llama 4,
https://ai.meta.com/blog/llama-4-multimodal-intelligence/).

Parameters: chunk, int32, the number of keys in a chunk, 1 or more. Chunks begin at each sequence's first key.
"""

PrefixLM = _variant("PrefixLM", "prefix_lm.h", dm.tensor("prefix_lens", "int32", "batch"))
"""Causal mask with a prefix that every query sees (Raffel et al. 2020, https://arxiv.org/abs/1910.10683).

Parameters: prefix_lens, int32 [batch], the number of keys in each sequence's prefix.
"""

KeyPadding = _variant("KeyPadding", "key_padding.h", dm.tensor("kv_valid", "int32", "batch"))
"""Mask of padding at the end: queries see the first keys of their sequence.

The alignment of other masks stays: `compose(Causal, KeyPadding(kv_valid))` aligns the last query with the last key,
though it may be padding. See `CausalKeyPadding`.

Parameters: kv_valid, int32 [batch], the number of those keys.
"""

CausalKeyPadding = _variant("CausalKeyPadding", "causal_key_padding.h", dm.tensor("kv_valid", "int32", "batch"))
"""Causal mask over the first keys of each sequence: query i sees the keys j <= i + kv_valid - queries.

The last query is aligned with the last key that counts, as with `seqused_k` or `cache_seqlens` in FlashAttention: new
queries against a cache of keys that is longer than what is in it.

Parameters: kv_valid, int32 [batch], the number of those keys, the new ones among them.
"""

KeyMask = _variant("KeyMask", "key_mask.h", dm.tensor("key_mask", "bool", "*keys"))
"""Mask of keys, the same for all queries of a sequence.

Parameters: key_mask, bool [batch, keys] or ragged [key tokens], True where queries see the key.
"""

DocumentMask = _variant(
    "DocumentMask",
    "document_mask.h",
    dm.tensor("qo_documents", "int32", "*queries"),
    dm.tensor("kv_documents", "int32", "*keys"),
)
"""Mask for documents that are packed into one sequence: a query sees the keys of its own document.

Parameters: qo_documents and kv_documents, int32 [batch, length] or ragged [tokens], the document of each token.
"""

TreeMask = _variant("TreeMask", "tree_mask.h", dm.tensor("tree_mask", "int64", "*queries"))
"""Mask of trees of speculated tokens, which one call verifies (Miao et al. 2023, https://arxiv.org/abs/2305.09781).

The last n = min(64, queries) queries of a sequence are the nodes of its tree, and its last n keys are theirs. A node
sees all keys before those, and of the nodes the ones that its bits name. Queries before the nodes are causal.

Parameters: tree_mask, int64 [batch, queries] or ragged [query tokens]: bit j of a node's element is 1 if it sees node
j. `tree_bits` makes it of the parents. Elements of queries before the nodes are not read.
"""

SoftCap = _variant("SoftCap", "soft_cap.h", dm.scalar("soft_cap"))
"""Soft cap of the logits: x becomes soft_cap tanh(x / soft_cap) (Gemma 2, https://arxiv.org/abs/2408.00118).

Parameters: soft_cap, float32.
"""

ALiBi = _variant("ALiBi", "alibi.h", dm.tensor("alibi_slopes", "float32", "heads"))
"""Linear bias by distance: the logit of key j falls by slope |j - p| (Press et al. 2022,
https://arxiv.org/abs/2108.12409).

Parameters: alibi_slopes, float32 [heads]. See `SequenceALiBi` for slopes [batch, heads].
"""

SequenceALiBi = _variant("SequenceALiBi", "sequence_alibi.h", dm.tensor("alibi_slopes", "float32", "batch, heads"))
"""`ALiBi` with slopes of each sequence's own, as FlashAttention takes them.

Parameters: alibi_slopes, float32 [batch, heads].
"""

Sinks = _variant("Sinks", "sinks.h", dm.tensor("sinks", "float32", "heads"))
"""Attention sinks: one more logit in the softmax of each head, without a value (gpt-oss,
https://arxiv.org/abs/2508.10925; Xiao et al. 2024, https://arxiv.org/abs/2309.17453).

Parameters: sinks, float32 [heads], these logits.
"""

CustomMask = _variant(
    "CustomMask",
    "custom_mask.h",
    dm.tensor("mask", "bool", "batch, queries, keys"),
    dm.tensor("maybe_mask_starts", "int64", "batch"),
)
"""Any mask, the same for all heads.

Parameters: mask, bool [batch, queries, keys], row-major, True where the query sees the key. Or a flat mask, and
maybe_mask_starts, int64 [batch], the index at which each sequence's mask starts. Beside lengths apart from the room,
queries and keys are those of the room, and a flat mask has those in use.
"""

BroadcastMask = _variant(
    "BroadcastMask",
    "broadcast_mask.h",
    dm.tensor("broadcast_mask", "bool", "batch|1, heads|1, queries, keys"),
    dm.scalar("mask_batch_stride", "int64"),
    dm.scalar("mask_head_stride", "int64"),
)
"""Any mask, which sequences or heads may share; made by `broadcast_mask`."""

PackedMask = _variant(
    "PackedMask", "custom_mask.h", dm.tensor("mask", "uint8"), dm.tensor("maybe_mask_starts", "int64", "batch")
)
"""`CustomMask` with a bit for each query and key.

Parameters: mask, uint8, as `numpy.packbits(mask, bitorder="little")` makes it of the whole mask; maybe_mask_starts,
int64 [batch], in bits.
"""

Bias = _variant(
    "Bias",
    "bias.h",
    dm.tensor("bias", "float32", "batch|1, heads|1, queries, keys"),
    dm.scalar("bias_batch_stride", "int64"),
    dm.scalar("bias_head_stride", "int64"),
)
"""Bias that is added to the scaled logits, which sequences or heads may share; made by `additive_bias`."""


def additive_bias(bias: Any) -> dm.BoundVariant:
    """Bind `Bias` to an array.

    Args:
        bias: float32 [batch or 1, heads or 1, queries, keys], row-major; a size of 1 is shared by all sequences or
            heads. Beside lengths apart from the room, queries and keys are those of the room.

    Raises:
        TypeError: it is no array.
        ValueError: the array does not have 4 dimensions.
    """
    return Bias(bias, *_strides("additive_bias", "bias", bias))


def broadcast_mask(mask: Any) -> dm.BoundVariant:
    """Bind `BroadcastMask` to an array.

    Args:
        mask: bool [batch or 1, heads or 1, queries, keys], row-major, True where the query sees the key; a size of 1 is
            shared by all sequences or heads. Beside lengths apart from the room, queries and keys are those of the
            room.

    Raises:
        TypeError: it is no array.
        ValueError: the array does not have 4 dimensions.
    """
    return BroadcastMask(mask, *_strides("broadcast_mask", "mask", mask))


def tree_bits(parents: Iterable[int]) -> list[int]:
    """Return the elements of a tree's nodes for `TreeMask`: each node sees itself and all nodes above it.

    Args:
        parents: the parent of each of up to 64 nodes, as the index of an earlier node, or -1: the last token before the
            tree. A chain is [-1, 0, 1, ...].

    Raises:
        ValueError: there are more nodes, or a parent is none of the nodes before.
    """
    bits: list[int] = []
    for node, parent in enumerate(parents):
        if node == 64:
            raise ValueError("tree_bits: argument 'parents': expected at most 64 nodes, got more")
        if not -1 <= parent < node:
            raise ValueError(
                f"tree_bits: argument 'parents': expected -1 or a node before {node} as its parent, got {parent}"
            )
        bits.append(1 << node | (bits[parent] if parent >= 0 else 0))
    return [element - (element >> 63 << 64) for element in bits]  # as int64, in which bit 63 is the sign


def _strides(function: str, name: str, array: Any) -> tuple[int, int]:
    """Return the strides of batch and heads in elements; 0 for a dimension of size 1."""
    if not hasattr(array, "shape") or isinstance(array, type):
        raise TypeError(f"{function}: argument '{name}': expected an array with a shape, got {reprlib.repr(array)}")
    if len(array.shape) != 4:
        raise ValueError(f"{function}: argument '{name}': expected 4 dimensions, got shape {tuple(array.shape)}")
    batch, heads, queries, keys = array.shape
    return (heads * queries * keys if batch > 1 else 0), (queries * keys if heads > 1 else 0)


if not TYPE_CHECKING:  # a type checker takes every name that is made here, and no list that is computed
    __all__ = [name for name, value in globals().items() if isinstance(value, dm.Variant)]
    __all__ += ["additive_bias", "broadcast_mask", "tree_bits"]
