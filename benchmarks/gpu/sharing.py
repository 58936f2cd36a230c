"""The measurements of sequences that share a prefix of keys: read once for all of them, and by each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from benchmarks.gpu.cells import REPLAYED, compare, replayed
from benchmarks.gpu.check import WrongResult
from benchmarks.support.rows import Row

from dimorph.attention import Causal, KVCache, attend_shared, attention, workspace_size

PAGE, HEADS, KV_HEADS, DIM = 16, 32, 8, 128
# Sequences, keys of the prefix, keys of each sequence's own.
CELLS = [(64, 8192, 256), (16, 8192, 256), (256, 1024, 256), (64, 1024, 1024)]


def sharing(_peers: Sequence[str]) -> Iterator[Row]:
    """Yield rows of one query for each sequence, beside attention over page tables that share their first pages."""
    for batch, shared, own in CELLS:
        torch.manual_seed(0)
        first, each = shared // PAGE, own // PAGE
        pools = torch.randn(2, first + batch * each, PAGE, KV_HEADS, DIM, device="cuda").bfloat16()
        order = torch.randperm(first + batch * each, device="cuda").int()
        tables = [order[None, :first].contiguous(), order[first:].view(batch, each).contiguous()]
        tables.append(torch.cat([tables[0].expand(batch, -1), tables[1]], 1).contiguous())
        prefix, cache, whole = (
            KVCache(*pools, block_table=table, seqlens=torch.full_like(table[:, 0], table.shape[1] * PAGE))
            for table in tables
        )
        q = torch.randn(batch, 1, HEADS, DIM, device="cuda").bfloat16()
        out, other, lse = torch.empty_like(q), torch.empty_like(q), torch.empty(batch, 1, HEADS, device="cuda")
        workspace = torch.empty(workspace_size(q.shape, DIM, shared + own) or 1, device="cuda")

        def once(q=q, prefix=prefix, cache=cache, out=out, lse=lse) -> object:
            return attend_shared(q, prefix, cache, variant=Causal, out=out, lse=lse)

        def by_each(q=q, whole=whole, other=other, workspace=workspace) -> object:
            return attention(q, whole, variant=Causal, out=other, workspace=workspace)

        once(), by_each()
        if not torch.allclose(out, other, atol=2e-3, rtol=2e-2):
            raise WrongResult(f"{batch} sequences with a prefix of {shared} keys differ from attention over all keys")
        took = compare(replayed({"once": once, "by each": by_each}))
        cell = {"batch": batch, "prefix": shared, "own": own, "heads": f"{HEADS}/{KV_HEADS}", "page": PAGE}
        times = {name: value * 1e3 / REPLAYED for name, value in took.items()}
        yield Row("gpu/decode/shared", cell, "us", times["once"], {"prefix read by each": times["by each"]})
