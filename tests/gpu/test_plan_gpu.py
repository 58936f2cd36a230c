"""Many plans and runs on a GPU, over a workspace and a pool that are never cleared."""

from __future__ import annotations

from typing import Any

import pytest

from dimorph import attention as at
from dimorph.toolchain import nvidia_driver as driver

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


@pytest.mark.parametrize(("queries", "cycles"), [(1, 16000), (24, 4000)])
def test_20000_cycles_over_poisoned_workspaces_and_a_changing_pool(queries: int, cycles: int) -> None:
    """Each cycle has other lengths and pages; results are those of the sm80 family, which has no schedule."""
    torch.manual_seed(queries)
    batch, size, most = 6, 16, 1500
    pool = torch.randn(2, batch * -(-most // size) + 7, size, 2, 128, dtype=torch.bfloat16, device="cuda")
    q = torch.randn(batch, queries, 8, 128, dtype=torch.bfloat16, device="cuda")
    out, other = torch.empty_like(q), torch.empty_like(q)
    workspace = torch.empty(at.plan_size(q.shape, 2, 128), device="cuda")
    others = torch.empty(at.plan_size(q.shape, 2, 128), device="cuda")
    table = torch.zeros(batch, -(-most // size), dtype=torch.int32, device="cuda")
    lengths = torch.zeros(batch, dtype=torch.int32, device="cuda")
    cache, uniform = at.KVCache(pool[0], pool[1], block_table=table, seqlens=lengths), at.Attention(family="sm80")
    worst = torch.zeros((), device="cuda")

    def cycle(number: int) -> None:
        generator = torch.Generator("cuda").manual_seed(number)
        lengths.copy_(torch.randint(0, most, (batch,), generator=generator, device="cuda") * (number % 5 > 0))
        order = torch.randperm(pool.shape[1], generator=generator, device="cuda")
        table.copy_(order[: table.numel()].view_as(table))
        workspace.fill_(float("nan"))
        plan = at.plan(q, cache, variant=at.Causal, workspace=workspace)
        at.run(plan, q, cache, out=out)

    for number in range(cycles):
        cycle(number)
        uniform(q, cache, variant=at.Causal, out=other, workspace=others)
        worst = torch.maximum(worst, (out.float() - other.float()).abs().nan_to_num(1e9).max())
        if number == 10:
            torch.cuda.synchronize()
            first, taken = out.clone(), torch.cuda.memory_allocated()
    assert worst < 0.04
    assert torch.cuda.memory_allocated() <= taken + first.numel() * 2 + 4096, "memory is lost"
    cycle(10)
    assert torch.equal(out, first), "results drift"


def test_a_plan_in_a_graph_follows_lengths_and_absent_sequences() -> None:
    batch, most = 4, 800
    k, v = torch.randn(2, batch, most, 2, 64, dtype=torch.bfloat16, device="cuda")
    q = torch.randn(batch, 3, 8, 64, dtype=torch.bfloat16, device="cuda")
    lengths, queries = (torch.ones(batch, dtype=torch.int32, device="cuda") for _ in range(2))
    cache, out = at.KVCache(k, v, seqlens=lengths), torch.zeros_like(q)
    workspace = at.plan(q, cache, variant=at.Causal, seqlens_q=queries).workspace

    def step() -> None:
        plan = at.plan(q, cache, variant=at.Causal, seqlens_q=queries, workspace=workspace)
        at.run(plan, q, cache, out=out)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for own, keys in (([1, 3, 0, 2], [700, 3, 0, 20]), ([0, 0, 3, 0], [1, 2, 800, 4]), ([0, 0, 0, 0], [0, 0, 0, 0])):
        queries.copy_(torch.tensor(own)), lengths.copy_(torch.tensor(keys))
        out.fill_(7)
        graph.replay()
        for b in range(batch):
            assert (out[b, own[b] :] == 7).all()
            if own[b]:
                expected = at.attention(q[b : b + 1, : own[b]], k[b : b + 1, : keys[b]], v[b : b + 1, : keys[b]],
                                        variant=at.Causal)  # fmt: skip
                assert torch.allclose(out[b, : own[b]], expected[0], atol=0.01, rtol=0.02)
