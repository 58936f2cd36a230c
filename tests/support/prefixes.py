"""Random problems of `attend_shared`: sequences whose first keys are those of prefixes, in caches of every kind."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.attention_configs import DTYPES, Array, Generator

KINDS = ("dense", "room", "ragged", "block_table", "indptr")
# Each variant in two dtypes and each dtype with several variants, but not all beside all: each pair is four kernels.
VARIANTS = {
    "float32": ("Plain", "Causal", "Sinks", "Causal+SoftCap+Sinks"),
    "bfloat16": ("Plain", "Causal+SoftCap+Sinks"),
    "float16": ("Causal", "Sinks"),
}
HEAD_DIMS = {"float32": (64, 64), "bfloat16": (128, 128), "float16": (64, 32)}
# The largest error, relative to the largest sum of weighted values.
BAR = {"float32": 3e-6, "bfloat16": 2e-2, "float16": 2.5e-3}


@dataclass
class SharedProblem:
    """A call of `attend_shared`.

    Attributes:
        words: what it is, for messages.
        dtype: of the arrays.
        queries, keys, values: of each sequence, the keys those of its prefixes and its own, [rows, heads, head_dim].
        q, levels, cache, bound, cu_seqlens_q: the arguments.
    """

    words: str
    dtype: str
    queries: list[Array]
    keys: list[Array]
    values: list[Array]
    q: Array
    levels: list[at.KVCache]
    cache: at.KVCache
    bound: dm.BoundVariant
    cu_seqlens_q: Array | None


def shared_problem(seed: int, dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")) -> SharedProblem:
    """Return a problem; the same each time."""
    rng = np.random.default_rng([seed, 7])
    dtype = dtypes[seed % len(dtypes)]
    variant = str(rng.choice(VARIANTS[dtype]))
    dims, kv_heads, group = HEAD_DIMS[dtype], int(rng.integers(1, 3)), int(rng.choice([1, 4]))
    batch = int(rng.choice([1, 2, 4, 6]))
    ragged = bool(rng.random() < 0.5)
    counts = rng.integers(0, 40, batch) if ragged else np.full(batch, rng.choice([1, 1, 3, 40]))

    def new(rows: int, heads: int, dim: int) -> Array:
        return rng.standard_normal((int(rows), heads, dim)).astype(DTYPES[dtype])

    def states(lengths: Any) -> list[list[Array]]:
        return [[new(length, kv_heads, dim) for length in lengths] for dim in dims]

    # Under a causal mask, the first query may stand at the last key of the prefix.
    lengths = np.maximum(counts - 1, 0) + rng.integers(0, 60, batch)
    own_kind = str(rng.choice(KINDS))
    lengths = np.full(batch, lengths.max()) if own_kind == "dense" else lengths
    own = states(lengths)
    levels, whole = [], [[part[b] for b in range(batch)] for part in own]
    for groups in sorted(rng.choice([g for g in (1, 2, 3) if batch % g == 0], int(rng.integers(1, 3))))[::-1]:
        kind = str(rng.choice(KINDS))
        longest = int(rng.choice([0, 5, 100]))
        shared = states([longest] * groups if kind == "dense" else rng.integers(0, longest + 1, groups))
        levels.insert(0, cache_of(rng, kind, *shared))
        whole = [
            [np.concatenate([part[b * groups // batch], mine[b]]) for b in range(batch)]
            for part, mine in zip(shared, whole, strict=True)
        ]
    queries = [new(count, group * kv_heads, dims[0]) * np.array(3, DTYPES[dtype]) for count in counts]
    behind = [new(int(rng.integers(0, 3)), group * kv_heads, dims[0])] if ragged else []
    return SharedProblem(
        f"seed {seed}: {dtype} {variant} {dims}, heads {group} x {kv_heads}, queries {counts.tolist()}, own keys "
        f"{lengths.tolist()} in {own_kind}, ragged {ragged}",
        dtype,
        queries,
        *whole,
        np.concatenate(queries + behind) if ragged else np.stack(queries),
        levels,
        cache_of(rng, own_kind, *own),
        _variant(rng, variant, group * kv_heads),
        np.cumsum([0, *counts], dtype=np.int32) if ragged else None,
    )


def cache_of(rng: Generator, kind: str, keys: list[Array], values: list[Array]) -> at.KVCache:
    """Return a cache with the keys and values of sequences among NaN; "dense": they have one length."""
    lengths = np.array([len(k) for k in keys], np.int32)
    if kind == "dense":
        return at.KVCache(np.stack(keys), np.stack(values))
    if kind == "ragged":
        starts = np.cumsum([0, *lengths], dtype=np.int32)
        return at.KVCache(np.concatenate(keys), np.concatenate(values), cu_seqlens=starts)
    size = int(rng.choice([1, 16])) if kind != "room" else int(lengths.max()) + 3
    used = -(-lengths // size) if kind != "room" else np.ones_like(lengths)
    numbers = rng.permutation(int(used.sum()) + 2).astype(np.int32) if kind != "room" else np.arange(len(keys))
    pools = []
    for parts in (keys, values):
        pool = np.full((len(numbers), size, *parts[0].shape[1:]), np.nan, parts[0].dtype)
        pages = np.split(numbers[: used.sum()], np.cumsum(used)[:-1])
        for part, own in zip(parts, pages, strict=True):
            for i, page in enumerate(own):
                rows = part[i * size : (i + 1) * size]
                pool[page, : len(rows)] = rows
        pools.append(pool)
    if kind == "room":
        return at.KVCache(*pools, seqlens=lengths)
    if kind == "indptr":
        last = np.where(lengths > 0, lengths - (used - 1) * size, 1).astype(np.int32)
        starts = np.cumsum([0, *used], dtype=np.int32)
        return at.KVCache(*pools, indptr=starts, indices=numbers[: used.sum()].copy(), last_page_len=last)
    table = np.full((len(keys), max(int(used.max()), 1)), -1, np.int32)
    for row, own in zip(table, pages, strict=True):
        row[: len(own)] = own
    return at.KVCache(*pools, block_table=table, seqlens=lengths)


def check(problem: SharedProblem, move: Any, back: Any) -> str:
    """Call `attend_shared`; return what is wrong, or an empty text. `move`, `back`: to the call's arrays, and back."""
    caches = [
        at.KVCache(**{field.name: move(getattr(one, field.name)) for field in fields(one)})
        for one in (*problem.levels, problem.cache)
    ]
    bound = dm.BoundVariant(problem.bound.variant, tuple(map(move, problem.bound.args)))
    prefix = caches[0] if len(caches) == 2 else caches[:-1]
    try:
        results = at.attend_shared(
            move(problem.q), prefix, caches[-1], variant=bound, cu_seqlens_q=move(problem.cu_seqlens_q), return_lse=True
        )
    except Exception as error:
        return f"{problem.words}: {type(error).__name__}: {error}"
    out, lse = (back(result) for result in results)
    starts = problem.cu_seqlens_q
    for b, (q, k, v) in enumerate(zip(problem.queries, problem.keys, problem.values, strict=True)):
        own = b if starts is None else slice(starts[b], starts[b + 1])
        expected, expected_lse = reference.attention(q[None], k[None], v[None], variant=problem.bound)
        scale = max(float(abs(expected).max(initial=0)), 1.0)
        error = float(abs(out[own].astype(np.float64) - expected[0]).max(initial=0))
        if not (error <= BAR[problem.dtype] * scale and np.allclose(lse[own], expected_lse[0], rtol=1e-6, atol=2e-5)):
            return (
                f"{problem.words}: sequence {b}: out is off by {error:.3g}, lse {lse[own]}, expected {expected_lse[0]}"
            )
    if starts is not None and not ((out[starts[-1] :] == 0).all() and np.isneginf(lse[starts[-1] :]).all()):
        return f"{problem.words}: rows behind the last sequence"
    return ""


def _variant(rng: Generator, name: str, heads: int) -> dm.BoundVariant:
    sinks = rng.standard_normal(heads).astype(np.float32)
    made = {"Plain": at.Plain(), "Causal": at.Causal(), "SoftCap": at.SoftCap(5.0), "Sinks": at.Sinks(sinks)}
    parts = [made[part] for part in name.split("+")]
    return parts[0] if len(parts) == 1 else at.compose(*parts)
