"""`KVCache`: where the keys and values of a call lie."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any

from dimorph.attention.arrays import describe
from dimorph.attention.kernels import FLOAT8

_NO_SCALES = None, None, 1.0, 1.0
_INDEX = ("indptr", "indices", "last_page_len")


@dataclass(frozen=True, eq=False)
class KVCache:
    """A description of keys and values that `attention` takes in place of `k` and `v`. It copies nothing.

    There are three kinds. **Dense**: `KVCache(k, v)`, [batch, room, kv_heads, head_dim]. **Ragged**: `KVCache(k, v,
    cu_seqlens=...)`, [tokens, kv_heads, head_dim]. **Paged**: `k` and `v` are pools of pages, [pages, page_size,
    kv_heads, head_dim], and a table says which pages hold the keys of a sequence, in order: `block_table` with
    `seqlens`, or `indptr`, `indices` and `last_page_len`. Sequences may share pages. Keys and values in one array are
    two views of it, because strides are free but for the last dimension, which is contiguous. On the CPU every length
    and every entry of a table that a call uses is checked before anything is computed; on a GPU the caller guarantees
    them, except under `DIMORPH_DEBUG=1`.

    Args:
        k: keys.
        v: values; as k, with a head dim of its own.
        cu_seqlens: of ragged arrays: int32 [batch + 1], the first token of each sequence's room, and the end.
        seqlens: int32 [batch], how many keys of each sequence are in use, of the first ones in its room. What lies
            behind them is not read. Default: all, except beside a block table, which needs it.
        block_table: int32 [batch, max_pages], the numbers of the pages of each sequence. Those behind the last page in
            use may be anything.
        indptr: int32 [batch + 1]: the pages of sequence b are `indices[indptr[b] : indptr[b + 1]]`.
        indices: int32, the numbers of the pages of all sequences, one after the other.
        last_page_len: int32 [batch], the keys in use of each sequence's last page, 1 to page_size. A sequence without
            pages has no keys.
        layout: "NHD", or "HND" for dense arrays [batch, kv_heads, room, head_dim] and pools [pages, kv_heads,
            page_size, head_dim].
        k_scale, v_scale: of keys and values in float8 (e4m3fn or e5m2, both of one dtype), the factors that stored
            numbers are multiplied by: a number above 0, or a float32 array of one element or [kv_heads].

    Raises:
        TypeError, ValueError: arguments that do not belong together; the message names them.
    """

    k: Any
    v: Any
    _: KW_ONLY
    cu_seqlens: Any = None
    seqlens: Any = None
    block_table: Any = None
    indptr: Any = None
    indices: Any = None
    last_page_len: Any = None
    layout: str = "NHD"
    k_scale: Any = None
    v_scale: Any = None

    def __post_init__(self) -> None:
        """Check which arguments are given; `attention` checks the arrays."""
        if self.layout not in ("NHD", "HND"):
            raise ValueError(f"KVCache: argument 'layout': expected 'NHD' or 'HND', got {self.layout!r}")
        index = [name for name in _INDEX if getattr(self, name) is not None]
        if index and (self.block_table is not None or self.seqlens is not None):
            other = "block_table" if self.block_table is not None else "seqlens"
            raise ValueError(f"KVCache: argument {other!r}: expected none, as {index[0]!r} is given")
        if index and len(index) < len(_INDEX):
            lacking = next(name for name in _INDEX if name not in index)
            raise ValueError(f"KVCache: argument {lacking!r}: expected an int32 array, as {index[0]!r} is given")
        if self.block_table is not None and self.seqlens is None:
            raise ValueError("KVCache: argument 'seqlens': expected an int32 array, as 'block_table' is given")
        if self.cu_seqlens is not None and (in_pages(self) or self.layout != "NHD"):
            other = "layout='HND'" if not in_pages(self) else "indptr" if index else "block_table"
            raise ValueError(f"KVCache: argument 'cu_seqlens': expected none beside {other}")
        dtypes = [str(getattr(array, "dtype", "")).removeprefix("torch.") for array in (self.k, self.v)]
        for name, dtype, scale in zip("kv", dtypes, (self.k_scale, self.v_scale), strict=True):
            if dtype.startswith("float8") and dtype not in FLOAT8:
                raise TypeError(f"KVCache: argument {name!r}: expected dtype {' or '.join(FLOAT8)}, got {dtype}")
            if (scale is not None) != (dtype in FLOAT8):
                wanted = "a number or a float32 array" if scale is None else "none"
                raise ValueError(
                    f"KVCache: argument '{name}_scale': expected {wanted}, as the dtype of {name!r} is {dtype}, got "
                    f"{describe(scale)}"
                )
            if scale is not None and not isinstance(scale, Real) and not hasattr(scale, "__dlpack__"):
                raise TypeError(
                    f"KVCache: argument '{name}_scale': expected a number or a float32 array, got {describe(scale)}"
                )


def in_pages(cache: KVCache) -> bool:
    """Return True if keys and values lie in pages."""
    return cache.block_table is not None or cache.indptr is not None


def tables(cache: KVCache) -> tuple[Any, ...]:
    """Return the arrays beside k and v, or None for each that is not given, in the order in which kernels take them."""
    return cache.cu_seqlens, cache.seqlens, cache.block_table, cache.indptr, cache.indices, cache.last_page_len


def kv_dtype(cache: KVCache) -> str:
    """Return the value of the kernels' axis for the dtype of keys and values."""
    return "as_q" if cache.k_scale is None else str(cache.k.dtype).removeprefix("torch.")


def scales(cache: KVCache) -> tuple[Any, ...]:
    """Return the arrays k_scale and v_scale, or None, and the numbers, in the order in which kernels take them."""
    if cache.k_scale is None:
        return _NO_SCALES
    given = cache.k_scale, cache.v_scale
    arrays = [None if isinstance(x, Real) else x for x in given]
    numbers = [float(x) if isinstance(x, Real) else 1.0 for x in given]
    return *arrays, *numbers
