"""Attention by its definition, in float64: slow, simple enough to read, and what kernels are compared with in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import dimorph as dm

Array = npt.NDArray[Any]

# Returns the transformed logits [heads, queries, keys] of one sequence, -inf where a query does not see a key.
# Arguments: logits, batch index, query indices [queries, 1], key indices [keys], and the variant's parameters.
Rule = Callable[..., Array]


def _masked(logits: Array, keep: Array) -> Array:
    result: Array = np.where(keep, logits, -np.inf)
    return result


def _position(logits: Array, i: Array) -> Array:
    """Return the key that each query stands at; the last query stands at the last key."""
    result: Array = i + (logits.shape[-1] - logits.shape[-2])
    return result


def _causal(x: Array, b: int, i: Array, j: Array) -> Array:
    return _masked(x, j <= _position(x, i))


def _window(x: Array, b: int, i: Array, j: Array, left: int, right: int) -> Array:
    p = _position(x, i)
    return _masked(x, ((j >= p - left) | (left < 0)) & ((j <= p + right) | (right < 0)))


def _chunked_causal(x: Array, b: int, i: Array, j: Array, chunk: int) -> Array:
    p = _position(x, i)
    return _masked(x, (j <= p) & (j // chunk == p // chunk))


def _prefix_lm(x: Array, b: int, i: Array, j: Array, lens: Array) -> Array:
    return _masked(x, (j <= _position(x, i)) | (j < lens[b]))


def _key_padding(x: Array, b: int, i: Array, j: Array, valid: Array) -> Array:
    return _masked(x, np.broadcast_to(j < valid[b], x.shape))


def _causal_key_padding(x: Array, b: int, i: Array, j: Array, valid: Array) -> Array:
    return _masked(x, j <= i + min(max(int(valid[b]), 0), x.shape[-1]) - x.shape[-2])


def _key_mask(x: Array, b: int, i: Array, j: Array, mask: Array) -> Array:
    return _masked(x, np.broadcast_to(mask[b], x.shape))


def _soft_cap(x: Array, b: int, i: Array, j: Array, cap: float) -> Array:
    return cap * np.tanh(x / cap)


def _alibi(x: Array, b: int, i: Array, j: Array, slopes: Array) -> Array:
    result: Array = x - slopes.astype(np.float64)[:, None, None] * np.abs(j - _position(x, i))
    return result


def _custom_mask(x: Array, b: int, i: Array, j: Array, mask: Array, starts: Array | None) -> Array:
    queries, keys = x.shape[-2:]
    first = b * queries * keys if starts is None else int(starts[b])
    return _masked(x, mask.reshape(-1)[first : first + queries * keys].reshape(queries, keys).astype(bool))


def _packed_mask(x: Array, b: int, i: Array, j: Array, mask: Array, starts: Array | None) -> Array:
    return _custom_mask(x, b, i, j, np.unpackbits(mask.reshape(-1), bitorder="little"), starts)


def _document_mask(x: Array, b: int, i: Array, j: Array, qo: Array, kv: Array) -> Array:
    return _masked(x, np.equal(qo[b][:, None], kv[b]))


def _tree_mask(x: Array, b: int, i: Array, j: Array, nodes: Array) -> Array:
    p, first = _position(x, i), x.shape[-1] - min(64, x.shape[-2])
    seen = nodes[b][:, None] >> np.clip(j - first, 0, 63) & 1
    return _masked(x, np.where((p < first) | (j < first), j <= p, seen))


def _bias(x: Array, b: int, i: Array, j: Array, bias: Array, batch_stride: int, head_stride: int) -> Array:
    batch, head = (b if batch_stride else 0), (slice(None) if head_stride else slice(0, 1))
    result: Array = x + bias[batch, head].astype(np.float64)
    return result


def _broadcast_mask(x: Array, b: int, i: Array, j: Array, mask: Array, batch_stride: int, head_stride: int) -> Array:
    return _masked(x, np.broadcast_to(mask[b if batch_stride else 0], x.shape))


def _sigmoid(x: Array, b: int, i: Array, j: Array, scale: float, bias: float) -> Array:
    result: Array = 1.0 / (1.0 + np.exp(-(x * np.float64(np.float32(scale)) + np.float64(np.float32(bias)))))
    return result


RULES: dict[str, Rule] = {
    "Plain": lambda x, b, i, j: x,
    "Causal": _causal,
    "Window": _window,
    "ChunkedCausal": _chunked_causal,
    "PrefixLM": _prefix_lm,
    "KeyPadding": _key_padding,
    "CausalKeyPadding": _causal_key_padding,
    "KeyMask": _key_mask,
    "DocumentMask": _document_mask,
    "TreeMask": _tree_mask,
    "SoftCap": _soft_cap,
    "ALiBi": _alibi,
    "SequenceALiBi": lambda x, b, i, j, slopes: _alibi(x, b, i, j, slopes[b]),
    "CustomMask": _custom_mask,
    "PackedMask": _packed_mask,
    "BroadcastMask": _broadcast_mask,
    "Bias": _bias,
    "FlashSigmoid": _sigmoid,
    "Sinks": lambda x, b, i, j, sinks: x,
}


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    variant: dm.BoundVariant,
    scale: float | None = None,
    rules: dict[str, Rule] = RULES,
) -> tuple[Array, Array]:
    """Compute dense attention in float64.

    Args:
        q: [batch, queries, heads, head_dim_qk], any dtype.
        k: [batch, keys, kv_heads, head_dim_qk].
        v: [batch, keys, kv_heads, head_dim_vo].
        variant: a variant whose name, or whose parts' names, `rules` has; the parts are applied in order.
        scale: factor of the logits; default: 1/sqrt(head_dim_qk). Ignored without softmax.
        rules: variant name -> its effect on the logits.

    Returns:
        out [batch, queries, heads, head_dim_vo] and lse [batch, queries, heads], float64. lse is the natural
        log-sum-exp of the logits. A query that sees no key has output 0 and lse -inf. Without softmax, the weights of
        masked keys are 0 and lse is NaN.
    """
    parts = variant.variant.parts or (variant.variant,)
    softmax = all(part.name != "FlashSigmoid" for part in parts)
    factor = (q.shape[-1] ** -0.5 if scale is None else scale) if softmax else 1.0
    group = q.shape[2] // k.shape[2]
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    lse = np.full(q.shape[:-1], -np.inf)
    i, j = np.arange(q.shape[1])[:, None], np.arange(k.shape[1])
    for b in range(q.shape[0]):
        q64, k64, v64 = (np.moveaxis(x[b].astype(np.float64), 1, 0) for x in (q, k, v))
        k64, v64 = np.repeat(k64, group, 0), np.repeat(v64, group, 0)
        logits = factor * (q64 @ k64.swapaxes(-1, -2))
        mask = np.zeros_like(logits)
        args = list(variant.args)
        sink = None
        for part in parts:
            own, args = args[: len(part.params)], args[len(part.params) :]
            logits = rules[part.name](logits, b, i, j, *own)
            mask = np.where(np.isneginf(logits), -np.inf, mask)
            sink = np.asarray(own[0], np.float64) if part.name == "Sinks" else sink
        weights, total = _weights(logits, mask, sink) if softmax else (np.where(mask == 0, logits, 0.0), None)
        out[b] = np.moveaxis(weights @ v64, 0, 1)
        lse[b] = np.nan if total is None else total.T
    return out, lse


def _weights(logits: Array, mask: Array, sink: Array | None) -> tuple[Array, Array]:
    """Return the softmax over the keys, with one more logit for each head if there are sinks, and its log-sum-exp."""
    logits = logits + mask
    top = logits.max(-1, initial=-np.inf)
    if sink is not None:
        top = np.maximum(top, sink[:, None])
    safe = np.where(np.isneginf(top), 0.0, top)
    weights = np.exp(logits - safe[..., None])
    total = weights.sum(-1) + (0.0 if sink is None else np.exp(sink[:, None] - safe))
    with np.errstate(divide="ignore"):
        lse = safe + np.log(total)
    return weights / np.where(total == 0, 1.0, total)[..., None], lse
