"""Random problems for attention. A seed is one integer that determines everything about its problem.

Seeds belong to rounds of 2,000. A round has its own compositions and its own set of specializations, few enough to
compile them all within a minute or two; properties that are not compiled in (lengths, heads, strides, parameters) vary
freely.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

import dimorph as dm
from dimorph import attention as at
from support.attention_parts import MORE, PARTS, Array, Generator, Shape

ROUND = 2000
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
HEAD_DIMS = ((64, 64), (128, 128), (32, 32), (16, 16), (48, 80), (80, 16), (192, 128), (256, 256))
# Lengths around the sizes of vectors, of blocks of queries (48 and fractions of it) and of tiles of keys (64).
EDGES = (0, 1, 2, 3, 8, 11, 12, 13, 15, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 192, 257)
# Lengths around the 32 tiles after which sums are folded, and around twice that.
LONG = (2047, 2048, 2049, 4096, 4161)
MOST_LOGITS = 300_000
FEW_QUERIES = 32  # of a sequence, for the CPU: csrc/cpu/kinds.h


@dataclass(frozen=True)
class Specialization:
    """The compiled properties of a problem; `variant` names a variant, or several parts of a composition."""

    dtype: str
    head_dims: tuple[int, int]
    variant: tuple[str, ...]


def _composition(rng: Generator) -> tuple[str, ...]:
    """Return some parts in random order, no two of which have a parameter of the same name."""
    nothing = Shape((), (), 1, 1, ragged=True)
    names = {name: {param.name for param in make(rng, nothing)[0].variant.params} for name, make in PARTS.items()}
    chosen: list[str] = []
    taken: set[str] = set()
    for name in rng.permutation(list(PARTS)):
        if not taken & names[name]:
            chosen.append(str(name))
            taken |= names[name]
    chosen = chosen[: rng.integers(2, 5)]
    return tuple(sorted(chosen, key=lambda name: name == "FlashSigmoid"))


@functools.cache
def specializations(number: int) -> tuple[Specialization, ...]:
    """Return the specializations of a round: each variant in each dtype, with head dims chosen at random."""
    rng = np.random.default_rng([number, 0])
    variants = [*((name,) for name in PARTS), *(_composition(rng) for _ in range(6))]
    result = [
        Specialization(dtype, HEAD_DIMS[rng.integers(len(HEAD_DIMS))], variant)
        for variant in variants
        for dtype in DTYPES
    ]
    return tuple(dict.fromkeys(result))


def _usable(shape: Shape, number: int) -> tuple[Specialization, ...]:
    """Return the specializations for a problem of this shape.

    On the CPU each has two kernels, for sequences of few and of many queries, whose compiles take most of the time of
    the tests. So a specialization gets only one kind of sequences, its neighbours in dtype and variant the other kind,
    and every eighth has the problems with both kinds. Rounds take turns.
    """
    known, few = specializations(number), {n <= FEW_QUERIES for n in shape.queries or (0,)}
    return known[number % 8 :: 8] if len(few) == 2 else known[(few.pop() + number) % 2 :: 2]


@dataclass(frozen=True)
class Config:
    """A problem. `layouts` are the memory layouts of q, k, v, out and lse; see `_view`."""

    seed: int
    specialization: Specialization
    shape: Shape
    scale: float | None
    tail: tuple[int, int]  # rows of ragged queries and keys after the last sequence's
    layouts: dict[str, str]
    own_out: bool  # True: the caller gives out
    lse: str  # "none", "made" or "given"
    nonfinite: str  # "", or the value of one element and its array, e.g. "nan in q"


def config_of(seed: int) -> Config:
    """Return the problem of a seed."""
    rng = np.random.default_rng([seed, 1])
    shape = _shape(rng)
    known = _usable(shape, seed // ROUND)
    specialization = known[rng.integers(len(known))]
    scale = specialization.head_dims[0] ** -0.5 * rng.choice([-1.0, 0.0, rng.uniform(0.3, 1.5)])
    layouts = {name: str(rng.choice(_LAYOUTS)) for name in ("out", "lse")}
    layouts |= {name: str(rng.choice([*_LAYOUTS, "broadcast"])) for name in "qkv"}
    return Config(
        seed,
        specialization,
        shape,
        scale=float(scale) if rng.random() < 0.4 else None,
        tail=(int(rng.integers(0, 4)), int(rng.integers(0, 4))) if shape.ragged else (0, 0),
        layouts=layouts,
        own_out=bool(rng.random() < 0.8),
        lse=str(rng.choice(["none", "made", "given", "given"])),
        nonfinite=str(rng.choice(["nan in q", "nan in k", "nan in v", "inf in v"])) if rng.random() < 0.15 else "",
    )


def _length(rng: Generator) -> int:
    return int(rng.choice(EDGES)) if rng.random() < 0.6 else int(rng.integers(0, 301))


def _shape(rng: Generator) -> Shape:
    ragged = bool(rng.random() < 0.4)
    batch = int(rng.integers(0, 6)) if ragged else int(rng.choice([0, 1, 1, 1, 2, 2, 2, 3, 4, 5]))
    pairs = []
    kind = rng.choice(["any", "same", "few queries", "long"], p=[0.5, 0.22, 0.25, 0.03])
    for _ in range(batch if ragged else 1):
        queries, keys = _length(rng), _length(rng)
        if kind == "same":
            queries = keys
        elif kind == "few queries":
            queries = int(rng.integers(1, 6))
        elif kind == "long":
            queries, keys = int(rng.choice([1, 2, 5, 49])), int(rng.choice(LONG))
        pairs.append((queries, keys))
    pairs = pairs if ragged else pairs * batch
    kv_heads, group = int(rng.choice([1, 1, 2, 3, 4])), int(rng.choice([1, 1, 2, 3, 4, 8]))
    logits = max(1, sum(q * k for q, k in pairs))
    kv_heads = max(1, min(kv_heads, MOST_LOGITS // (logits * group)))
    group = max(1, min(group, MOST_LOGITS // (logits * kv_heads)))
    return Shape(tuple(q for q, _ in pairs), tuple(k for _, k in pairs), kv_heads * group, kv_heads, ragged)


_LAYOUTS = ("contiguous", "heads first", "padded", "packed", "reversed")


def _view(rng: Generator, layout: str, shape: tuple[int, ...]) -> tuple[int, Callable[[Array], Array]]:
    """Return a layout of [batch, seq, heads, head_dim]: its number of elements, and its view of a flat array."""
    b, s, h, d = shape
    if layout == "heads first":
        return b * h * s * d, lambda flat: flat.reshape(b, h, s, d).swapaxes(1, 2)
    if layout == "padded":  # at odd offsets, so that no row is aligned
        before, after = rng.integers(0, 4, 4), rng.integers(0, 4, 4)
        inner = tuple(slice(x, x + n) for x, n in zip(before, shape, strict=True))
        outer = tuple(int(x + n + y) for x, n, y in zip(before, shape, after, strict=True))
        return int(np.prod(outer)), lambda flat: flat.reshape(outer)[inner]
    if layout == "packed":  # one of three arrays that are interleaved row by row
        which = int(rng.integers(3))
        return 3 * b * s * h * d, lambda flat: flat.reshape(b, s, 3, h, d)[:, :, which]
    if layout == "reversed":
        steps = tuple(slice(None, None, int(step)) for step in rng.choice([1, -1], 3))
        return b * s * h * d, lambda flat: flat.reshape(shape)[steps]
    if layout == "broadcast" and min(shape) > 0:
        axis = int(rng.integers(3))
        small = tuple(1 if i == axis else n for i, n in enumerate(shape))
        return int(np.prod(small)), lambda flat: np.broadcast_to(flat.reshape(small), shape)
    return b * s * h * d, lambda flat: flat.reshape(shape)


@dataclass
class Placed:
    """An array [batch, seq, heads, head_dim] inside a flat one. A ragged batch is stored with batch size 1."""

    flat: Array
    array: Array
    inside: Array  # for each element of `flat`: True if it belongs to `array`


def _placed(rng: Generator, layout: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Placed:
    """Return an array filled with NaN, which show if memory is read, or left unwritten, where it must not be."""
    size, view = _view(rng, layout, shape)
    flat = np.full(size, np.nan, dtype)
    inside = np.zeros(size, bool)
    inside[view(np.arange(size)).reshape(-1)] = True
    return Placed(flat, view(flat), inside)


@dataclass
class Problem:
    """The arrays of a config."""

    config: Config
    inputs: dict[str, Array]  # q, k, v: [batch, seq, heads, head_dim] or ragged
    out: Placed
    lse: Placed
    cu_seqlens: tuple[Array, Array] | None
    bound: dm.BoundVariant
    alone: Callable[[int], dm.BoundVariant]
    hit: tuple[int, int, int, int] | None  # sequence, row, head and dim of the element that is not finite


def build(config: Config) -> Problem:
    """Make the arrays of a config; they are the same each time."""
    rng = np.random.default_rng([config.seed, 2])
    shape, special = replace(config.shape, tail=config.tail), config.specialization
    dtype = DTYPES[special.dtype]
    qk, vo = special.head_dims
    if shape.ragged:
        rows = [sum(lengths) + more for lengths, more in zip((shape.queries, shape.keys), config.tail, strict=True)]
    else:
        rows = [max(lengths, default=5) for lengths in (shape.queries, shape.keys)]
    batch = 1 if shape.ragged else shape.batch
    sizes = {"q": (rows[0], shape.heads, qk), "k": (rows[1], shape.kv_heads, qk), "v": (rows[1], shape.kv_heads, vo)}
    inputs = {}
    for name, size in sizes.items():
        placed = _placed(rng, config.layouts[name], (batch, *size), dtype)
        values = rng.standard_normal(placed.flat.shape, dtype=np.float32)
        if name == "v":
            values *= np.float32(10.0 ** rng.uniform(-1.5, 1.0))
        placed.flat[placed.inside] = values[placed.inside].astype(dtype)
        inputs[name] = placed.array[0] if shape.ragged else placed.array
    parts = [(PARTS | MORE)[name](rng, shape) for name in special.variant]
    cu = tuple(np.cumsum([0, *ns], dtype=np.int32) for ns in (shape.queries, shape.keys))
    problem = Problem(
        config,
        inputs,
        _placed(rng, config.layouts["out"], (batch, rows[0], shape.heads, vo), dtype),
        _placed(rng, config.layouts["lse"], (batch, rows[0], shape.heads, 1), DTYPES["float32"]),
        (cu[0], cu[1]) if shape.ragged else None,
        parts[0][0] if len(parts) == 1 else at.compose(*(bound for bound, _ in parts)),
        lambda b: parts[0][1](b) if len(parts) == 1 else at.compose(*(alone(b) for _, alone in parts)),
        None,
    )
    _plant(rng, problem)
    return problem


def sequence(problem: Problem, array: Array, b: int, of_keys: bool) -> Array:
    """Return the view [1, length, ...] of sequence b in an array with one row for each query or key."""
    if problem.cu_seqlens is None:
        return array[b : b + 1]
    starts = problem.cu_seqlens[of_keys]
    return array[None, starts[b] : starts[b + 1]]


def _plant(rng: Generator, problem: Problem) -> None:
    """Make one element NaN or infinite, unless the array is broadcast, where several elements would change."""
    if not problem.config.nonfinite:
        return
    value, _, name = problem.config.nonfinite.split()
    if problem.config.layouts[name] == "broadcast":
        return
    for b in rng.permutation(problem.config.shape.batch):
        array = sequence(problem, problem.inputs[name], int(b), name != "q")
        if array.size and problem.config.shape.keys[b]:
            index = tuple(int(rng.integers(n)) for n in array.shape[1:])
            array[(0, *index)] = float(value)
            problem.hit = (int(b), index[0], index[1], index[2])
            return
