"""The measurements of new keys and values on their way into a cache, beside a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from benchmarks.gpu.cells import REPLAYED, compare, replayed
from benchmarks.gpu.check import WrongResult
from benchmarks.support.rows import Row

from dimorph.attention import KVCache, append

HEADS, DIM, PAGE = 8, 128, 16
# Sequences, new tokens of each, layout of the cache, whether the new rows are ragged.
CELLS = [(64, 512, "NHD", False), (64, 512, "NHD", True), (64, 512, "HND", False), (64, 1, "NHD", False)]


def appending(_peers: Sequence[str]) -> Iterator[Row]:
    """Yield rows of new tokens of a batch, whose places lie in pages in random order."""
    for batch, tokens, layout, ragged in CELLS:
        torch.manual_seed(0)
        per_sequence = -(-tokens // PAGE)
        k, v = torch.randn(2, batch, tokens, HEADS, DIM, device="cuda").bfloat16()
        order = torch.randperm(batch * per_sequence, device="cuda").view(batch, -1)
        rows, heads = (HEADS, PAGE) if layout == "HND" else (PAGE, HEADS)
        pools = [torch.zeros(order.numel(), rows, heads, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        lengths = torch.full((batch,), tokens, device="cuda", dtype=torch.int32)
        cache = KVCache(*pools, block_table=order.int(), seqlens=lengths, layout=layout)
        positions = torch.arange(tokens, device="cuda", dtype=torch.int32).repeat(batch, 1)
        new = [x.flatten(0, 1) for x in (k, v)] if ragged else [k, v]
        starts = torch.arange(batch + 1, device="cuda", dtype=torch.int32) * tokens if ragged else None
        where = positions.flatten() if ragged else positions
        source, target = torch.stack((k, v)), torch.empty_like(torch.stack((k, v)))

        def ours(cache=cache, new=new, where=where, starts=starts) -> object:
            return append(cache, *new, where, cu_seqlens=starts)

        def copy(source=source, target=target) -> object:
            return target.copy_(source)

        ours(), copy()
        for pool, rows_of in zip(pools, (k, v), strict=True):
            pages = (pool.transpose(1, 2) if layout == "HND" else pool)[order]
            if not torch.equal(pages.reshape(batch, -1, HEADS, DIM)[:, :tokens], rows_of):
                raise WrongResult(f"append of {batch} x {tokens} tokens, {layout}: not the new rows are in the cache")
        took = compare(replayed({"append": ours, "copy": copy}))
        cell = {"batch": batch, "tokens": tokens, "heads": HEADS, "head_dim": DIM, "page": PAGE, "layout": layout}
        times = {name: value * 1e3 / REPLAYED for name, value in took.items()}
        yield Row("gpu/append", cell | {"ragged": ragged}, "us", times["append"], {"copy": times["copy"]})
