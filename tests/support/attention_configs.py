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
import numpy.typing as npt

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.paths import EXAMPLES, SUPPORT

Array = npt.NDArray[Any]
Generator = np.random.Generator

ROUND = 2000
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
HEAD_DIMS = ((64, 64), (128, 128), (32, 32), (16, 16), (48, 80), (80, 16), (192, 128), (256, 256))
# Lengths around the sizes of vectors, of blocks of queries (48 and fractions of it) and of tiles of keys (64).
EDGES = (0, 1, 2, 3, 8, 11, 12, 13, 15, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 192, 257)
# Lengths around the 32 tiles after which sums are folded, and around twice that.
LONG = (2047, 2048, 2049, 4096, 4161)
MOST_LOGITS = 300_000

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
    result = {
        Specialization(dtype, HEAD_DIMS[rng.integers(len(HEAD_DIMS))], variant)
        for variant in variants
        for dtype in DTYPES
    }
    return tuple(sorted(result, key=repr))


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
    known = specializations(seed // ROUND)
    shape = _shape(rng)
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
