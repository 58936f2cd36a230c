"""The measurements of decode over caches in pages, beside our own dense decode, and over caches in float8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from benchmarks.gpu import paged_peers
from benchmarks.gpu.cells import REPLAYED, compare, replayed
from benchmarks.gpu.check import WrongResult
from benchmarks.gpu.peers import attempt
from benchmarks.support.rows import Row

from dimorph.attention import KVCache, attention, plan, plan_size, run, workspace_size

# Sequences, keys of each, query heads, KV heads, keys of a page.
CELLS = [
    (64, 8192, 32, 8, 16),
    (1, 131072, 32, 8, 16),
    (128, 1024, 32, 8, 16),
    (16, 4096, 64, 8, 16),
    (64, 8192, 32, 32, 16),
    (8, 2048, 32, 8, 64),
    (32, 4096, 32, 8, 16),
    (1, 1024, 32, 8, 16),
    (1, 4096, 32, 8, 16),
    (1, 16384, 32, 8, 16),
    (1, 65536, 32, 8, 16),
]


def in_pages(k: torch.Tensor, v: torch.Tensor, page_size: int) -> tuple[KVCache, torch.Tensor]:
    """Return a cache with these dense keys and values in pages in random order, and the order."""
    batch, keys, kv_heads, dim = k.shape
    pages = batch * keys // page_size
    order = torch.randperm(pages, device="cuda")
    pools = [torch.empty(pages, page_size, kv_heads, dim, device="cuda", dtype=k.dtype) for _ in range(2)]
    for pool, dense in zip(pools, (k, v), strict=True):
        pool[order] = dense.view_as(pool)
    lengths = torch.full((batch,), keys, device="cuda", dtype=torch.int32)
    return KVCache(*pools, block_table=order.view(batch, -1).int(), seqlens=lengths), order


def decode(peers: Sequence[str]) -> Iterator[Row]:
    """Yield rows of one query for each sequence: keys in pages by a plan, with the plan made anew, and dense keys."""
    for batch, keys, heads, kv_heads, page_size in CELLS:
        torch.manual_seed(0)
        q = torch.randn(batch, 1, heads, 128, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, keys, kv_heads, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        cache, order = in_pages(k, v, page_size)
        out, other = torch.empty_like(q), torch.empty_like(q)
        workspace = torch.empty(workspace_size(q.shape, 128, keys) or 1, device="cuda")
        step = plan(q, cache)

        def pages(q=q, cache=cache, out=out, step=step) -> object:
            return run(step, q, cache, out=out)

        def planned(q=q, cache=cache, out=out, step=step) -> object:
            return run(plan(q, cache, workspace=step.workspace), q, cache, out=out)

        def dense(q=q, k=k, v=v, other=other, workspace=workspace) -> object:
            return attention(q, k, v, out=other, workspace=workspace)

        pages(), dense()
        if not torch.allclose(out, other, atol=2e-3, rtol=1e-2):
            raise WrongResult(f"{batch} sequences of {keys} keys in pages of {page_size} differ from dense keys")
        calls = {"pages": pages, "with its plan": planned, "own dense": dense}
        theirs = torch.empty_like(q)
        if paged_peers.chosen(peers) and (
            call := attempt("flashinfer", "decode", partial(paged_peers.decoding, q[:, 0], cache, theirs[:, 0]))
        ):
            call()
            if not torch.allclose(theirs, out, atol=2e-3, rtol=1e-2):
                raise WrongResult(f"FlashInfer differs for {batch} sequences of {keys} keys")
            calls["flashinfer"] = call
        took = compare(replayed(calls))
        cell = {"batch": batch, "kv": keys, "heads": f"{heads}/{kv_heads}", "page": page_size, "dtype": "bfloat16"}
        times = {name: value * 1e3 / REPLAYED for name, value in took.items()}
        yield Row("gpu/decode" if batch > 1 else "gpu/decode/one", cell, "us", times.pop("pages"), times)
        if (batch, keys, heads) in ((64, 8192, 32), (1, 131072, 32)) and kv_heads == 8:
            yield _float8(q, k, v, cache, order, cell)


def _float8(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cache: KVCache, order: torch.Tensor, cell: dict) -> Row:
    """Measure the same problem with keys and values in float8, in pages and dense, beside bfloat16."""
    scale = 3.0 / 448
    stored = [(x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn) for x in (k, v)]
    pools = [torch.empty(cache.k.shape, device="cuda", dtype=torch.uint8) for _ in range(2)]
    for pool, dense in zip(pools, stored, strict=True):
        pool[order] = dense.view(torch.uint8).view_as(pool)
    scales = {"k_scale": scale, "v_scale": scale}
    tables = {"block_table": cache.block_table, "seqlens": cache.seqlens}
    caches = {
        "pages": KVCache(*(pool.view(torch.float8_e4m3fn) for pool in pools), **tables, **scales),
        "float8, dense": KVCache(*stored, seqlens=cache.seqlens, **scales),
        "own bfloat16": cache,
        "own bfloat16, dense": KVCache(k, v),
    }
    outs = {name: torch.empty_like(q) for name in caches}
    workspace = torch.empty(plan_size(q.shape, k.shape[2], 128), device="cuda")
    calls = {name: lambda name=name: attention(q, caches[name], out=outs[name], workspace=workspace) for name in caches}
    for call in calls.values():
        call()
    exact = attention(q, *((x.float() * scale).to(torch.bfloat16) for x in stored))
    for name in ("pages", "float8, dense"):
        if not torch.allclose(outs[name], exact, atol=4e-3, rtol=2e-2):
            raise WrongResult(f"{name}: float8 differs from the same numbers in bfloat16, {cell}")
    times = {name: value * 1e3 / REPLAYED for name, value in compare(replayed(calls)).items()}
    return Row("gpu/decode/fp8", cell | {"dtype": "float8_e4m3fn"}, "us", times.pop("pages"), times)
