"""Lengths and page tables in the memory of a GPU, checked under DIMORPH_DEBUG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import appending
from dimorph.toolchain import nvidia_driver as driver

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("warm_store")]

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

# The checks alone, as device code for a debugger is slow.
DEBUG = "-DDIMORPH_DEBUG"


def ints(*numbers: Any) -> Any:
    return torch.tensor(numbers, dtype=torch.int32, device="cuda")


def paged(table: Any, lengths: Any) -> at.KVCache:
    pool = torch.ones(5, 16, 2, 64, dtype=torch.bfloat16, device="cuda")
    return at.KVCache(pool, pool.clone(), block_table=table, seqlens=lengths)


FITTING = ([3, 99], [1, 4]), (16, 20)
FAULTS = [
    ((([3, 99], [1, 5]), (16, 20)), "'block_table': expected a page from 0 to 4 as number 1 of sequence 1, got 5"),
    ((([3, 99], [1, 4]), (17, 20)), "'block_table': expected a page from 0 to 4 as number 1 of sequence 0, got 99"),
    ((([3, 99], [1, 4]), (16, 33)), "'seqlens': expected a length from 0 to 32 for sequence 1"),
]


@pytest.fixture
def attend(family: str) -> at.Attention:
    return at.Attention(policy="jit", settings=replace(settings.current(), cxxflags=(DEBUG,)), family=family)


@pytest.mark.parametrize(
    "family",
    [
        "sm80",
        pytest.param(
            "sm90",
            marks=pytest.mark.skipif(
                torch.cuda.get_device_capability() != (9, 0), reason="a GPU of compute capability 9.0 runs it"
            ),
        ),
    ],
)
@pytest.mark.parametrize("planned", [False, True])
def test_attention(attend: at.Attention, planned: bool) -> None:
    q = torch.ones(2, 3, 4, 64, dtype=torch.bfloat16, device="cuda")

    def call(cache: at.KVCache) -> Any:
        return attend.run(attend.plan(q, cache), q, cache) if planned else attend(q, cache)

    for (tables, lengths), said in FAULTS:
        with pytest.raises(ValueError, match=f"attention: argument {said}"):
            call(paged(ints(*tables), ints(*lengths)))
    tables, lengths = FITTING
    fitting = paged(ints(*tables), ints(*lengths))
    assert (call(fitting) == 1).all()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(fitting)
    graph.replay()
    assert (out == 1).all()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DIMORPH_CXXFLAGS", DEBUG)
    appending._function.cache_clear()
    yield
    appending._function.cache_clear()


@pytest.mark.usefixtures("checked")
def test_append() -> None:
    cache, new = paged(ints([3, 99], [1, 5]), ints(0, 0)), torch.zeros(2, 1, 2, 64, dtype=torch.bfloat16, device="cuda")
    for positions, said in (
        (ints([0], [16]), "'block_table': expected a page from 0 to 4 as number 1 of sequence 1, got 5"),
        (ints([0], [32]), "'positions': expected a position from 0 to 31 for token 0 of sequence 1"),
    ):
        with pytest.raises(ValueError, match=f"append: argument {said}"):
            at.append(cache, new, new, positions)
        assert (cache.k == 1).all()
    at.append(cache, new, new, ints([0], [15]))
    assert (cache.k[3, 0] == 0).all() and (cache.v[1, 15] == 0).all()
