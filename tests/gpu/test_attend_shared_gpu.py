"""`attend_shared` on a GPU: against its definition in float64, and in a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import DTYPES, Array
from support.prefixes import check, shared_problem

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("warm_store")]

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


def to_gpu(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype == DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.uint16)).cuda().view(torch.bfloat16)
    return torch.from_numpy(array).cuda()


def to_numpy(tensor: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.uint16).cpu().numpy()).view(DTYPES["bfloat16"])
    return np.asarray(tensor.cpu().numpy())


@pytest.mark.parametrize("chunk", range(3))
def test_100_random_problems(chunk: int) -> None:
    problems = (shared_problem(seed, ("bfloat16", "float16")) for seed in range(chunk * 100, (chunk + 1) * 100))
    found = [check(problem, to_gpu, to_numpy) for problem in problems]
    assert not any(found), "\n".join(filter(None, found))


def test_decode_in_a_graph_is_attention_over_tables_that_share_pages() -> None:
    batch, size, shared, own = 8, 16, 64, 4  # sequences; keys of a page; pages of the prefix, and of a sequence
    pools = [torch.randn(shared + batch * own, size, 2, 128, device="cuda").bfloat16() for _ in range(2)]
    order = torch.randperm(len(pools[0]), device="cuda").int()
    prefix_table, table = order[None, :shared].contiguous(), order[shared:].view(batch, own).contiguous()
    lengths = torch.zeros(batch, dtype=torch.int32, device="cuda")
    prefix_length = torch.full((1,), shared * size, dtype=torch.int32, device="cuda")
    prefix = at.KVCache(*pools, block_table=prefix_table, seqlens=prefix_length)
    cache = at.KVCache(*pools, block_table=table, seqlens=lengths)
    q = torch.randn(batch, 1, 8, 128, device="cuda").bfloat16()
    out, lse = torch.empty_like(q), torch.empty(batch, 1, 8, device="cuda")

    def call() -> Any:
        return at.attend_shared(q, prefix, cache, variant=at.Causal, out=out, lse=lse)

    lengths.fill_(1)
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    whole = at.KVCache(
        *pools,
        block_table=torch.cat([prefix_table.expand(batch, -1), table], 1).contiguous(),
        seqlens=torch.empty_like(lengths),
    )
    for count in (1, 17, 64):
        lengths.copy_(torch.arange(batch, device="cuda") * 7 % count + 1)
        whole.seqlens.copy_(lengths + shared * size)
        q.copy_(torch.randn_like(q))
        graph.replay()
        expected, expected_lse = at.attention(q, whole, variant=at.Causal, return_lse=True)
        assert torch.allclose(out, expected, atol=2e-3, rtol=2e-2)
        assert torch.allclose(lse, expected_lse, atol=2e-5, rtol=1e-6)
