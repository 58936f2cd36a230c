"""Lengths and page tables that lie on the host: checked for a plan, and copied to where its cache lies."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from numbers import Integral
from typing import Any

from dimorph.attention.arrays import describe, libraries
from dimorph.attention.cache import KVCache, tables
from dimorph.attention.request import CachedCall, shape_of

_OF_CACHE = "cu_seqlens", "seqlens", "block_table", "indptr", "indices", "last_page_len"  # in the order of `tables`
_OF_QUERIES = "cu_seqlens_q", "seqlens_q"
Numbers = list[int]


def on_device(call: CachedCall) -> CachedCall:
    """Return a plan's call with lists, and arrays on the host beside a cache on a GPU, copied to the cache's device.

    Where offsets of queries lie on the host, `max_seqlen_q` becomes the longest sequence, unless it is given.

    Raises:
        TypeError, ValueError: numbers on the host do not fit; the message names argument and sequence.
    """
    q, cache = call.q, call.cache
    if not isinstance(cache, KVCache):
        return call  # refused later
    library = libraries[type(q)]
    gpu = library.gpu(q)
    given = *tables(cache), call.cu_seqlens_q, call.seqlens_q
    for x in given:  # written out, because each plan comes here
        if x is not None and _is_on_host(x, gpu):
            break
    else:
        return call
    named = zip((*_OF_CACHE, *_OF_QUERIES), given, strict=True)
    host = {name: _numbers(name, x) for name, x in named if x is not None and _is_on_host(x, gpu)}
    queries = _check_queries(call, host)
    _check_keys(cache, host)
    moved = {name: library.int32_array(q, numbers) for name, numbers in host.items()}
    longest = max(queries, default=0) if call.max_seqlen_q is None and queries is not None else call.max_seqlen_q
    return call._replace(
        cache=replace(cache, **{name: x for name, x in moved.items() if name in _OF_CACHE}),
        max_seqlen_q=longest,
        **{name: x for name, x in moved.items() if name in _OF_QUERIES},
    )


def _is_on_host(array: Any, gpu: int | None) -> bool:
    kind = type(array)
    if kind is list or kind is tuple:
        return True
    return gpu is not None and libraries[kind].gpu(array) is None and hasattr(array, "tolist")


def _numbers(name: str, array: Any) -> list[Any]:
    """Return an array or a list as a list of numbers; of a block table, a list of lists."""
    numbers = array.tolist() if hasattr(array, "tolist") else [*array]
    rows = numbers if name == "block_table" else [numbers]
    fits = all(isinstance(row, (list, tuple)) and len(row) == len(rows[0]) and all(map(_fits, row)) for row in rows)
    if not fits:
        shape = "[batch, max_pages]" if name == "block_table" else "[n]"
        raise TypeError(f"plan: argument '{name}': expected whole numbers of 32 bits {shape}, got {describe(array)}")
    return numbers


def _fits(number: Any) -> bool:
    return isinstance(number, Integral) and -(2**31) <= int(number) < 2**31


def _check_queries(call: CachedCall, host: dict[str, Any]) -> Numbers | None:
    """Check lengths of queries; return the rooms of ragged ones whose offsets are known."""
    room = shape_of(call.q, "q")[-3]
    rooms = _differences(host, "cu_seqlens_q", room)
    _check_lengths(host, "seqlens_q", rooms if call.cu_seqlens_q is not None else room)
    return rooms


def _check_keys(cache: KVCache, host: dict[str, Any]) -> None:
    """Check lengths of keys and page tables."""
    shape = shape_of(cache.k, "k")
    rows, pool = shape[-2 if cache.layout == "HND" else -3], shape[0]
    room: Numbers | int | None = rows
    if cache.cu_seqlens is not None:
        room = _differences(host, "cu_seqlens", rows)
    elif cache.block_table is not None:
        table = host.get("block_table")
        room = rows * (cache.block_table.shape[-1] if table is None else len(table[0]) if table else 0)
    _check_lengths(host, "seqlens", room)
    for b, (pages, length) in enumerate(zip(host.get("block_table", ()), host.get("seqlens", ()), strict=False)):
        _check_pages("block_table", b, pages[: -(-length // max(rows, 1))], pool)
    if "indptr" not in host:
        return
    indices = host.get("indices", [])
    counts = _differences(host, "indptr", len(indices) if "indices" in host else cache.indices.shape[0]) or []
    for b, (count, last) in enumerate(zip(counts, host.get("last_page_len", ()), strict=False)):
        least = min(count, 1)
        _expect(least <= last <= rows, "last_page_len", f"{least} to {rows} keys for sequence {b}", last)
    for b, (start, end) in enumerate(pairwise(host["indptr"])):
        _check_pages("indices", b, indices[start:end], pool)


def _differences(host: dict[str, Any], name: str, most: int) -> Numbers | None:
    """Return the differences of offsets up to `most`; None: they do not lie on the host."""
    offsets = host.get(name)
    if offsets is None:
        return None
    _expect(offsets[:1] == [0], name, "offsets from 0 on", offsets[:1])
    for before, after in pairwise(offsets):
        _expect(after >= before, name, "offsets that never fall", f"{after} after {before}")
    _expect(offsets[-1] <= most, name, f"offsets up to {most}", offsets[-1])
    return [after - before for before, after in pairwise(offsets)]


def _check_lengths(host: dict[str, Any], name: str, room: Numbers | int | None) -> None:
    """Check lengths against the room of each sequence, or one for all; None: it is not known."""
    for b, length in enumerate(host.get(name, ())):
        most = room[b] if isinstance(room, list) and b < len(room) else room if isinstance(room, int) else 2**31
        _expect(0 <= length <= most, name, f"a length from 0 to {most} for sequence {b}, as it has room for", length)


def _check_pages(name: str, sequence: int, pages: Numbers, pool: int) -> None:
    for i, page in enumerate(pages):
        _expect(0 <= page < pool, name, f"a page from 0 to {pool - 1} as number {i} of sequence {sequence}", page)


def _expect(condition: bool, name: str, wanted: str, got: object) -> None:
    if not condition:
        raise ValueError(f"plan: argument '{name}': expected {wanted}, got {got}")
