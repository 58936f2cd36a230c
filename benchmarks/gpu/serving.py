"""The measurements of what an engine calls besides decode: prefill on pages, mixed batches, trees, host time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from benchmarks.gpu import paged_peers
from benchmarks.gpu.cells import REPLAYED, compare, replayed
from benchmarks.gpu.check import WrongResult
from benchmarks.gpu.decode import in_pages
from benchmarks.gpu.peers import attempt
from benchmarks.support.rows import Row

from dimorph import attention as at


def serving(peers: Sequence[str]) -> Iterator[Row]:
    """Yield all rows."""
    backends = paged_peers.chosen(peers)
    yield from (_prefill(page_size, backends) for page_size in (16, 128))
    yield _mixed(backends)
    yield _verify()
    yield from _host()


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def _microseconds(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    return {name: value * 1e3 / REPLAYED for name, value in compare(replayed(calls)).items()}


def _prefill(page_size: int, backends: Sequence[str]) -> Row:
    """Causal prefill of 16 sequences of 2048 keys in pages, beside the same keys in dense arrays."""
    torch.manual_seed(0)
    batch, keys, heads, kv_heads = 16, 2048, 32, 8
    q, k, v = (_random(batch, keys, h, 128) for h in (heads, kv_heads, kv_heads))
    cache, _ = in_pages(k, v, page_size)
    out, other = torch.empty_like(q), torch.empty_like(q)
    step = at.plan(q, cache, variant=at.Causal)
    calls = {
        "pages": lambda: at.run(step, q, cache, out=out),
        "own dense": lambda: at.attention(q, k, v, variant=at.Causal, out=other),
    }
    for call in calls.values():
        call()
    if not torch.allclose(out, other, atol=8e-3, rtol=2e-2):
        raise WrongResult(f"prefill on pages of {page_size} differs from dense keys")
    offsets, flat = torch.arange(batch + 1, device="cuda", dtype=torch.int32) * keys, q.view(-1, heads, 128)
    for name in backends:
        theirs = torch.empty_like(flat)
        made = attempt(name, "prefill on pages", partial(paged_peers.prefill, name, flat, offsets, cache, theirs))
        if made and _agrees(made, theirs, out.view_as(flat)):
            calls[name] = made
    work = 2 * batch * heads * keys * keys * 128 / 1e6
    rates = {name: work / took for name, took in _microseconds(calls).items()}
    cell = {"batch": batch, "seq": keys, "heads": f"{heads}/{kv_heads}", "mask": "causal", "page": page_size}
    return Row("gpu/prefill/paged", cell, "TFLOP/s", rates.pop("pages"), rates)


def _agrees(call: Callable[[], object], theirs: torch.Tensor, expected: torch.Tensor) -> bool:
    call()
    if not torch.allclose(theirs, expected, atol=8e-3, rtol=2e-2):
        raise WrongResult("FlashInfer differs on pages")
    return True


def _mixed(backends: Sequence[str]) -> Row:
    """64 requests with lengths from a power law: 48 decode, 16 are chunks of prompts; in one launch, and in two."""
    rng = np.random.default_rng(0)
    lengths = np.clip(100 * (1 - rng.random(64)) ** (-1 / 0.6), 100, 30000).astype(np.int32)
    queries = np.where(np.arange(64) < 48, 1, 512).astype(np.int32)
    lengths, page_size = np.maximum(lengths, queries), 16
    counts = -(-lengths // page_size)
    pages = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    pool = [_random(int(pages[-1]), page_size, 8, 128) for _ in range(2)]
    numbers = torch.randperm(int(pages[-1]), device="cuda").int()

    def part(first: int, last: int) -> tuple[torch.Tensor, at.KVCache]:
        own, start = slice(first, last), pages[first]
        tables = {
            "indptr": torch.from_numpy(pages[first : last + 1] - start).cuda(),
            "indices": numbers[int(start) : int(pages[last])],
            "last_page_len": torch.from_numpy((lengths - (counts - 1) * page_size)[own]).cuda(),
        }
        offsets = np.concatenate([[0], np.cumsum(queries[own])]).astype(np.int32)
        return torch.from_numpy(offsets).cuda(), at.KVCache(*pool, **tables)

    def runs(out: torch.Tensor, *parts: tuple[int, int]) -> list[Callable[[], object]]:
        made = []
        for first, last in parts:
            offsets, cache = part(first, last)
            rows = slice(int(queries[:first].sum()), int(queries[:last].sum()))
            longest = int(queries[first:last].max())
            step = at.plan(q[rows], cache, variant=at.Causal, cu_seqlens_q=offsets, max_seqlen_q=longest)
            made.append(lambda step=step, cache=cache, rows=rows: at.run(step, q[rows], cache, out=out[rows]))
        return made

    q = _random(int(queries.sum()), 32, 128)
    out, other = torch.empty_like(q), torch.empty_like(q)
    (together,), (decoding, chunks) = runs(out, (0, 64)), runs(other, (0, 48), (48, 64))
    calls = {"together": together, "in two calls": lambda: (decoding(), chunks())}
    for call in calls.values():
        call()
    if not torch.allclose(out, other, atol=8e-3, rtol=2e-2):
        raise WrongResult("a mixed batch in one call differs from two calls")
    offsets, cache = part(0, 64)
    for name in backends:
        theirs = torch.empty_like(q)
        one = attempt(name, "mixed", partial(paged_peers.prefill, name, q, offsets, cache, theirs))
        if one and _agrees(one, theirs, out):
            calls[f"{name} together"] = one
        first = attempt("flashinfer", "mixed", partial(paged_peers.decoding, q[:48], part(0, 48)[1], theirs[:48]))
        rest = attempt(name, "mixed", partial(paged_peers.prefill, name, q[48:], *part(48, 64), theirs[48:]))
        if first and rest and _agrees(lambda: (first(), rest()), theirs, out):  # noqa: B023
            calls[f"{name} in two calls"] = lambda first=first, rest=rest: (first(), rest())
    took = _microseconds(calls)
    return Row("gpu/mixed", {"decoding": 48, "chunks": 16, "page": page_size}, "us", took.pop("together"), took)


def _verify() -> Row:
    """8 queries in a tree for each of 32 sequences of 4096 keys, beside one query for each."""
    torch.manual_seed(0)
    k, v = (_random(32, 4096, 8, 128) for _ in range(2))
    cache, _ = in_pages(k, v, 16)
    q = _random(32, 8, 32, 128)
    tree = torch.tensor([at.tree_bits([-1, 0, 0, 1, 1, 2, 2, 3])] * 32, device="cuda")
    variant, one = at.TreeMask(tree), q[:, :1].contiguous()
    out, other = torch.empty_like(q), torch.empty_like(one)
    steps = at.plan(q, cache, variant=variant), at.plan(one, cache)
    calls = {
        "tree": lambda: at.run(steps[0], q, cache, out=out),
        "one query": lambda: at.run(steps[1], one, cache, out=other),
    }
    took = _microseconds(calls)
    if not torch.allclose(out, at.attention(q, k, v, variant=variant), atol=4e-3, rtol=2e-2):
        raise WrongResult("a tree over pages differs from dense keys")
    return Row("gpu/verify", {"batch": 32, "kv": 4096, "queries": 8}, "us", took.pop("tree"), took)


def _host() -> Iterator[Row]:
    """The host's time for `plan` and `run` of 64 sequences."""
    k, v = (_random(64, 1024, 8, 128) for _ in range(2))
    cache, _ = in_pages(k, v, 16)
    q = _random(64, 1, 32, 128)
    out, step = torch.empty_like(q), at.plan(q, cache)
    calls = {
        "run": lambda: at.run(step, q, cache, out=out),
        "plan": lambda: at.plan(q, cache, workspace=step.workspace),
    }
    for name, call in calls.items():
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(20):
                call()
            times.append((time.perf_counter() - start) / 20 * 1e6)
            torch.cuda.synchronize()
        yield Row(f"gpu/call/{name}", {"batch": 64}, "us", float(np.median(times)), {})
