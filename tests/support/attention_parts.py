"""The variants of the random problems (attention_configs.py): each with random parameters, and what it computes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.paths import EXAMPLES, SUPPORT

Array = npt.NDArray[Any]
Generator = np.random.Generator

DECAY = dm.Variant(
    "Decay",
    header="decay.h",
    params=(dm.scalar("rate"),),
    root=EXAMPLES / "variant",
)
FIRST_AND_WINDOW = dm.Variant(
    "FirstAndWindow",
    header="first_and_window.h",
    params=(dm.scalar("first_keys", "int32"), dm.scalar("left", "int32")),
    root=SUPPORT / "variants",
)
SEQUENCE_TEMPERATURE, HEAD_TEMPERATURE = (
    dm.Variant(
        name,
        header="temperature.h",
        params=(dm.tensor("temperatures", "float32", size),),
        root=EXAMPLES / "guides",
    )
    for name, size in (("SequenceTemperature", "batch"), ("HeadTemperature", "heads"))
)


def _first_and_window(x: Array, b: int, i: Array, j: Array, first_keys: int, left: int) -> Array:
    distance = j - (i + x.shape[-1] - x.shape[-2])
    return np.where((distance <= 0) & ((distance >= -left) | (j < first_keys)), x, -np.inf)


RULES = reference.RULES | {
    "FirstAndWindow": _first_and_window,
    "Decay": lambda x, b, i, j, rate: x - rate * np.abs(j - (i + x.shape[-1] - x.shape[-2])),
    "SequenceTemperature": lambda x, b, i, j, temperatures: x / temperatures[b],
    "HeadTemperature": lambda x, b, i, j, temperatures: x / temperatures[:, None, None],
}


@dataclass(frozen=True)
class Shape:
    """The lengths of the sequences of a batch, and the heads. Dense sequences all have the same length."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: int
    kv_heads: int
    ragged: bool
    tail: tuple[int, int] = (0, 0)  # rows of ragged queries and keys behind the last sequence

    @property
    def batch(self) -> int:
        return len(self.queries)


# A bound variant for a batch, and a function that returns the same for its sequence b alone, as the reference takes it.
Part = tuple[dm.BoundVariant, Callable[[int], dm.BoundVariant]]


def _same(bound: dm.BoundVariant) -> Part:
    return bound, lambda b: bound


def _for_each(variant: dm.Variant, values: Array) -> Part:
    return variant(values), lambda b: variant(values[b : b + 1])


def _documents(rng: Generator, shape: Shape) -> Part:
    ids = [[np.sort(rng.integers(0, 4, n)).astype(np.int32) for n in ns] for ns in (shape.queries, shape.keys)]
    if shape.ragged:
        arrays = [np.concatenate([*rows, np.zeros(more, np.int32)]) for rows, more in zip(ids, shape.tail, strict=True)]
    else:
        arrays = [np.array(rows, np.int32).reshape(shape.batch, -1 if rows else 5) for rows in ids]
    return at.DocumentMask(*arrays), lambda b: at.DocumentMask(ids[0][b][None], ids[1][b][None])


def _mask(rng: Generator, shape: Shape, packed: bool) -> Part:
    masks = [rng.random(size) < rng.choice([0.05, 0.5, 0.9]) for size in zip(shape.queries, shape.keys, strict=True)]
    spread = shape.ragged and bool(rng.random() < 0.5)  # otherwise the masks follow each other
    gaps = rng.integers(0, 20, shape.batch) if spread else np.zeros(shape.batch, np.int64)
    pieces = [np.concatenate([rng.random(gap) < 0.5, m.reshape(-1)]) for gap, m in zip(gaps, masks, strict=True)]
    starts = np.cumsum([0, *(piece.size for piece in pieces)], dtype=np.int64)[:-1] + gaps if spread else None
    flat = np.concatenate([np.empty(0, bool), *pieces])
    if packed:
        bound = at.PackedMask(np.packbits(flat, bitorder="little"), starts)
    else:
        dense = (shape.batch, *(masks[0].shape if masks else (5, 5)))
        bound = at.CustomMask(flat if shape.ragged else flat.reshape(dense), starts)
    return bound, lambda b: at.CustomMask(masks[b][None], None)


def _bias(rng: Generator, shape: Shape) -> Part:
    size = max((q * k for q, k in zip(shape.queries, shape.keys, strict=True)), default=0)
    batch, heads = (int(rng.choice([1, n])) for n in (shape.batch, shape.heads))
    flat = rng.standard_normal(batch * heads * size, dtype=np.float32)
    batch_stride, head_stride = (heads * size if batch > 1 else 0), (size if heads > 1 else 0)

    def alone(b: int) -> dm.BoundVariant:
        q, k = shape.queries[b], shape.keys[b]
        starts = [b * batch_stride + h * head_stride for h in range(heads)]
        return at.additive_bias(np.stack([flat[s : s + q * k].reshape(q, k) for s in starts])[None])

    return at.Bias(flat, batch_stride, head_stride), alone


def _lengths(rng: Generator, lengths: tuple[int, ...]) -> Array:
    """Return for each sequence a number of first keys: none, some, all, or more than there are."""
    return np.array([rng.choice([0, rng.integers(0, n + 1), n, n + 7]) for n in lengths], np.int32)


def _per_head(rng: Generator, shape: Shape) -> Array:
    return rng.standard_normal(shape.heads, dtype=np.float32)


# The parameters keep logits that matter below about 20: a logit of 100 already has an error of 4e-6 in float32.
_WIDTHS = [-1, 0, 1, 5, 47, 64, 100, 5000]
PARTS: dict[str, Callable[[Generator, Shape], Part]] = {
    "Plain": lambda rng, shape: _same(at.Plain()),
    "Causal": lambda rng, shape: _same(at.Causal()),
    "Window": lambda rng, shape: _same(at.Window(int(rng.choice(_WIDTHS)), int(rng.choice(_WIDTHS)))),
    "PrefixLM": lambda rng, shape: _for_each(at.PrefixLM, _lengths(rng, shape.keys)),
    "KeyPadding": lambda rng, shape: _for_each(at.KeyPadding, _lengths(rng, shape.keys)),
    "DocumentMask": _documents,
    "SoftCap": lambda rng, shape: _same(at.SoftCap(float(rng.uniform(1.0, 30.0)))),
    "ALiBi": lambda rng, shape: _same(at.ALiBi(np.exp2(-rng.uniform(4, 10, shape.heads)).astype(np.float32))),
    "Sinks": lambda rng, shape: _same(at.Sinks(2 * _per_head(rng, shape))),
    "CustomMask": functools.partial(_mask, packed=False),
    "PackedMask": functools.partial(_mask, packed=True),
    "Bias": _bias,
    "Decay": lambda rng, shape: _same(DECAY(float(rng.uniform(0.0, 0.06)))),
    "FirstAndWindow": lambda rng, shape: _same(
        FIRST_AND_WINDOW(int(rng.integers(0, 80)), int(rng.choice([0, 20, 100, 200])))
    ),
    # Must be last in a composition: a part after it would change weights instead of logits.
    "FlashSigmoid": lambda rng, shape: _same(
        at.FlashSigmoid(float(rng.uniform(0.02, 0.06)), float(rng.uniform(-5.0, 0.0)))
    ),
}


def _key_mask(rng: Generator, shape: Shape) -> Part:
    keep = [rng.random(n) < 0.7 for n in shape.keys]
    return at.KeyMask(_each_key(keep, shape)), lambda b: at.KeyMask(keep[b][None])


def _each_key(rows: list[Array], shape: Shape) -> Array:
    """Return an array with an element for each key, [tokens] or [batch, keys]."""
    return np.concatenate([*rows, np.zeros(shape.tail[1], bool)]) if shape.ragged else np.array(rows)


def _tree_mask(rng: Generator, shape: Shape) -> Part:
    """Return masks with any bits, among them those of nodes that come later, and of queries that are no nodes."""
    bits = [rng.integers(-(2**63), 2**63, n) for n in shape.queries]
    if shape.ragged:
        return at.TreeMask(np.concatenate([*bits, np.zeros(shape.tail[0], int)])), lambda b: at.TreeMask(bits[b][None])
    return at.TreeMask(np.array(bits).reshape(shape.batch, -1 if bits else 5)), lambda b: at.TreeMask(bits[b][None])


def _broadcast_mask(rng: Generator, shape: Shape) -> Part:
    bound, alone = _bias(rng, shape)
    flat, batch_stride, head_stride = bound.args

    def of(b: int) -> dm.BoundVariant:
        bias = alone(b).args[0]
        return at.BroadcastMask(bias < 0.5, 0, bias[0, 0].size if bias.shape[1] > 1 else 0)

    return at.BroadcastMask(flat < 0.5, batch_stride, head_stride), of


def _sequence_alibi(rng: Generator, shape: Shape) -> Part:
    slopes = np.exp2(-rng.uniform(4, 10, (shape.batch, shape.heads))).astype(np.float32)
    return _for_each(at.SequenceALiBi, slopes)


# Variants that the random problems above leave to tests of their own.
MORE: dict[str, Callable[[Generator, Shape], Part]] = {
    "ChunkedCausal": lambda rng, shape: _same(at.ChunkedCausal(int(rng.choice([1, 5, 48, 64, 100, 2**31 - 1])))),
    "CausalKeyPadding": lambda rng, shape: _for_each(at.CausalKeyPadding, _lengths(rng, shape.keys)),
    "KeyMask": _key_mask,
    "BroadcastMask": _broadcast_mask,
    "TreeMask": _tree_mask,
    "SequenceALiBi": _sequence_alibi,
    # Powers of 2, because GPU kernels round queries to their dtype again.
    "SequenceTemperature": lambda rng, shape: _for_each(
        SEQUENCE_TEMPERATURE, np.exp2(rng.integers(-1, 3, shape.batch)).astype(np.float32)
    ),
    "HeadTemperature": lambda rng, shape: _same(
        HEAD_TEMPERATURE(rng.uniform(0.7, 2.0, shape.heads).astype(np.float32))
    ),
}
