"""`append`: new keys and values into a cache."""

from __future__ import annotations

import functools
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries, requires_grad
from dimorph.attention.cache import KVCache, tables
from dimorph.attention.kernels import append_cpu


def append(cache: KVCache, k: Any, v: Any, positions: Any, *, cu_seqlens: Any = None) -> None:
    """Write new keys and values into the arrays of a cache, at their positions. On the CPU.

    Lengths in use (`seqlens`, `last_page_len`) are the caller's to count, before the call or after it. All arguments
    are checked before anything is written.

    Args:
        cache: the cache. Its arrays are written to; they share no memory with the other arguments.
        k, v: new rows, [batch, n, kv_heads, head_dim], or ragged, [tokens, kv_heads, head_dim]; of the cache's dtype.
        positions: int32 [batch, n] or [tokens], the position of each new row in its sequence. Within the room of the
            sequence, and no two rows at one place.
        cu_seqlens: for ragged rows, int32 [batch + 1]: the first of each sequence, and the end.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it, with what was expected and what came.
        NotImplementedError: arrays lie on a GPU, or torch has to see the call.
        RuntimeError: a tensor requires grad while grad mode is on.
    """
    if not isinstance(cache, KVCache):
        raise TypeError(f"append: argument 'cache': expected a KVCache, got {describe(cache)}")
    arrays = {"cache.k": cache.k, "cache.v": cache.v, "k": k, "v": v}
    for name, array in arrays.items():
        if not hasattr(array, "__dlpack__") or isinstance(array, type):
            raise TypeError(f"append: argument {name!r}: expected an array, got {describe(array)}")
        library = libraries[type(array)]
        if library.gpu(array) is not None:
            raise NotImplementedError(f"append: argument {name!r}: expected an array on the CPU, got one on a GPU")
        if library.records_gradients() and requires_grad(array):
            raise RuntimeError(f"append: argument {name!r}: expected a tensor that requires no grad, got one that does")
    library = libraries[type(k)]
    others = [x for x in (v, positions, cu_seqlens, *tables(cache)) if x is not None]
    if library.is_indirect(k, cache.k, cache.v, None) or library.is_lazy(*others):
        raise NotImplementedError(
            "append: not supported in torch.compile, tracers, modes and transforms, nor with tensors whose memory does "
            "not hold their values"
        )
    _function(str(k.dtype))(cache.k, cache.v, k, v, positions, cu_seqlens, *tables(cache), cache.layout == "HND")


@functools.cache
def _function(dtype: str) -> Any:
    try:
        return append_cpu.load(dtype=dtype).append
    except dm.DeclarationError as error:
        raise TypeError(f"append: argument 'k': expected dtype float32, bfloat16 or float16, got {dtype}") from error
