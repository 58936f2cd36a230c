"""Calls with a user's variant that has every hook, and a tensor of each kind of size, over each kind of cache."""

from __future__ import annotations

from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.attention_parts import Array
from support.paths import SUPPORT

_SIZES = {
    "temperatures": "batch",
    "key_bias": "*keys, kv_heads",
    "first_terms": "heads",
    "last_terms": "*queries",
    "gates": "*queries, heads",
}
EVERY_HOOK = dm.Variant(
    "EveryHook",
    header="every_hook.h",
    params=tuple(dm.tensor(name, "float32", size) for name, size in _SIZES.items()),
    root=SUPPORT / "variants",
)
CACHES = ("block_table", "indptr", "dense", "ragged")
KEYS, HEADS, KV_HEADS, DIM, PAGE = (20, 700, 0, 150), 4, 2, 32, 16
# Queries of each sequence: dense, dense with lengths of their own, and ragged, some few and some many.
QUERIES = {"decode": (1, 1, 1, 1), "lengths": (5, 0, 2, 6), "ragged": (1, 70, 3, 33)}


def check(attend: Any, dtype: Any, kind: str, queries: str, *, composed: bool, most: float) -> None:
    """Make a call and compare the result with its definition in float64.

    Args:
        attend: the operation.
        dtype: of the arrays.
        kind: of the cache, one of CACHES.
        queries: one of QUERIES.
        composed: the variant is part of a composition.
        most: the allowed error.
    """
    rng = np.random.default_rng([CACHES.index(kind), len(queries), composed])
    counts = QUERIES[queries]
    q, k, v, bias, last, gates = (
        [rng.standard_normal((n, *size), dtype=np.float32) for n in lengths]
        for lengths, size in (
            *((counts, (HEADS, DIM)), (KEYS, (KV_HEADS, DIM)), (KEYS, (KV_HEADS, DIM))),
            *((KEYS, (KV_HEADS,)), (counts, ()), (counts, (HEADS,))),
        )
    )
    q, k, v = ([row.astype(dtype) for row in rows] for rows in (q, k, v))
    temperatures, first = np.array([0.5, 1, 2, 4], np.float32), rng.standard_normal(HEADS, dtype=np.float32)
    cache, rooms = _cache(rng, kind, k, v)
    flat_q, flat_k = queries == "ragged", kind in ("indptr", "ragged")
    q_rooms = list(counts) if flat_q else [max(counts) + (queries == "lengths")] * len(counts)
    args = (
        *(temperatures, _placed(bias, rooms, 0, flat=flat_k), first),
        *(_placed(rows, q_rooms, 0, flat=flat_q) for rows in (last, gates)),
    )
    variant = at.compose(at.SoftCap(8.0), EVERY_HOOK(*args), at.Window(300, -1)) if composed else EVERY_HOOK(*args)
    options: dict[str, Any] = {}
    if flat_q:
        options["cu_seqlens_q"] = np.cumsum([0, *counts], dtype=np.int32)
    elif queries == "lengths":
        options["seqlens_q"] = np.array(counts, np.int32)
    placed_q = _placed(q, q_rooms, np.nan, flat=flat_q)
    out, lse = attend(placed_q, cache, variant=variant, return_lse=True, **options)
    starts = np.cumsum([0, *counts])
    for b, n in enumerate(counts):
        rows = slice(starts[b], starts[b] + n) if flat_q else (b, slice(n))
        columns = np.repeat(bias[b].T, HEADS // KV_HEADS, 0)[None, :, None]  # [1, heads, 1, keys]
        parts = (at.SoftCap(8.0), at.Window(300, -1)) if composed else ()
        alone = at.compose(*parts, at.additive_bias(np.repeat(columns, n, 2)), at.Causal)
        weighed, sums = reference.attention(q[b][None] / temperatures[b], k[b][None], v[b][None], variant=alone)
        total = np.logaddexp(np.logaddexp(sums[0], first), last[b][:, None])
        share = np.exp(sums[0] - total) * gates[b]
        expected = weighed[0] * share[..., None] * np.where(np.arange(DIM) % 2, 2, 1)
        for name, found, right in (("out", out[rows], expected), ("lse", lse[rows], total)):
            off = np.abs(found.astype(np.float64) - right).max(initial=0.0)
            assert off <= most, f"{name} of sequence {b} is off by {off}"


def _placed(rows: list[Array], rooms: list[int], fill: float, *, flat: bool) -> Array:
    """Return the rows of each sequence in its room, one sequence after the other or, dense, beside each other."""
    placed = [
        np.concatenate([row, np.full((room - len(row), *row.shape[1:]), fill, row.dtype)])
        for row, room in zip(rows, rooms, strict=True)
    ]
    return np.concatenate(placed) if flat else np.array(placed)


def _cache(rng: np.random.Generator, kind: str, k: list[Array], v: list[Array]) -> tuple[at.KVCache, list[int]]:
    """Return a cache of the kind, with NaN where no keys are in use, and the room of each sequence."""
    lengths = np.array(KEYS, np.int32)
    if kind == "dense":
        rooms = [max(KEYS) + 5] * len(KEYS)
        return at.KVCache(*(_placed(x, rooms, np.nan, flat=False) for x in (k, v)), seqlens=lengths), rooms
    if kind == "ragged":
        rooms = [n + 5 for n in KEYS]
        starts = np.cumsum([0, *rooms], dtype=np.int32)
        pools = (_placed(x, rooms, np.nan, flat=True) for x in (k, v))
        return at.KVCache(*pools, cu_seqlens=starts, seqlens=lengths), rooms
    used = [-(-n // PAGE) for n in KEYS]
    pages = used if kind == "indptr" else [max(used) + 1] * len(KEYS)
    rooms, count = [n * PAGE for n in pages], sum(pages)
    numbers = rng.permutation(count + 3)[:count].astype(np.int32)
    pools = []
    for x in (k, v):
        pool = np.full((count + 3, PAGE, KV_HEADS, DIM), np.nan, x[0].dtype)
        pool[numbers] = _placed(x, rooms, np.nan, flat=True).reshape(-1, *pool.shape[1:])
        pools.append(pool)
    if kind == "block_table":
        return at.KVCache(*pools, block_table=numbers.reshape(len(KEYS), -1), seqlens=lengths), rooms
    last = np.array([n - (m - 1) * PAGE if n else PAGE for n, m in zip(KEYS, used, strict=True)], np.int32)
    starts = np.cumsum([0, *pages], dtype=np.int32)
    return at.KVCache(*pools, indptr=starts, indices=numbers, last_page_len=last), rooms
