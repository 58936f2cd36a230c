"""The calls of FlashInfer over caches in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from benchmarks.gpu.peers import FLASHINFER, Call

from dimorph.attention import KVCache


def _workspace() -> Any:
    return torch.empty(256 << 20, dtype=torch.uint8, device="cuda")


def _tables(cache: KVCache) -> tuple[Any, Any, Any]:
    """Return indptr, indices and last_page_len of a cache, whose sequences fill their pages if it has a block table."""
    if cache.block_table is None:
        return cache.indptr, cache.indices, cache.last_page_len
    batch, pages = cache.block_table.shape
    indptr = torch.arange(batch + 1, dtype=torch.int32, device="cuda") * pages
    return indptr, cache.block_table.flatten(), torch.full((batch,), cache.k.shape[1], dtype=torch.int32, device="cuda")


def decoding(q: Any, cache: KVCache, out: Any, tensor_cores: bool = True) -> Call:
    """Return the call for one query of each sequence. q, out: [batch, heads, dim]."""
    import flashinfer

    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(_workspace(), "NHD", use_tensor_cores=tensor_cores)
    _, page_size, kv_heads, dim = cache.k.shape
    wrapper.plan(*_tables(cache), q.shape[1], kv_heads, dim, page_size, q_data_type=q.dtype, kv_data_type=q.dtype)
    return lambda: wrapper.run(q, (cache.k, cache.v), out=out)


def prefill(name: str, q: Any, offsets: Any, cache: KVCache, out: Any) -> Call:
    """Return the call for several queries of each sequence, causal. q, out: [tokens, heads, dim]."""
    import flashinfer

    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(_workspace(), "NHD", backend=FLASHINFER[name])
    _, page_size, kv_heads, dim = cache.k.shape
    sizes = q.shape[1], kv_heads, dim, page_size
    wrapper.plan(offsets, *_tables(cache), *sizes, causal=True, q_data_type=q.dtype, kv_data_type=q.dtype)
    return lambda: wrapper.run(q, (cache.k, cache.v), out=out)


def chosen(peers: Sequence[str]) -> list[str]:
    """Return the backends of FlashInfer among the peers."""
    return [name for name in FLASHINFER if name in peers]
