"""Random problems of `append`: caches of every kind, rows dense and ragged, whole arrays and parts of common ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from dimorph import attention as at
from dimorph.attention.kernels import FLOAT8
from support.attention_configs import DTYPES, Array, Generator

PAGE_SIZES = (1, 3, 16, 64)
KINDS = ("block_table", "indptr", "dense", "ragged")
HEAD_DIMS = ((64, 64), (128, 128), (192, 128), (20, 12), (8, 40), (1, 3), (576, 512))


@dataclass
class Parts:
    """Keys and values as they lie in memory: in an array each, or one after the other in the rows of one.

    Attributes:
        bases: these arrays.
        head_dim: of keys.
        swapped: whether rows and heads have changed places.
    """

    bases: list[Array]
    head_dim: int
    swapped: bool

    def views(self, bases: Sequence[Any]) -> list[Any]:
        """Return keys and values as views of `bases`, arrays of any library with the contents of ours."""
        parts = list(bases) if len(bases) == 2 else [bases[0][..., : self.head_dim], bases[0][..., self.head_dim :]]
        return [part.swapaxes(-3, -2) for part in parts] if self.swapped else parts


@dataclass
class AppendProblem:
    """A call of `append`.

    Attributes:
        words: what it is, for messages.
        cache, rows: keys and values of the cache, and the new ones.
        tables: the arrays of the cache beside them.
        layout, scales: of the cache.
        positions, cu_seqlens: the arguments.
        places: for each row, its place in keys and values of the cache in layout "NHD"; None: it is not written.
    """

    words: str
    cache: Parts
    rows: Parts
    tables: dict[str, Array]
    layout: str
    scales: dict[str, Any]
    positions: Array
    cu_seqlens: Array | None
    places: list[tuple[int, ...] | None]

    def expected(self) -> list[Array]:
        """Return what the arrays of the cache hold after the call."""
        bases = [base.copy() for base in self.cache.bases]
        for name, into, given in zip("kv", self.cache.views(bases), self.rows.views(self.rows.bases), strict=True):
            new = rounded(given, self.scales[f"{name}_scale"], into.dtype) if self.scales else given
            by_row = into.swapaxes(-3, -2) if self.layout == "HND" else into
            for row, place in zip(new.reshape(-1, *new.shape[-2:]), self.places, strict=True):
                if place is not None:
                    by_row[place] = row
        return bases


def rounded(rows: Array, scale: Any, dtype: Any) -> Array:
    """Return what a cache in float8 stores of rows [..., heads, head_dim]; NaN in any bits."""
    most = float(ml_dtypes.finfo(dtype).max)
    factors = np.asarray(scale, np.float32).reshape(-1, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.clip(rows.astype(np.float32) / factors, -most, most).astype(dtype)


def difficult_numbers(dtype: Any) -> Array:
    """Return every number of a dtype of 16 bits, or random ones of float32.

    Of the latter, many are ties of float8, or their product with 0.3, or next to either.
    """
    if dtype is not np.float32:
        return np.arange(2**16, dtype=np.uint16).view(dtype)
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, 2**16, np.uint32).view(np.float32)
    near = (rng.integers(0, 2**16, 2**16) * 2.0 ** rng.integers(-24, 2, 2**16)).astype(np.float32)
    return np.concatenate([numbers, near, near * np.float32(0.3)])


def append_problem(seed: int, dtypes: Sequence[str] = ("bfloat16", "float16"), float8: bool = False) -> AppendProblem:
    """Return a problem; the same each time. `float8`: its cache is in 8 bits, of one kind a dtype."""
    rng = np.random.default_rng([seed, 5])
    kind, dtype, size = str(rng.choice(KINDS)), str(rng.choice(dtypes)), int(rng.choice(PAGE_SIZES))
    dims, heads = HEAD_DIMS[seed % len(HEAD_DIMS)], int(rng.choice([1, 2, 8]))
    lengths = rng.integers(0, 40, int(rng.integers(1, 6)))  # new rows of each sequence
    ragged = bool(rng.random() < 0.5)
    if not ragged:
        lengths[:] = lengths[0]
    rooms = lengths + rng.integers(1, 20, len(lengths))
    tables, pool, place = _cache(rng, kind, rooms, size)
    room = [pool[1]] * len(rooms) if kind == "dense" else rooms
    positions = [rng.permutation(int(most))[:count] for most, count in zip(room, lengths, strict=True)]
    positions = [np.where(rng.random(len(p)) < 0.1, rng.integers(-3, 0, len(p)), p).astype(np.int32) for p in positions]
    places = [None if at < 0 else place(b, int(at)) for b, own in enumerate(positions) for at in own]
    behind = int(rng.integers(0, 4)) if ragged else 0  # rows that belong to no sequence
    flat = np.concatenate([*positions, np.zeros(behind, np.int32)]).astype(np.int32)
    layout = "HND" if kind != "ragged" and rng.random() < 0.4 else "NHD"
    stored, scales = (FLOAT8[dtype == "bfloat16"], _scales(rng, heads)) if float8 else (dtype, {})
    shape = (len(flat),) if ragged else (len(lengths), int(lengths[0]))
    return AppendProblem(
        f"seed {seed}: {dtype} into {stored} {kind} {layout} pages of {size}, heads {heads} x {dims}, "
        f"rows {lengths.tolist()}",
        _parts(rng, stored, pool, heads, dims, first=layout == "HND", swapped=False),
        _parts(rng, dtype, shape, heads, dims, first=(swapped := bool(rng.random() < 0.3)), swapped=swapped),
        tables,
        layout,
        scales,
        flat.reshape(shape),
        np.cumsum([0, *lengths], dtype=np.int32) if ragged else None,
        places + [None] * behind,
    )


def check(problem: AppendProblem, *, move: Callable[[Array], Any], wrap: Callable[[Any], Any], back: Any) -> str:
    """Call `append`; return what is wrong, or an empty text.

    Args:
        problem: the problem.
        move: copies an array to where the call works.
        wrap: makes the argument of a view of such an array.
        back: the inverse of `move`; its second argument is the array of the problem.
    """
    bases = [move(base.copy()) for base in problem.cache.bases]
    rows = [move(base) for base in problem.rows.bases]
    tables = {name: wrap(move(array)) for name, array in problem.tables.items()}
    scales = {name: wrap(move(x)) if isinstance(x, np.ndarray) else x for name, x in problem.scales.items()}
    cache = at.KVCache(*map(wrap, problem.cache.views(bases)), layout=problem.layout, **tables, **scales)
    more = {} if problem.cu_seqlens is None else {"cu_seqlens": wrap(move(problem.cu_seqlens))}
    try:
        at.append(cache, *map(wrap, problem.rows.views(rows)), wrap(move(problem.positions)), **more)
    except Exception as error:
        return f"{problem.words}: {type(error).__name__}: {error}"
    for base, before, wanted in zip(bases, problem.cache.bases, problem.expected(), strict=True):
        found = back(base, before)
        wrong = found.view(np.uint8) != wanted.view(np.uint8)
        if problem.scales:  # NaN has several bits
            wrong &= ~(np.isnan(found.astype(np.float32)) & np.isnan(wanted.astype(np.float32)))
        if wrong.any():
            return f"{problem.words}: {int(wrong.sum())} bytes differ"
    return ""


def _cache(
    rng: Generator, kind: str, rooms: Array, size: int
) -> tuple[dict[str, Array], tuple[int, ...], Callable[[int, int], tuple[int, ...]]]:
    """Return the arrays beside keys and values, the shape of these without heads, and where a position lies."""
    if kind == "dense":
        return {}, (len(rooms), int(rooms.max())), lambda b, at: (b, at)
    if kind == "ragged":
        starts = np.cumsum([0, *rooms], dtype=np.int32)
        return {"cu_seqlens": starts}, (int(starts[-1]),), lambda b, at: (int(starts[b]) + at,)
    used = [-(-int(room) // size) for room in rooms]
    count = sum(used) + 2
    numbers = rng.permutation(count).astype(np.int32)
    pages = np.split(numbers[: sum(used)], np.cumsum(used)[:-1])
    if kind == "indptr":
        last = np.full(len(rooms), 1, np.int32)
        tables = {"indptr": np.cumsum([0, *used], dtype=np.int32), "indices": numbers[: sum(used)]}
        return tables | {"last_page_len": last}, (count, size), lambda b, at: (int(pages[b][at // size]), at % size)
    table = np.full((len(rooms), max(used) + int(rng.integers(0, 3))), -1, np.int32)
    for row, own in zip(table, pages, strict=True):
        row[: len(own)] = own
    lengths = np.zeros(len(rooms), np.int32)
    tables = {"block_table": table, "seqlens": lengths}
    return tables, (count, size), lambda b, at: (int(table[b, at // size]), at % size)


def _scales(rng: Generator, heads: int) -> dict[str, Any]:
    """Return factors of keys and of values: a number, or an array with one for all heads or each."""
    factors = [rng.uniform(0.01, 100, heads if rng.random() < 0.5 else 1).astype(np.float32) for _ in "kv"]
    numbers = [float(x[0]) if len(x) == 1 and rng.random() < 0.5 else x for x in factors]
    return dict(zip(("k_scale", "v_scale"), numbers, strict=True))


def _parts(
    rng: Generator, dtype: str, shape: tuple[int, ...], heads: int, dims: tuple[int, int], first: bool, swapped: bool
) -> Parts:
    """Return keys and values of any bits, in one array or two; `first`: heads come before the last of `shape`."""
    whole = (*shape[:-1], heads, shape[-1]) if first else (*shape, heads)
    sizes = [sum(dims)] if rng.random() < 0.5 else list(dims)
    element = np.dtype(getattr(ml_dtypes, dtype) if dtype in FLOAT8 else DTYPES[dtype])
    bits = {1: np.uint8, 2: np.uint16, 4: np.uint32}[element.itemsize]
    bases = [rng.integers(0, np.iinfo(bits).max, (*whole, dim), bits, endpoint=True).view(element) for dim in sizes]
    return Parts(bases, dims[0], swapped)
