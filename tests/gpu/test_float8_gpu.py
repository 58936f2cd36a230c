"""attention over keys and values in 8 bits on a GPU, against its definition in float64."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention.kernels import FLOAT8
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Array
from support.paged import SPECIALIZATIONS, failures, paged_config

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

KNOWN = tuple(
    one for one in SPECIALIZATIONS if one.dtype != "float32" and all(dim % 16 == 0 for dim in one.head_dims)
)  # fmt: skip
CONFIGS = sorted(
    (paged_config(seed, KNOWN) for seed in range(8000, 8200)), key=lambda config: repr(config.specialization)
)


def to_gpu(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    name = array.dtype.name
    if name not in ("bfloat16", *FLOAT8):
        return torch.from_numpy(np.array(array, order="C")).cuda()
    plain = np.array(array.view(np.uint16 if name == "bfloat16" else np.uint8), order="C")
    return torch.from_numpy(plain).cuda().view(getattr(torch, name))


def to_numpy(tensor: Any, dtype: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.uint16).cpu().numpy()).view(dtype)
    return np.asarray(tensor.cpu().numpy())


class OnGpu:
    """Takes and gives what `Attention` does on the CPU, and computes it on the GPU."""

    def __init__(self, attend: at.Attention) -> None:
        self._attend = attend

    def __call__(self, q: Array, cache: at.KVCache, *, variant: dm.BoundVariant, **options: Any) -> Any:
        bound = dm.BoundVariant(variant.variant, tuple(map(to_gpu, variant.args)))
        moved = {name: to_gpu(value) for name, value in options.items()}
        on_gpu = at.KVCache(**{field.name: to_gpu(getattr(cache, field.name)) for field in fields(cache)})
        out, lse = self._attend(to_gpu(q), on_gpu, variant=bound, **moved)
        return to_numpy(out, q.dtype), to_numpy(lse, np.float32)


@pytest.mark.parametrize("chunk", range(4))
def test_50_random_problems(chunk: int, attend: at.Attention) -> None:
    failed = failures(OnGpu(attend), CONFIGS[chunk * 50 : (chunk + 1) * 50], float8=True)
    assert not failed, f"{len(failed)} of 50 failed:\n" + "\n".join(failed)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("queries", [1, 4, 5, 300])
@pytest.mark.parametrize("stored", FLOAT8)
def test_results_are_those_of_the_same_numbers_in_16_bits(stored: str, queries: int, head_dim: int) -> None:
    """With few rows and with many, dense and in pages; every element of 8 bits is one of bfloat16."""
    torch.manual_seed(queries)
    room, page_size = 2048, 16
    q = torch.randn(3, queries, 8, head_dim, dtype=torch.bfloat16, device="cuda")
    k, v = torch.randn(2, 3, room, 2, head_dim, device="cuda").to(getattr(torch, stored))
    lengths = torch.tensor([2048, 1700, 301], dtype=torch.int32, device="cuda")
    scales = torch.tensor([0.5, 2.0], device="cuda")
    wide = at.KVCache(
        (k.to(torch.float32) * scales[:, None]).to(torch.bfloat16),
        (v.to(torch.float32) * scales[:, None]).to(torch.bfloat16),
        seqlens=lengths,
    )
    expected, expected_lse = at.attention(q, wide, variant=at.Causal, return_lse=True)
    order = torch.randperm(3 * room // page_size, device="cuda")
    pools = []
    for dense in (k, v):
        pages = dense.view(torch.uint8).reshape(-1, page_size, 2, head_dim)
        pool = torch.empty_like(pages)
        pool[order] = pages
        pools.append(pool.view(k.dtype))
    table = order.to(torch.int32).view(3, -1)
    for cache in (
        at.KVCache(k, v, seqlens=lengths, k_scale=scales, v_scale=scales),
        at.KVCache(*pools, block_table=table, seqlens=lengths, k_scale=scales, v_scale=scales),
    ):
        out, lse = at.attention(q, cache, variant=at.Causal, return_lse=True)
        assert torch.allclose(lse, expected_lse, atol=1e-4, rtol=1e-5)
        # Outputs of few keys are as large as values, and bfloat16 has 8 bits.
        assert torch.allclose(out.float(), expected.float(), atol=0.02, rtol=2**-7)


def test_decode_in_a_graph_follows_lengths_and_scales() -> None:
    batch, room = 4, 4096
    q = torch.randn(batch, 1, 8, 128, dtype=torch.bfloat16, device="cuda")
    k, v = torch.randn(2, batch, room, 2, 128, device="cuda").to(torch.float8_e4m3fn)
    lengths = torch.zeros(batch, dtype=torch.int32, device="cuda")
    scales = torch.ones(2, device="cuda")
    out = torch.empty_like(q)
    cache = at.KVCache(k, v, seqlens=lengths, k_scale=scales, v_scale=scales)
    at.attention(q, cache, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        at.attention(q, cache, out=out)
    for number in range(3):
        lengths.fill_(room - number * 1000)
        scales.fill_(1.0 + number)
        graph.replay()
        assert torch.equal(out, at.attention(q, cache))


def test_the_bfloat16_of_queries_is_no_limit() -> None:
    q = torch.randn(1, 2, 2, 64, device="cuda") * 1e30
    k, v = torch.randn(2, 1, 500, 1, 64, device="cuda").to(torch.float8_e5m2)
    cache = at.KVCache(k, v, k_scale=1e-4, v_scale=1.0)
    out = at.attention(q.to(torch.bfloat16), cache, scale=1e-27)
    host = at.KVCache(k.cpu(), v.cpu(), k_scale=1e-4, v_scale=1.0)
    expected = at.attention(q.to(torch.bfloat16).float().cpu(), host, scale=1e-27)
    assert (out.float().cpu() - expected).abs().max() < 0.05
