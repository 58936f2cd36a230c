"""attention over a `KVCache` on a GPU against its definition in float64, and beside the same keys in a dense array."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import DTYPES, Array
from support.every_hook import CACHES, QUERIES, check
from support.paged import GPU_SPECIALIZATIONS, failures, paged_config

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

CONFIGS = [paged_config(seed, GPU_SPECIALIZATIONS) for seed in range(500)]
CONFIGS.sort(key=lambda config: repr(config.specialization))


def to_gpu(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype == DTYPES["bfloat16"]:
        return torch.from_numpy(np.array(array.view(np.uint16), order="C")).cuda().view(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C")).cuda()


def to_numpy(tensor: Any, dtype: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.uint16).cpu().numpy()).view(dtype)
    return np.asarray(tensor.cpu().numpy())


def on_gpu(cache: at.KVCache) -> at.KVCache:
    return at.KVCache(**{field.name: to_gpu(getattr(cache, field.name)) for field in fields(cache)})


class OnGpu:
    """Takes and gives what `Attention` does on the CPU, and computes it on the GPU."""

    def __init__(self, attend: at.Attention) -> None:
        self._attend = attend

    def __call__(self, q: Array, cache: at.KVCache, *, variant: dm.BoundVariant, **options: Any) -> Any:
        bound = dm.BoundVariant(variant.variant, tuple(map(to_gpu, variant.args)))
        moved = {name: to_gpu(value) for name, value in options.items()}
        out, lse = self._attend(to_gpu(q), on_gpu(cache), variant=bound, **moved)
        return to_numpy(out, q.dtype), to_numpy(lse, np.float32)


@pytest.mark.parametrize("chunk", range(5))
def test_100_random_problems(chunk: int, attend: at.Attention) -> None:
    failed = failures(OnGpu(attend), CONFIGS[chunk * 100 : (chunk + 1) * 100])
    assert not failed, f"{len(failed)} of 100 failed:\n" + "\n".join(failed)


@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("kind", CACHES)
def test_every_hook_of_a_users_variant(attend: at.Attention, kind: str, queries: str) -> None:
    for composed in (False, True):
        check(OnGpu(attend), np.float16, kind, queries, composed=composed, most=1e-2)


@pytest.mark.parametrize("page_size", [1, 16, 128])
def test_decode_in_a_graph_has_the_bits_of_dense_keys(page_size: int) -> None:
    """The lengths and the table change between replays."""
    batch, room = 4, 4096
    attend = at.Attention(family="sm80")
    pages = room // page_size
    q = torch.randn(batch, 1, 8, 128, dtype=torch.bfloat16, device="cuda")
    k, v = torch.randn(2, batch, room, 2, 128, dtype=torch.bfloat16, device="cuda")
    pools = [torch.empty(batch * pages, page_size, 2, 128, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    table = torch.zeros(batch, pages, dtype=torch.int32, device="cuda")
    lengths = torch.zeros(batch, dtype=torch.int32, device="cuda")
    out = torch.empty_like(q)
    cache = at.KVCache(*pools, block_table=table, seqlens=lengths)
    attend(q, cache, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attend(q, cache, out=out)
    for number in range(3):
        order = torch.randperm(batch * pages, device="cuda").view(batch, pages)
        table.copy_(order)
        for pool, dense in zip(pools, (k, v), strict=True):
            pool[order.flatten()] = dense.reshape(batch * pages, page_size, 2, 128)
        lengths.fill_(room - number * 1000)
        graph.replay()
        expected = attend(q, at.KVCache(k, v, seqlens=lengths))
        assert torch.equal(out, expected)


def test_a_mask_and_a_tree_in_a_graph() -> None:
    """The lengths change between replays; a mask in the shape of the room, and bits of nodes, stay where they are."""
    batch, room, nodes = 3, 512, 6
    q = torch.randn(batch, nodes, 4, 64, dtype=torch.bfloat16, device="cuda")
    k, v = torch.randn(2, batch, room, 2, 64, dtype=torch.bfloat16, device="cuda")
    lengths = torch.full((batch,), room, dtype=torch.int32, device="cuda")
    seen = torch.rand(batch, 1, nodes, room, device="cuda") < 0.7
    bits = torch.tensor([at.tree_bits([-1, -1, 0, 0, 3, 1])] * batch, device="cuda")
    cache = at.KVCache(k, v, seqlens=lengths)
    variants = at.broadcast_mask(seen), at.TreeMask(bits), at.compose(at.TreeMask(bits), at.broadcast_mask(seen))
    outs = [torch.empty_like(q) for _ in variants]

    def attend() -> None:
        for variant, out in zip(variants, outs, strict=True):
            at.attention(q, cache, variant=variant, out=out)

    attend()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attend()
    on_cpu = [x.float().cpu() for x in (q, k, v)]
    masks = at.broadcast_mask(seen.cpu()), at.TreeMask(bits.cpu())
    for length in (room, 77, 300):
        lengths.copy_(torch.tensor([length, length - 70, 6]))
        graph.replay()
        on_host = at.KVCache(*on_cpu[1:], seqlens=lengths.cpu())
        for variant, out in zip((*masks, at.compose(*masks)), outs, strict=True):
            expected = at.attention(on_cpu[0], on_host, variant=variant)
            assert (out.float().cpu() - expected).abs().max() <= 0.03
