"""`append`: new keys and values into a cache."""

from __future__ import annotations

import functools
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries, requires_grad
from dimorph.attention.cache import KVCache, kv_dtype, scales, tables
from dimorph.attention.kernels import append_cpu, append_gpu


def append(cache: KVCache, k: Any, v: Any, positions: Any, *, cu_seqlens: Any = None, stream: Any = None) -> None:
    """Write new keys and values into the arrays of a cache, at their positions.

    Lengths in use (`seqlens`, `last_page_len`) are the caller's to count, before the call or after it. On the CPU all
    arguments are checked before anything is written. On a GPU positions, offsets and tables are not read before the
    launch: the caller guarantees that they fit. A call there allocates nothing, launches one kernel on the current
    stream of k's library and returns before it has run, so it can be captured into a CUDA graph, which replays with
    other positions and tables in the same arrays.

    Args:
        cache: the cache. Its arrays are written to; they share no memory with the other arguments. float8, bfloat16,
            float16, or on the CPU float32. Any head dim; on a GPU, copies are of 16 bytes of new rows where head dims,
            strides and addresses of all arrays are multiples of what that is, and of single elements elsewhere.
        k, v: new rows, [batch, n, kv_heads, head_dim], or ragged, [tokens, kv_heads, head_dim]; of the cache's dtype,
            on its device. A cache in float8 takes rows of float32, bfloat16 or float16, and receives the float32
            quotients k / k_scale and v / v_scale, rounded to nearest even. What is beyond the largest finite number
            becomes that number, and NaN stays NaN.
        positions: int32 [batch, n] or [tokens], the position of each new row in its sequence. Within the room of the
            sequence, and no two rows at one place. A negative one says that the row is padding: it is not written.
        cu_seqlens: for ragged rows, int32 [batch + 1]: the first of each sequence, and the end. Rows behind it are not
            written.
        stream: on a GPU, the stream to launch on: a raw handle, or a stream of torch, CuPy or cuda-python.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it, with what was expected and what came.
        RuntimeError: a tensor requires grad while grad mode is on.
        dimorph.MissingSpecialization, dimorph.BuildError: there is no kernel for this dtype.
    """
    if not isinstance(cache, KVCache):
        raise TypeError(f"append: argument 'cache': expected a KVCache, got {describe(cache)}")
    arrays = {"cache.k": cache.k, "cache.v": cache.v, "k": k, "v": v}
    for name, array in arrays.items():
        if not hasattr(array, "__dlpack__") or isinstance(array, type):
            raise TypeError(f"append: argument {name!r}: expected an array, got {describe(array)}")
        if libraries[type(array)].records_gradients() and requires_grad(array):
            raise RuntimeError(f"append: argument {name!r}: expected a tensor that requires no grad, got one that does")
    library = libraries[type(k)]
    others = [x for x in (v, positions, cu_seqlens, *tables(cache), *scales(cache)[:2]) if x is not None]
    if library.is_indirect(k, cache.k, cache.v, None) or library.is_lazy(*others):
        define_operator()
        from dimorph.attention import torch_cache_operators

        torch_cache_operators.append(cache, k, v, positions, cu_seqlens, stream)
    else:
        write(cache, k, v, positions, cu_seqlens, stream)


def write(cache: KVCache, k: Any, v: Any, positions: Any, cu_seqlens: Any, stream: Any = None) -> None:
    """Write as `append` does, whose checks of single arrays are done."""
    on_gpu = libraries[type(cache.k)].gpu(cache.k) is not None
    if stream is not None and not on_gpu:
        raise ValueError("append: argument 'stream': expected none, as 'cache.k' is not on a GPU")
    options = {} if stream is None else {"stream": stream}
    arrays = cache.k, cache.v, k, v, positions, cu_seqlens, *tables(cache)
    _function(str(k.dtype), kv_dtype(cache), on_gpu)(*arrays, *scales(cache), cache.layout == "HND", **options)


@functools.cache
def _function(dtype: str, stored: str, on_gpu: bool) -> Any:
    try:
        return (append_gpu if on_gpu else append_cpu).load(dtype=dtype, kv_dtype=stored).append
    except dm.DeclarationError as error:
        narrow = on_gpu and stored == "as_q"
        dtypes = "bfloat16 or float16, on a GPU," if narrow else "float32, bfloat16 or float16,"
        raise TypeError(f"append: argument 'k': expected dtype {dtypes} got {dtype}") from error


def define_operator() -> None:
    """Make the torch operator that takes this operation's place in a traced graph."""
    from dimorph.attention.torch_cache_operators import define

    define("attention_append", write)


# As torch.compiler.assume_constant_result does it, but without importing torch: the function runs while it is traced.
define_operator._dynamo_marked_constant = True  # type: ignore[attr-defined]
