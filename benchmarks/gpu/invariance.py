"""The price of `batch_invariant=True`: decode, prefill and mixed lengths, beside the same calls without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from benchmarks.gpu.cells import REPLAYED, compare, replayed
from benchmarks.gpu.check import WrongResult
from benchmarks.gpu.decode import in_pages
from benchmarks.support.rows import Row

from dimorph import attention as at

# Sequences, queries and keys of each.
CELLS = [
    (64, 1, 8192),
    (1, 1, 131072),
    (128, 1, 1024),
    (1, 1, 4096),
    (1, 1, 16384),
    (16, 2048, 2048),
    (1, 16384, 16384),
    (4, 512, 32768),
]


def invariance(_peers: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each cell: 32 query heads over 8 KV heads of 128 bfloat16, causal, pages of 16."""
    for batch, queries, keys in CELLS:
        torch.manual_seed(0)
        q = torch.randn(batch, queries, 32, 128, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, keys, 8, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        cache, _ = in_pages(k, v, 16)
        outs = torch.empty_like(q), torch.empty_like(q)
        plans = [at.plan(q, cache, variant=at.Causal, batch_invariant=option) for option in (True, False)]
        calls = {
            name: lambda step=step, q=q, cache=cache, out=out: at.run(step, q, cache, out=out)
            for name, step, out in zip(("invariant", "own ordinary"), plans, outs, strict=True)
        }
        for call in calls.values():
            call()
        if not torch.allclose(*outs, atol=8e-3, rtol=2e-2):
            raise WrongResult(f"{batch} x {queries} queries of {keys} keys: the invariant result differs by too much")
        times = {name: value * 1e3 / REPLAYED for name, value in compare(replayed(calls)).items()}
        cell = {"batch": batch, "queries": queries, "kv": keys, "heads": "32/8", "mask": "causal", "page": 16}
        yield Row("gpu/invariance", cell, "us", times.pop("invariant"), times)
