"""Random problems of attention (attention_configs.py) with keys in pages, and with lengths apart from the room.

A problem is made as a ragged one, whose keys and values are then put into a cache, among NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention.kernels import FLOAT8
from support.attention_check import judge
from support.attention_configs import (
    FEW_QUERIES,
    Array,
    Config,
    Generator,
    Problem,
    Specialization,
    build,
    config_of,
    sequence,
)

PAGE_SIZES = (1, 3, 16, 64, 128)
KINDS = ("block_table", "block_table", "indptr", "indptr", "dense", "ragged")
# Each built-in variant, some compositions and a user's struct; each dtype; head dims with tails of vectors too.
SPECIALIZATIONS = tuple(
    Specialization(dtype, dims, tuple(variant.split("+")))
    for dtype, dims, variant in (
        ("float32", (64, 64), "Plain"),
        ("bfloat16", (64, 64), "Plain"),
        ("bfloat16", (64, 64), "Causal"),
        ("float16", (48, 80), "Causal"),
        ("float32", (32, 32), "Window"),
        ("float16", (64, 64), "ChunkedCausal"),
        ("bfloat16", (64, 128), "TreeMask"),
        ("bfloat16", (32, 32), "PrefixLM"),
        ("float32", (32, 32), "KeyPadding"),
        ("float32", (16, 16), "CausalKeyPadding"),
        ("float32", (16, 16), "KeyMask"),
        ("bfloat16", (64, 64), "DocumentMask"),
        ("float32", (32, 32), "SoftCap"),
        ("bfloat16", (32, 32), "ALiBi"),
        ("float32", (16, 16), "SequenceALiBi"),
        ("float32", (32, 32), "Sinks"),
        ("bfloat16", (32, 32), "CustomMask"),
        ("float32", (16, 16), "PackedMask"),
        ("float32", (16, 16), "BroadcastMask"),
        ("float32", (32, 32), "Bias"),
        ("bfloat16", (128, 128), "FlashSigmoid"),
        ("float32", (33, 20), "Decay"),
        ("bfloat16", (64, 64), "SequenceTemperature"),
        ("float16", (64, 64), "Causal+HeadTemperature"),
        ("float32", (64, 64), "Causal+Window+SoftCap"),
        ("bfloat16", (64, 64), "DocumentMask+Sinks"),
        ("bfloat16", (128, 64), "ChunkedCausal+SoftCap+Sinks"),
        ("float16", (32, 32), "SoftCap+TreeMask+Window"),
        ("bfloat16", (192, 128), "Causal+Sinks"),
    )
)
# The same in dtypes and head dims that GPUs take.
GPU_SPECIALIZATIONS = tuple(
    replace(
        one,
        dtype="float16" if one.dtype == "float32" else one.dtype,
        head_dims=(-(-one.head_dims[0] // 8) * 8, -(-one.head_dims[1] // 8) * 8),
    )
    for one in SPECIALIZATIONS
)


@dataclass
class Paged:
    """A call of attention with a cache, and the ragged problem that it is.

    Attributes:
        q, cache, bound, options: arguments of the call.
        room: rows of each sequence of dense queries; 0: they are ragged.
    """

    problem: Problem
    kind: str
    q: Array
    cache: at.KVCache
    bound: dm.BoundVariant
    options: dict[str, Any]
    room: int


def paged_config(seed: int, known: tuple[Specialization, ...] = SPECIALIZATIONS) -> Config:
    """Return a ragged problem with sequences of different lengths, some of them 0."""
    rng = np.random.default_rng([seed, 3])
    config = config_of(seed)
    shape = config.shape
    keys = tuple(0 if rng.random() < 0.1 else int(n * rng.uniform(0.3, 1.0)) for n in shape.keys or (40,))
    return replace(
        config,
        specialization=known[seed % len(known)],
        shape=replace(shape, queries=shape.queries or (3,), keys=keys, ragged=True),
        scale=None,
        tail=(0, 0),
        layouts=config.layouts | dict.fromkeys("qkv", "contiguous"),
    )


def for_one_kernel(config: Config, float8: bool = False) -> Config:
    """Return a config whose sequences all have few queries, or all have many, as its specialization has it.

    So one of the two kernels of the CPU is compiled for it; for `float8` it is the other one. Every eighth has both.
    """
    index = SPECIALIZATIONS.index(config.specialization)
    if index % 8 == 0:
        return config
    few = (index + float8) % 2 == 0
    # A dense batch has room for one query more than its longest sequence.
    lengths = (n % FEW_QUERIES if few else max(n, FEW_QUERIES + 1 + n % FEW_QUERIES) for n in config.shape.queries)
    return replace(config, shape=replace(config.shape, queries=tuple(lengths)))


def small(config: Config) -> Config:
    """Return a config with so few rows that an emulator computes it in a second."""
    shape = config.shape
    queries, keys = (tuple(n % most for n in lengths) for lengths, most in ((shape.queries, 40), (shape.keys, 150)))
    group = min(shape.heads // shape.kv_heads, 3)
    kv_heads = min(shape.kv_heads, 2)
    return replace(
        config, shape=replace(shape, queries=queries[:3], keys=keys[:3], heads=group * kv_heads, kv_heads=kv_heads)
    )


def stored_as(config: Config) -> str:
    """Return a dtype of 8 bits for the keys and values of a problem, so that each variant has one."""
    return FLOAT8[config.seed % len(SPECIALIZATIONS) % 2]


def paged_problem(config: Config, float8: bool = False) -> Paged:
    """Return the call for a config; the same each time. `float8`: its keys and values are in 8 bits."""
    rng = np.random.default_rng([config.seed, 4])
    if float8 and stored_as(config) == "float8_e4m3fn":  # which has no infinity
        config = replace(config, nonfinite=config.nonfinite.replace("inf", "nan"))
    problem = build(config)
    kind, size = str(rng.choice(KINDS)), int(rng.choice(PAGE_SIZES))
    heads_first = kind != "ragged" and bool(rng.random() < 0.4)
    in_pages = kind in ("block_table", "indptr")
    shared = _share_prefix(rng, problem, size) if in_pages and not config.nonfinite else 0
    lengths = np.array(config.shape.keys, np.int32)
    stored = _quantised(config, problem) if float8 else {}
    if in_pages:
        tables, places, rooms, count = _tables(rng, kind, lengths, size, shared)
        pool: tuple[int, ...] = (count, size)
    else:
        rooms = lengths + rng.integers(0, 20, len(lengths)).astype(np.int32)
        pool = (len(lengths), int(rooms.max(initial=0))) if kind == "dense" else (int(rooms.sum()),)
        rooms = np.full_like(rooms, pool[1]) if kind == "dense" else rooms
        starts = np.cumsum([0, *rooms], dtype=np.int32)
        tables = {"seqlens": lengths} | ({"cu_seqlens": starts} if kind == "ragged" else {})
        places = [start + np.arange(n) for start, n in zip(starts[:-1], lengths, strict=True)]
    arrays = [_scattered(problem, stored.get(name, problem.inputs[name]), pool, places, heads_first) for name in "kv"]
    if not heads_first and arrays[0].shape == arrays[1].shape and rng.random() < 0.5:
        both = np.stack(arrays, axis=len(pool))  # keys and values in one array
        arrays = (
            [both.take(0, len(pool)), both.take(1, len(pool))] if kind == "ragged" else [both[:, :, 0], both[:, :, 1]]
        )
    scales = {name: stored[name] for name in ("k_scale", "v_scale") if stored}
    cache = at.KVCache(arrays[0], arrays[1], layout="HND" if heads_first else "NHD", **tables, **scales)
    q, options, room = _queries(rng, problem)
    sizes = {"qo": room and [room] * len(lengths), "kv": rooms}
    flat = {"qo": not room, "kv": kind in ("indptr", "ragged")}
    bound = _placed_arguments(problem, sizes, flat)
    if bound.variant.name in _MATRICES and kind in ("block_table", "dense") and room and rng.random() < 0.6:
        bound = _in_room(problem, bound.variant, room, int(rooms[0]) if len(rooms) else 0)
    return Paged(problem, kind, q, cache, bound, options, room)


def run(attend: Any, paged: Paged) -> dict[str, float]:
    """Run a call and check its results; return the largest errors, as fractions of the allowed ones.

    Raises:
        AssertionError: the result is wrong; the message says how.
    """
    out, lse = attend(paged.q, paged.cache, variant=paged.bound, return_lse=True, **paged.options)
    problem, used = paged.problem, {"out": 0.0, "lse": 0.0}
    softmax = "FlashSigmoid" not in problem.config.specialization.variant
    for b, count in enumerate(problem.config.shape.queries):
        if paged.room:
            results = [x[b : b + 1, :count] for x in (out, lse)]
            assert (out[b, count:] == 0).all() and np.isneginf(lse[b, count:]).all(), "rows that are not in use"
        else:
            results = [sequence(problem, x, b, False) for x in (out, lse)]
        if softmax and problem.config.shape.keys[b] == 0 and "Sinks" not in problem.config.specialization.variant:
            assert (results[0] == 0).all() and np.isneginf(results[1]).all(), "a sequence without keys"
        for name, share in judge(problem, b, *results).items():
            used[name] = max(used[name], share)
    return used


def failures(attend: Any, configs: list[Config], float8: bool = False) -> list[str]:
    """Check each config; return a text with the config and the error for each that fails."""
    found = []
    for config in configs:
        paged = paged_problem(config, float8)
        try:
            run(attend, paged)
        except Exception as error:
            found.append(f"{config}\n  as {paged.kind}: {type(error).__name__}: {error}")
    return found


def _quantised(config: Config, problem: Problem) -> dict[str, Any]:
    """Return keys and values in 8 bits with their scales, and make those of the problem the numbers that they are."""
    rng = np.random.default_rng([config.seed, 5])
    stored: dict[str, Any] = {}
    for name in "kv":
        array = problem.inputs[name]
        factors = rng.uniform(0.2, 3.0, array.shape[1] if rng.random() < 0.5 else 1).astype(np.float32)
        with np.errstate(invalid="ignore"):
            stored[name] = (array.astype(np.float32) / factors[:, None]).astype(getattr(ml_dtypes, stored_as(config)))
        problem.inputs[name] = stored[name].astype(np.float64) * factors[:, None]
        stored[f"{name}_scale"] = float(factors[0]) if len(factors) == 1 and rng.random() < 0.5 else factors
    return stored


def _share_prefix(rng: Generator, problem: Problem, size: int) -> int:
    """Give the first two sequences the same keys and values in some first pages; return how many."""
    lengths = problem.config.shape.keys
    if len(lengths) < 2 or rng.random() < 0.3:
        return 0
    pages = min(lengths[:2]) // size
    for name in "kv":
        first, second = (sequence(problem, problem.inputs[name], b, True) for b in (0, 1))
        second[:, : pages * size] = first[:, : pages * size]
    return pages


def _tables(
    rng: Generator, kind: str, lengths: Array, size: int, shared: int
) -> tuple[dict[str, Array], list[Array], Array, int]:
    """Return the arrays of a page table, the places of each sequence's keys, its room, and the pages of the pool."""
    used = [-(-int(n) // size) for n in lengths]
    count = sum(used) + 3
    numbers = iter(rng.permutation(count).astype(np.int32))
    pages = [np.array([next(numbers) for _ in range(n)], np.int32) for n in used]
    if shared:
        pages[1][:shared] = pages[0][:shared]
    places = [(p[:, None] * size + np.arange(size)).reshape(-1)[:n] for p, n in zip(pages, lengths, strict=True)]
    if kind == "indptr":
        starts = np.cumsum([0, *used], dtype=np.int32)
        indices = np.concatenate([np.empty(0, np.int32), *pages])
        last = (lengths - (np.array(used, np.int32) - 1) * size).astype(np.int32)
        tables = {"indptr": starts, "indices": indices, "last_page_len": np.where(lengths > 0, last, size)}
        return tables, places, np.array(used, np.int32) * size, count
    most = max(used, default=0) + int(rng.integers(0, 3))
    table = rng.choice([-1, 2**30], (len(lengths), most)).astype(np.int32)
    for row, own in zip(table, pages, strict=True):
        row[: len(own)] = own
    return {"block_table": table, "seqlens": lengths}, places, np.full(len(lengths), most * size), count


def _scattered(problem: Problem, ragged: Array, pool: tuple[int, ...], places: list[Array], heads_first: bool) -> Array:
    """Return a pool with the keys or values of each sequence at its places, and NaN elsewhere."""
    flat = np.full((int(np.prod(pool)), *ragged.shape[1:]), np.nan, ragged.dtype)
    for b, own in enumerate(places):
        flat[own] = sequence(problem, ragged, b, True)[0]
    array = flat.reshape(*pool, *ragged.shape[1:])
    return np.ascontiguousarray(array.swapaxes(1, 2)) if heads_first else array


def _queries(rng: Generator, problem: Problem) -> tuple[Array, dict[str, Any], int]:
    """Return the queries, ragged or dense, and the arguments that say so, and the room of dense ones."""
    q, lengths = problem.inputs["q"], np.array(problem.config.shape.queries, np.int32)
    assert problem.cu_seqlens
    if rng.random() < 0.5:
        return q, {"cu_seqlens_q": problem.cu_seqlens[0]}, 0
    room = int(lengths.max(initial=0)) + 1
    dense = np.full((len(lengths), room, *q.shape[1:]), np.nan, q.dtype)
    for b, n in enumerate(lengths):
        dense[b, :n] = sequence(problem, q, b, False)[0]
    return dense, {"seqlens_q": lengths}, room


_MATRICES = ("CustomMask", "BroadcastMask", "Bias")


def _in_room(problem: Problem, variant: dm.Variant, queries: int, keys: int) -> dm.BoundVariant:
    """Return the variant with matrices in the shape of the room: True, or NaN, behind the lengths in use."""
    alone = [problem.alone(b).args[0][0] for b in range(problem.config.shape.batch)]
    heads = alone[0].shape[:-2] if alone else ()
    matrices = np.full((len(alone), *heads, queries, keys), variant.name != "Bias" or np.nan)
    for matrix, own in zip(matrices, alone, strict=True):
        matrix[..., : own.shape[-2], : own.shape[-1]] = own
    if variant.name == "CustomMask":
        return at.CustomMask(matrices.astype(bool), None)
    matrices = matrices.reshape(len(alone), *(heads or (1,)), queries, keys)
    return at.additive_bias(matrices.astype(np.float32)) if variant.name == "Bias" else at.broadcast_mask(matrices > 0)


def _placed_arguments(problem: Problem, sizes: dict[str, Any], flat: dict[str, bool]) -> dm.BoundVariant:
    """Return the variant with an element for each place of a sequence's room, where it has one for each token."""
    bound, shape = problem.bound, problem.config.shape
    args = []
    for param, arg in zip(bound.variant.params, bound.args, strict=True):
        side = {"*queries": "qo", "*keys": "kv"}.get(param.shape or "", "")
        if not side or not isinstance(sizes[side], (list, np.ndarray)):
            args.append(arg)
            continue
        lengths = shape.queries if side == "qo" else shape.keys
        starts = np.cumsum([0, *lengths])
        rows = [np.zeros(int(room), arg.dtype) for room in sizes[side]]
        for b, row in enumerate(rows):
            row[: lengths[b]] = arg[starts[b] : starts[b + 1]]
        args.append(np.concatenate([*rows, arg[:0]]) if flat[side] else np.array(rows))
    return dm.BoundVariant(bound.variant, tuple(args))
