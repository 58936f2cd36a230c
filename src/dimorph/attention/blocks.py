"""`attend_blocks`: attention in which blocks of queries see blocks of keys, by a sparse matrix of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe
from dimorph.attention.cache import KVCache
from dimorph.attention.operation import attention
from dimorph.attention.request import bind
from dimorph.attention.variants import FlashSigmoid, Plain, Sinks, SoftCap

# These do not look at positions, which here are places among the keys that a block of queries sees.
_ANYWHERE = (Plain, SoftCap, Sinks, FlashSigmoid)


def attend_blocks(
    q: Any,
    k: Any,
    v: Any,
    indptr: Any,
    indices: Any,
    block_size: tuple[int, int],
    *,
    variant: dm.Variant | dm.BoundVariant = Plain,
    scale: float | None = None,
    out: Any = None,
    return_lse: bool = False,
    lse: Any = None,
) -> Any:
    """Compute attention of one sequence in which each block of queries sees some blocks of the keys.

    Which ones, a matrix in block compressed sparse row (BSR) format says, without values: queries in block i see the
    keys in the blocks `indices[indptr[i] : indptr[i + 1]]`, and no others. Nothing is copied: keys and values are taken
    as pages of a cache, and blocks of queries as its sequences.

    Args:
        q: queries, [queries, heads, head_dim_qk], a multiple of the rows of a block.
        k, v: [keys, kv_heads, head_dim_qk] and [keys, kv_heads, head_dim_vo], a multiple of the columns of a block.
        indptr: int32 [queries / rows + 1], from 0.
        indices: int32, the numbers of blocks of keys, in each row in any order, each once. On the CPU they are checked;
            on a GPU the caller guarantees them.
        block_size: the queries and the keys of a block: (rows, columns).
        variant: `Plain`, `SoftCap`, `Sinks`, `FlashSigmoid` or a composition of these.
        scale, out, return_lse, lse: as for `attention`, with results [queries, heads, ...].

    Returns:
        out, or (out, lse). Queries that see no block have output 0 and log-sum-exp -inf.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it. Other variants look at positions.
        all others: see `attention`.
    """
    bound = bind(variant)
    for part in bound.variant.parts or (bound.variant,):
        if part not in _ANYWHERE:
            known = ", ".join(one.name for one in _ANYWHERE)
            raise ValueError(
                f"attend_blocks: argument 'variant': expected some of {known}, which do not look at positions, got "
                f"{part.name}"
            )
    rows, columns = _sizes(block_size)
    queries, keys, values = _split(q, "q", rows), _split(k, "k", columns), _split(v, "v", columns)
    count = queries.shape[0]
    if getattr(indptr, "shape", None) != (count + 1,):
        raise ValueError(
            f"attend_blocks: argument 'indptr': expected an int32 array [{count + 1}], one more than there are blocks "
            f"of {rows} queries, got {describe(indptr)}"
        )
    # Whole blocks, as an array of the library and the device of `indptr`.
    tables = {"indptr": indptr, "indices": indices, "last_page_len": indptr[1:] * 0 + columns}
    given = {"out": out, "lse": lse}
    parts: dict[str, Any] = {name: None if x is None else _split(x, name, rows, count) for name, x in given.items()}
    made = attention(
        queries,
        KVCache(keys, values, **tables),
        variant=bound,
        scale=scale,
        max_seqlen_k=k.shape[0],
        return_lse=return_lse,
        **parts,
    )
    pairs = zip(given.values(), made if return_lse else (made,), strict=False)
    results = [x.reshape(count * rows, *x.shape[2:]) if to is None else to for to, x in pairs]
    return tuple(results) if return_lse else results[0]


def _sizes(block_size: Any) -> tuple[int, int]:
    """Return the rows and columns of a block.

    Raises:
        TypeError, ValueError: they are not two whole numbers from 1 on.
    """
    if not isinstance(block_size, tuple) or not all(isinstance(size, Integral) for size in block_size):
        raise TypeError(
            f"attend_blocks: argument 'block_size': expected (rows, columns) of a block, got {describe(block_size)}"
        )
    if len(block_size) != 2 or min(block_size) < 1:
        raise ValueError(
            f"attend_blocks: argument 'block_size': expected two numbers from 1 on, (rows, columns), got {block_size}"
        )
    return block_size


def _split(array: Any, name: str, size: int, count: int | None = None) -> Any:
    """Return an array [n, heads, ...] as blocks, [n / size, size, heads, ...], over the same memory.

    Raises:
        ValueError: it has other dimensions, or not `count` blocks, by default any whole number of them.
    """
    shape: Sequence[int] = getattr(array, "shape", ())
    dims = "heads" if name == "lse" else "heads, head_dim"
    if len(shape) != 2 + (name != "lse") or shape[0] % size or count not in (None, shape[0] // size):
        whole = f"n a multiple of {size}, as blocks are" if count is None else f"n = {count * size}, as 'q' has"
        raise ValueError(
            f"attend_blocks: argument {name!r}: expected an array [n, {dims}] with {whole}, got {describe(array)}"
        )
    return array.reshape(shape[0] // size, size, *shape[1:])
