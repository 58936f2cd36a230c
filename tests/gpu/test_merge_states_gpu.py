"""`merge_states` on a GPU: against its definition in float64, in a graph, and over more than 2^31 elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import DTYPES, Array
from support.merging import check, merge_problem

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("warm_store")]

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


def to_gpu(array: Array) -> Any:
    """Return a tensor with the strides of an array, because kernels choose by them."""
    plain = array.view(np.uint16) if array.dtype == DTYPES["bfloat16"] else array
    tensor = torch.from_numpy(plain).cuda()
    if not plain.flags.c_contiguous:
        strides = [stride // plain.itemsize for stride in plain.strides]
        room = torch.empty(1 + sum((n - 1) * s for n, s in zip(plain.shape, strides, strict=True)), dtype=tensor.dtype)
        tensor = room.cuda().as_strided(plain.shape, strides).copy_(tensor)
    return tensor.view(torch.bfloat16) if plain is not array else tensor


def merged(outs: Any, lses: Any) -> tuple[Array, Array]:
    moved = [list(map(to_gpu, given)) if type(given) is list else to_gpu(given) for given in (outs, lses)]
    out, lse = at.merge_states(*moved)
    if out.dtype == torch.bfloat16:
        return out.view(torch.uint16).cpu().numpy().view(DTYPES["bfloat16"]), lse.cpu().numpy()
    return out.cpu().numpy(), lse.cpu().numpy()


def test_500_random_problems() -> None:
    found = [check(merge_problem(seed), merged) for seed in range(500)]
    assert not any(found), "\n".join(filter(None, found))


def test_a_graph_replays_with_other_states() -> None:
    outs, lses = torch.randn(2, 64, 8, 128, device="cuda").bfloat16(), torch.randn(2, 64, 8, device="cuda")
    out, lse = at.merge_states(outs, lses)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        at.merge_states(outs, lses, out=out, lse=lse)
    for _ in range(3):
        outs.copy_(torch.randn_like(outs))
        lses.copy_(torch.randn_like(lses))
        graph.replay()
        expected = at.merge_states(outs, lses)
        assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])


def test_more_than_2_to_the_31_elements() -> None:
    tokens = 2**31 // (8 * 128) + 5
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("less than 16 GiB of free memory on the GPU")
    first, second = (torch.full((tokens, 8, 128), value, dtype=torch.bfloat16, device="cuda") for value in (1, 3))
    second[-1] = 5
    lses = torch.zeros(tokens, 8, device="cuda")
    out, lse = at.merge_states([first, second], [lses, lses])
    assert (out[:-1] == 2).all() and (out[-1] == 3).all()
    assert torch.allclose(lse, torch.full_like(lse, np.log(2)))
