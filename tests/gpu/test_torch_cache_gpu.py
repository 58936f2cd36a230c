"""Calls over caches in compiled graphs on a GPU: the same numbers, operators, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dimorph import attention as at
from dimorph.attention import KVCache, appending, merging, operation, torch_cache_operators
from dimorph.attention.request import CachedCall
from dimorph.toolchain import nvidia_driver as driver

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):  # Dynamo makes no frozen dataclass anew
    pytest.skip(f"torch {torch.__version__} is older than 2.13", allow_module_level=True)

BATCH, HEADS, KV_HEADS, DIM, PAGES, PAGE = 3, 8, 2, 64, 200, 16


@pytest.fixture(autouse=True)
def fresh(warm_store: Path) -> Iterator[None]:
    torch.manual_seed(1)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Decoder(torch.nn.Module):  # type: ignore[misc]
    """Layers with pools of pages; every step writes new keys and attends to all."""

    def __init__(self, pools: Any) -> None:
        super().__init__()
        self.register_buffer("pools", pools)  # [layers, 2, pages, page_size, kv_heads, head_dim]

    def forward(self, q: Any, k: Any, v: Any, table: Any, lengths: Any) -> Any:
        caches = [KVCache(pool[0], pool[1], block_table=table, seqlens=lengths) for pool in self.pools]
        schedule = at.plan(q, caches[0], variant=at.Causal)
        for cache in caches:
            at.append(cache, k, v, lengths[:, None] - 1)
            whole = at.run(schedule, q, cache, return_lse=True)
            capped = at.attention(q, cache, variant=at.SoftCap(5.0), return_lse=True)
            q, lse = at.merge_states(*zip(whole, capped, strict=True))
            k, v = q[:, :, :KV_HEADS] * 0.5, -k  # exact, so that a fused kernel rounds nothing else
        return q, lse


def inputs(longest: int) -> tuple[Any, ...]:
    new = torch.randn(3, BATCH, 1, HEADS, DIM, dtype=torch.bfloat16, device="cuda")
    table = torch.randperm(PAGES, device="cuda")[: BATCH * 60].view(BATCH, 60).int()
    lengths = torch.tensor([1, longest // 2, longest], dtype=torch.int32, device="cuda")
    return new[0], new[1, :, :, :KV_HEADS].clone(), new[2, :, :, :KV_HEADS].clone(), table, lengths


def decoders() -> tuple[Decoder, Decoder]:
    pools = torch.randn(3, 2, PAGES, PAGE, KV_HEADS, DIM, dtype=torch.bfloat16, device="cuda")
    return Decoder(pools), Decoder(pools.clone())


def same(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape and torch.equal(one, other)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_decoding_step_is_one_graph(mode: str) -> None:
    compiled, eager = decoders()
    step = torch.compile(compiled, fullgraph=True, mode=mode)
    with torch.no_grad():
        for longest in (100, 101, 900, 960, 40, 500):
            given = inputs(longest)
            expected = eager(*given)
            same([x.clone() for x in step(*given)], expected)
            same([compiled.pools], [eager.pools])


def test_reduce_overhead_replays_a_graph() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    compiled, _ = decoders()
    step = torch.compile(compiled, fullgraph=True, mode="reduce-overhead")
    with torch.no_grad():
        for longest in (100, 200, 300):
            step(*inputs(longest))
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_a_captured_graph_replays_with_other_lengths_and_pages(compiled: bool) -> None:
    decoder, eager = decoders()
    step = torch.compile(decoder, fullgraph=True) if compiled else decoder
    given = inputs(960)
    with torch.no_grad():
        step(*given)  # loads and compiles
        eager(*given)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step(*given)
        for longest in (960, 30, 480):
            others = inputs(longest)
            for to, of in zip(given, others, strict=True):
                to.copy_(of)
            graph.replay()
            same(results, eager(*others))
            same([decoder.pools], [eager.pools])


def test_plans_travel_into_a_graph_and_out_of_it() -> None:
    (decoder, _), (q, _, _, table, lengths) = decoders(), inputs(900)
    cache = KVCache(*decoder.pools[0], block_table=table, seqlens=lengths)
    expected = at.run(at.plan(q, cache), q, cache)
    same([torch.compile(at.run, fullgraph=True)(at.plan(q, cache), q, cache)], [expected])
    planned = torch.compile(at.plan, fullgraph=True)(q, cache)
    same([at.run(planned, q, cache)], [expected])
    workspace = q.new_empty(at.plan_size(q.shape, KV_HEADS, DIM), dtype=torch.float32)
    planned = torch.compile(at.plan, fullgraph=True)(q, cache, workspace=workspace)
    assert planned.workspace.data_ptr() == workspace.data_ptr()
    same([at.run(planned, q, cache)], [expected])


def test_opcheck() -> None:
    for module in (operation, appending, merging):
        module.define_operator()
    (decoder, _), (q, k, v, table, lengths) = decoders(), inputs(900)
    cache = KVCache(*decoder.pools[0].clone(), block_table=table, seqlens=lengths)
    call = CachedCall(q, cache, at.Causal, None, None, None, None, None, None, True, None, None, None)
    given = torch_cache_operators._checked("attention", operation._shared._functions, call)
    ops, check = torch.ops.dimorph, torch.library.opcheck
    check(ops.attention_cached.default, given)
    # Numbers that opcheck can compare where nothing is written.
    workspace = torch.zeros(at.plan_size(q.shape, KV_HEADS, DIM), device="cuda")
    check(ops.attention_plan.default, (workspace, *given))
    at.plan(q, cache, variant=at.Causal, workspace=workspace)
    check(ops.attention_run.default, (workspace, *given))
    check(ops.attention_append.default, (*torch_cache_operators._flat(cache), k, v, lengths[:, None] - 1, None))
    states = [q, q * 0.5], [torch.randn(BATCH, 1, HEADS, device="cuda") for _ in range(2)], False
    check(ops.attention_merge_states.default, states)
