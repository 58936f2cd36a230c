"""Tensors with an element for each query and key beside a cache: flat, or in the shape of the room."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import KVCache

pytestmark = pytest.mark.usefixtures("warm_store")

ROOM, KEYS = 64, np.array([20, 60], np.int32)
_rng = np.random.default_rng(1)
K, V = _rng.standard_normal((2, 2, ROOM, 2, 32), dtype=np.float32)
_table = np.array([[4, 3, 1, 8], [5, 6, 7, 0]], np.int32)
_pools = np.full((2, 9, 16, 2, 32), np.nan, np.float32)
for _pool, _rows in zip(_pools, (K, V), strict=True):
    _pool[_table] = _rows.reshape(2, 4, 16, 2, 32)
CACHES = {
    "block table": KVCache(*_pools, block_table=_table, seqlens=KEYS),
    "dense": KVCache(K, V, seqlens=KEYS),
    "heads first": KVCache(*(x.swapaxes(1, 2).copy() for x in (K, V)), seqlens=KEYS, layout="HND"),
}
INDEX = {"indptr": [0, 2, 6], "indices": [4, 3, 5, 6, 7, 0], "last_page_len": [4, 12]}
BY_INDPTR = KVCache(*_pools, **{name: np.array(x, np.int32) for name, x in INDEX.items()})
RAGGED = KVCache(K.reshape(-1, 2, 32), V.reshape(-1, 2, 32), cu_seqlens=np.array([0, ROOM, 2 * ROOM], np.int32))


def close(out: Any, q: Any, counts: tuple[int, int], alone: Any) -> None:
    """Check each sequence against a call of its own; `alone` makes its variant of its index and lengths."""
    for b, (n, m) in enumerate(zip(counts, KEYS, strict=True)):
        expected = at.attention(q[b : b + 1, :n], K[b : b + 1, :m], V[b : b + 1, :m], variant=alone(b, n, m))
        assert np.allclose(out[b, :n], expected[0], atol=2e-6), b


def test_flat_matrices_are_as_large_as_the_lengths_in_use() -> None:
    q, seen = _rng.standard_normal((2, 3, 4, 32), dtype=np.float32), _rng.random((2, 4, 3, ROOM)) < 0.5
    starts, slot = np.array([200, 0]), 3 * ROOM
    mask, slots = np.zeros(200 + 3 * KEYS[0], bool), np.zeros((2, 4, slot), np.float32)
    for b, n in enumerate(KEYS):
        mask[starts[b] : starts[b] + 3 * n] = seen[b, 0, :, :n].reshape(-1)
        slots[b, :, : 3 * n] = seen[b, :, :, :n].reshape(4, -1)
    flat = slots.reshape(-1)
    packed = np.packbits(np.concatenate([seen[b, 0, :, :n].reshape(-1) for b, n in enumerate(KEYS)]), bitorder="little")
    for variant, of in (
        (at.CustomMask(mask, starts), lambda x: at.CustomMask(x[:, 0].copy(), None)),
        (at.PackedMask(packed, None), lambda x: at.CustomMask(x[:, 0].copy(), None)),
        (at.Bias(flat, 4 * slot, slot), lambda x: at.additive_bias(x.astype(np.float32))),
        (at.BroadcastMask(flat > 0, 4 * slot, slot), lambda x: at.broadcast_mask(x.copy())),
    ):
        for cache in (*CACHES.values(), BY_INDPTR):
            out = at.attention(q, cache, variant=variant)
            close(out, q, (3, 3), lambda b, n, m, of=of: of(seen[b : b + 1, :, :n, :m]))


@pytest.mark.parametrize("counts", [(1, 1), (3, 2), (40, 1), (40, 33)])
@pytest.mark.parametrize("kind", CACHES)
def test_matrices_may_have_the_shape_of_the_room(kind: str, counts: tuple[int, int]) -> None:
    """Keys behind the lengths in use are not read."""
    rows = max(counts) + 1
    q, bias = (_rng.standard_normal(size, dtype=np.float32) for size in ((2, rows, 4, 32), (2, 4, rows, ROOM)))
    seen = _rng.random((2, 4, rows, ROOM)) < 0.5
    for b, (n, m) in enumerate(zip(counts, KEYS, strict=True)):
        bias[b, :, n:], bias[b, :, :, m:] = np.nan, np.nan
    packed = [np.ones((n, m), bool) for n, m in zip(counts, KEYS, strict=True)]
    packed[1][:, ::3] = False
    bits = np.packbits(np.concatenate([x.reshape(-1) for x in packed]), bitorder="little")
    for variant, of in (
        (
            at.CustomMask(seen[:, 1].copy(), None),
            lambda b, n, m: at.CustomMask(seen[b : b + 1, 1, :n, :m].copy(), None),
        ),
        (
            at.CustomMask(seen[::-1, 0].copy(), np.array([rows * ROOM, 0])),
            lambda b, n, m: at.CustomMask(seen[b : b + 1, 0, :n, :m].copy(), None),
        ),
        (at.additive_bias(bias), lambda b, n, m: at.additive_bias(bias[b : b + 1, :, :n, :m].copy())),
        (at.broadcast_mask(seen), lambda b, n, m: at.broadcast_mask(seen[b : b + 1, :, :n, :m].copy())),
        (
            at.broadcast_mask(seen[1:, :1].copy()),
            lambda b, n, m: at.broadcast_mask(seen[1:, :1, :n, :m].copy()),
        ),
        (
            at.compose(at.additive_bias(bias), at.broadcast_mask(seen), at.PackedMask(bits, None), at.Causal),
            lambda b, n, m: at.compose(
                at.additive_bias(bias[b : b + 1, :, :n, :m].copy()),
                at.broadcast_mask(seen[b : b + 1, :, :n, :m] & packed[b]),
                at.Causal,
            ),
        ),
    ):
        out = at.attention(q, CACHES[kind], variant=variant, seqlens_q=np.array(counts, np.int32))
        close(out, q, counts, of)


@pytest.mark.parametrize("cache", [BY_INDPTR, RAGGED], ids=["indptr", "ragged"])
def test_rooms_of_several_sizes_have_no_such_shape(cache: KVCache) -> None:
    q, seen = np.zeros((2, 3, 4, 32), np.float32), np.ones((2, 4, 3, ROOM), bool)
    for name, variant in (
        ("mask", at.CustomMask(seen[:, 0].copy(), None)),
        ("bias", at.additive_bias(seen.astype(np.float32))),
        ("broadcast_mask", at.broadcast_mask(seen)),
    ):
        with pytest.raises(ValueError, match=f"attention: argument '{name}': expected 1 dimension, the matrices of"):
            at.attention(q, cache, variant=variant)


def _ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (at.CustomMask(_ones(2, 3, 60) > 0, None), r"'mask': expected .* here \(2, 3, 64\), got \(2, 3, 60\)"),
        (at.additive_bias(_ones(2, 4, 2, 64)), r"'bias': .* here \(2 or 1, 4 or 1, 3, 64\), got \(2, 4, 2, 64\)"),
        (at.broadcast_mask(_ones(1, 1, 3, 65) > 0), r"'broadcast_mask': .*, 3, 64\), got \(1, 1, 3, 65\)"),
        (at.PackedMask(np.ones((2, 24), np.uint8), None), "'mask': expected 1 dimension, the matrices of all"),
        (at.CustomMask(_ones(2, 3, 64) > 0, np.array([0, 200])), "'maybe_mask_starts': expected all of sequence 1"),
        (at.Bias(_ones(2, 4, 3, 64), 780, 192), "'bias_head_stride': expected all of sequence 1 inside the 1536"),
        (
            at.compose(at.additive_bias(_ones(2, 4, 3, 64)), at.CustomMask(_ones(240) > 0, None)),
            "'mask': expected the shape of the room, as 'bias' has, got 1 dimension$",
        ),
        (
            at.compose(at.CustomMask(_ones(240) > 0, None), at.additive_bias(_ones(2, 4, 3, 64))),
            "'bias': expected 1 dimension, as 'mask' has, got 4 dimensions$",
        ),
    ],
)
def test_what_has_another_shape_is_refused(variant: dm.BoundVariant, said: str) -> None:
    for cache in CACHES.values():
        with pytest.raises(ValueError, match=f"attention: argument {said}"):
            at.attention(_ones(2, 3, 4, 32), cache, variant=variant)
