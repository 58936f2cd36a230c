"""`attend_blocks` on a GPU: against its definition with dense masks, and by a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import DTYPES
from support.blocks import BlockProblem, block_problem, check

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("warm_store")]

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


def to_gpu(array: Any) -> Any:
    if array.dtype == DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.uint16)).cuda().view(torch.bfloat16)
    return torch.from_numpy(array).cuda()


def on_gpu(problem: BlockProblem) -> Any:
    arrays = map(to_gpu, (problem.q, problem.k, problem.v, problem.indptr, problem.indices))
    out, lse = at.attend_blocks(*arrays, problem.block_size, variant=problem.bound, return_lse=True)
    return out.view(torch.uint16).cpu().numpy().view(DTYPES["bfloat16"]), lse.cpu().numpy()


def test_100_random_problems() -> None:
    found = [check(block_problem(seed), on_gpu) for seed in range(1, 301, 3)]
    assert not any(found), "\n".join(filter(None, found))


def test_a_plan_over_blocks_as_pages_gives_the_same() -> None:
    q, k, v = (torch.randn(512, heads, 128, device="cuda").bfloat16() for heads in (8, 2, 2))
    indptr = torch.arange(0, 33, 8, device="cuda").int()
    indices = torch.stack([torch.randperm(32, device="cuda")[:8] for _ in range(4)]).int().flatten()
    expected = at.attend_blocks(q, k, v, indptr, indices, (128, 16))
    pages, last = [x.view(32, 16, 2, 128) for x in (k, v)], torch.full_like(indptr[1:], 16)
    cache = at.KVCache(*pages, indptr=indptr, indices=indices, last_page_len=last)
    blocks = q.view(4, 128, 8, 128)
    out = at.run(at.plan(blocks, cache), blocks, cache)
    assert torch.equal(out.view_as(expected), expected)
