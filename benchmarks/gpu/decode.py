"""The measurements of decode over caches in pages, beside our own dense decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from benchmarks.gpu.cells import REPLAYED, compare, replayed
from benchmarks.gpu.check import WrongResult
from benchmarks.support.rows import Row

from dimorph.attention import KVCache, attention, workspace_size

# Sequences, keys of each, query heads, KV heads, keys of a page.
CELLS = [
    (64, 8192, 32, 8, 16),
    (1, 131072, 32, 8, 16),
    (128, 1024, 32, 8, 16),
    (16, 4096, 64, 8, 16),
    (8, 2048, 32, 8, 64),
]


def decode(_peers: Sequence[str]) -> Iterator[Row]:
    """Yield rows of one query for each sequence, with its keys in pages in random order, and dense."""
    for batch, keys, heads, kv_heads, page_size in CELLS:
        torch.manual_seed(0)
        q = torch.randn(batch, 1, heads, 128, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, keys, kv_heads, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        pages = batch * keys // page_size
        order = torch.randperm(pages, device="cuda")
        pools = [torch.empty(pages, page_size, kv_heads, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        for pool, dense in zip(pools, (k, v), strict=True):
            pool[order] = dense.view_as(pool)
        table = order.view(batch, -1).int()
        cache = KVCache(*pools, block_table=table, seqlens=torch.full((batch,), keys, device="cuda", dtype=torch.int32))
        out, other = torch.empty_like(q), torch.empty_like(q)
        workspace = torch.empty(workspace_size(q.shape, 128, keys) or 1, device="cuda")

        def in_pages(q=q, cache=cache, out=out, workspace=workspace) -> object:
            return attention(q, cache, out=out, workspace=workspace)

        def dense(q=q, k=k, v=v, other=other, workspace=workspace) -> object:
            return attention(q, k, v, out=other, workspace=workspace)

        in_pages(), dense()
        if not torch.allclose(out, other, atol=2e-3, rtol=1e-2):
            raise WrongResult(f"{batch} sequences of {keys} keys in pages of {page_size} differ from dense keys")
        took = compare(replayed({"pages": in_pages, "dense": dense}))
        cell = {"batch": batch, "kv": keys, "heads": f"{heads}/{kv_heads}", "page": page_size, "dtype": "bfloat16"}
        times = {name: value * 1e3 / REPLAYED for name, value in took.items()}
        yield Row("gpu/decode/paged", cell, "us", times["pages"], {"own dense": times["dense"]})
