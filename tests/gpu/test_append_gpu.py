"""`append` on a GPU: random caches and rows, streams, graphs, and a pool of more than 2^31 elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.attention.kernels import FLOAT8
from dimorph.toolchain import nvidia_driver as driver
from support.appends import append_problem, check, difficult_numbers
from support.attention_configs import DTYPES, Array

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("warm_store")]

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


def to_gpu(array: Array) -> Any:
    if array.dtype == DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.uint16)).cuda().view(torch.bfloat16)
    if array.dtype.name in FLOAT8:
        return torch.from_numpy(array.view(np.uint8)).cuda().view(getattr(torch, array.dtype.name))
    return torch.from_numpy(array).cuda()


def to_numpy(tensor: Any, like: Array) -> Array:
    return np.asarray(tensor.view(torch.uint8).cpu().numpy()).view(like.dtype)


@pytest.mark.parametrize("float8", [False, True])
def test_500_random_appends(float8: bool) -> None:
    dtypes = ["bfloat16", "float16", *(["float32"] if float8 else [])]
    problems = (append_problem(seed, dtypes, float8) for seed in range(500))
    found = [check(one, move=to_gpu, wrap=lambda x: x, back=to_numpy) for one in problems]
    assert not any(found), "\n".join(filter(None, found))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", FLOAT8)
def test_rounding_is_that_of_the_cpu(stored: str, dtype: Any) -> None:
    numbers = difficult_numbers(np.float32 if dtype == torch.float32 else np.float16)
    rows = torch.from_numpy(numbers) if dtype == torch.float32 else torch.from_numpy(numbers).view(dtype)
    rows = rows.reshape(1, -1, 2, 64)
    positions, scale = torch.arange(rows.shape[1], dtype=torch.int32)[None], torch.tensor([1.0, 0.3])
    bits = []
    for device in ("cpu", "cuda"):
        k, v = (torch.zeros(rows.shape, dtype=getattr(torch, stored), device=device) for _ in "kv")
        new, places = rows.to(device), positions.to(device)
        at.append(at.KVCache(k, v, k_scale=scale.to(device), v_scale=4.0), new, new, places)
        bits.append(torch.stack([k, v]).view(torch.uint8).cpu())
    assert torch.equal(*bits)


def rows(*shape: int) -> Any:
    return torch.randn(*shape, device="cuda").bfloat16()


def paged(pages: int, size: int, batch: int) -> tuple[at.KVCache, Any, Any]:
    pools = [torch.zeros(pages, size, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    table = torch.randperm(pages, device="cuda").view(batch, -1).int()
    lengths = torch.zeros(batch, dtype=torch.int32, device="cuda")
    return at.KVCache(*pools, block_table=table, seqlens=lengths), table, lengths


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("ragged", [False, True])
def test_more_tokens_than_fit_at_a_time(layout: str, ragged: bool) -> None:
    batch, count, size = 16, 1500, 16
    first, second = (size, 8) if layout == "NHD" else (8, size)
    pools = [torch.zeros(batch * 100, first, second, 128, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    table = torch.randperm(batch * 100, device="cuda").view(batch, 100)
    cache = at.KVCache(*pools, block_table=table.int(), seqlens=torch.zeros_like(table[:, 0]).int(), layout=layout)
    k, v = rows(batch, count, 8, 128), rows(batch, count, 8, 128)
    positions = torch.stack([torch.randperm(100 * size, device="cuda")[:count] for _ in range(batch)]).int()
    more = {"cu_seqlens": torch.arange(batch + 1, device="cuda").int() * count} if ragged else {}
    new, where = ([x.flatten(0, 1) for x in (k, v)], positions.flatten()) if ragged else ([k, v], positions)
    at.append(cache, *new, where, **more)
    pages, places = table.gather(1, positions.long() // size), positions.long() % size
    for pool, given in zip(pools, (k, v), strict=True):
        by_row = pool if layout == "NHD" else pool.transpose(1, 2)
        assert torch.equal(by_row[pages, places], given)
        assert int(torch.count_nonzero(pool)) == int(torch.count_nonzero(given))


def test_a_graph_replays_with_other_positions_and_pages() -> None:
    """The graph is that of a decoding step: append, then attention."""
    batch, size = 4, 16
    cache, table, lengths = paged(32, size, batch)
    k, v, q = rows(batch, 1, 2, 64), rows(batch, 1, 2, 64), rows(batch, 1, 4, 64)
    positions, out = torch.zeros(batch, 1, dtype=torch.int32, device="cuda"), torch.empty_like(q)
    at.append(cache, k, v, positions)
    lengths += 1
    at.attention(q, cache, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        at.append(cache, k, v, positions)
        at.attention(q, cache, out=out)
    dense = [torch.zeros(batch, 128, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    cache.k.zero_(), cache.v.zero_()
    for step in range(60):
        if step == 30:  # the engine moves all pages
            order = torch.randperm(32, device="cuda")
            for pool in (cache.k, cache.v):
                pool.copy_(pool[order])
            table.copy_(torch.argsort(order).int()[table.long()])
        for tensor in (k, v, q):
            tensor.copy_(torch.randn_like(tensor))
        positions.fill_(step)
        lengths.fill_(step + 1)
        for into, new in zip(dense, (k, v), strict=True):
            into[:, step] = new[:, 0]
        graph.replay()
        expected = at.Attention(family="sm80")(q, at.KVCache(*dense, seqlens=lengths))
        assert torch.equal(out, expected), f"step {step}"


def test_it_runs_on_the_current_stream_and_on_a_given_one() -> None:
    cache, _, _ = paged(32, 16, 4)
    positions = torch.arange(100, dtype=torch.int32, device="cuda").repeat(4, 1)
    for given in (False, True):
        stream = torch.cuda.Stream()
        new = torch.zeros(4, 100, 2, 64, dtype=torch.bfloat16, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(200_000_000)  # so that a copy on another stream would come before the rows
            new.fill_(1 + given)
            if not given:
                at.append(cache, new, new, positions)
        if given:
            at.append(cache, new, new, positions, stream=stream)
        stream.synchronize()
        assert int((cache.k == 1 + given).sum()) == int((cache.v == 1 + given).sum()) == new.numel()


def test_a_pool_of_more_than_2_to_the_31_elements() -> None:
    """Keys and values are two views of one pool of 6 GiB."""
    pages, size = 3 * 2**20 // 16, 16
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("less than 12 GiB of free memory on the GPU")
    pool = torch.zeros(pages, size, 2, 8, 64, dtype=torch.bfloat16, device="cuda")
    assert pool.numel() > 2**31
    table = torch.tensor([[0, pages - 1, pages // 2], [1, pages - 2, 2]], dtype=torch.int32, device="cuda")
    cache = at.KVCache(pool[:, :, 0], pool[:, :, 1], block_table=table, seqlens=torch.zeros_like(table[:, 0]))
    k, v = rows(2, 48, 8, 64), rows(2, 48, 8, 64)
    at.append(cache, k, v, torch.arange(48, dtype=torch.int32, device="cuda").repeat(2, 1))
    for side, new in enumerate((k, v)):
        assert torch.equal(pool[table.flatten().long(), :, side].view_as(new), new)
    assert int(torch.count_nonzero(pool)) == int(torch.count_nonzero(k) + torch.count_nonzero(v))
