"""`attend_blocks`: block-sparse attention, against its definition with dense masks, on the CPU and on the emulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import blocks
from dimorph.toolchain import nvidia_driver as driver
from support.blocks import BlockProblem, block_problem, check
from support.emulated import Emulator, OnGpu, missing

pytestmark = pytest.mark.usefixtures("warm_store")


def on_cpu(problem: BlockProblem) -> Any:
    arrays = problem.q, problem.k, problem.v, problem.indptr, problem.indices
    return at.attend_blocks(*arrays, problem.block_size, variant=problem.bound, return_lse=True)


def test_100_random_problems() -> None:
    found = [check(block_problem(seed), on_cpu) for seed in range(100)]
    assert not any(found), "\n".join(filter(None, found))


Q, K, V = (
    np.random.default_rng(n).standard_normal((n, h, 32), dtype=np.float32) for n, h in ((6, 4), (12, 2), (12, 2))
)
INDPTR, INDICES = np.array([0, 2, 2, 3], np.int32), np.array([3, 0, 2], np.int32)
ARRAYS: dict[str, Any] = {"q": Q, "k": K, "v": V, "indptr": INDPTR, "indices": INDICES}
CALL = ARRAYS | {"block_size": (2, 3), "variant": at.SoftCap(2.0)}


def test_results_are_written_to_given_arrays_and_keys_may_be_strided() -> None:
    expected = at.attend_blocks(**CALL, return_lse=True)
    both = np.stack([K, V], 1)
    out, lse = np.full((6, 8, 32), 7, np.float32), np.full((6, 4), 7, np.float32)
    k, v = both[:, 0], both[:, 1]
    found = at.attend_blocks(**CALL | {"k": k, "v": v}, out=out[:, ::2], lse=lse, return_lse=True)
    assert found[0].base is out and found[1] is lse and (out[:, 1::2] == 7).all()
    assert np.array_equal(out[:, ::2], expected[0]) and np.array_equal(lse, expected[1])
    assert (expected[0][2:4] == 0).all() and np.isneginf(expected[1][2:4]).all()


def test_torch_and_its_compiler() -> None:
    tensors = CALL | {name: torch.from_numpy(x) for name, x in ARRAYS.items()}
    fast = torch.compile(at.attend_blocks, fullgraph=True, backend="eager")
    with torch.no_grad():
        outs = [attend(**tensors) for attend in (at.attend_blocks, fast)]
    for out in outs:
        assert np.array_equal(out.numpy(), at.attend_blocks(**CALL))


@pytest.mark.parametrize(
    "bound",
    [
        at.Causal(),
        at.Window(5, 0),
        at.ALiBi(np.ones(4, np.float32)),
        at.TreeMask(np.zeros((3, 2), np.uint32)),
        at.compose(at.SoftCap(2.0), at.PrefixLM(np.ones(3, np.int32))),
    ],
    ids=lambda bound: bound.variant.name,
)
def test_variants_that_look_at_positions_are_refused(bound: Any) -> None:
    name = (bound.variant.parts or (bound.variant,))[-1].name
    said = f"attend_blocks: argument 'variant': expected some of Plain, SoftCap, Sinks, FlashSigmoid, .* got {name}$"
    with pytest.raises(ValueError, match=said):
        at.attend_blocks(**CALL | {"variant": bound})


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "half a block of queries": ({"q": Q[:5]}, ValueError, "attend_blocks: argument 'q': expected an array .* multiple"),
    "half a block of keys": ({"k": K[:10]}, ValueError, "attend_blocks: argument 'k': expected an array .* of 3, as"),
    "a batch": ({"q": Q[None]}, ValueError, "attend_blocks: argument 'q': expected an array .n, heads, head_dim."),
    "fewer rows of blocks": ({"indptr": INDPTR[:3]}, ValueError, r"attend_blocks: argument 'indptr': .* array \[4\]"),
    "a block that is none": (
        {"indices": np.array([3, 0, 4], np.int32)},
        ValueError,
        "argument 'indices': expected a page from 0 to 3 as number 0 of sequence 2, got 4",
    ),
    "wide numbers": ({"indices": INDICES.astype(np.int64)}, TypeError, "argument 'indices': expected dtype int32, got"),
    "one size": ({"block_size": 2}, TypeError, "attend_blocks: argument 'block_size': expected .rows, columns. of a b"),
    "a size of 0": ({"block_size": (2, 0)}, ValueError, "attend_blocks: argument 'block_size': expected two numbers"),
    "half the results": ({"out": np.zeros_like(Q[:4])}, ValueError, "attend_blocks: argument 'out': .* n = 6, as 'q'"),
    "an lse with head dim": (
        {"lse": np.zeros_like(Q), "return_lse": True},
        ValueError,
        "attend_blocks: argument 'lse': expected an array .n, heads. with n = 6",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    changed, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said):
        at.attend_blocks(**CALL | changed)


class Reshaped(OnGpu):
    """An array that claims to be on a GPU, with as much of a library as the call uses."""

    def reshape(self, *shape: int) -> Reshaped:
        return Reshaped(self.array.reshape(*shape), self.gpu)

    def __getitem__(self, index: Any) -> Reshaped:
        return Reshaped(self.array[index], self.gpu)

    def __mul__(self, factor: int) -> Reshaped:
        return Reshaped(self.array * factor, self.gpu)

    def __add__(self, number: int) -> Reshaped:
        return Reshaped(self.array + number, self.gpu)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator.build(tmp_path_factory.mktemp("emulator"))


@pytest.mark.skipif(bool(missing()), reason=missing() or "the emulator runs")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_random_problems_on_gpus(
    arch: str, shared_store: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)
    config = replace(settings.current(), nvcc=str(emulator.nvcc), arch=arch, store=shared_store)
    gpu, scheduled = int(arch != "sm_80"), arch.endswith("a")
    attend = at.Attention(policy="jit", settings=config, family="sm90" if scheduled else "sm80")
    # A new workspace would be of the arrays' library.
    workspace = Reshaped(np.zeros(2**22, np.float32), gpu)
    monkeypatch.setattr(blocks, "attention", lambda *args, **options: attend(*args, workspace=workspace, **options))

    def on_gpu(problem: BlockProblem) -> Any:
        out, lse = Reshaped(np.zeros_like(problem.q), gpu), Reshaped(np.zeros(problem.q.shape[:2], np.float32), gpu)
        arrays = (Reshaped(x, gpu) for x in (problem.q, problem.k, problem.v, problem.indptr, problem.indices))
        at.attend_blocks(*arrays, problem.block_size, variant=problem.bound, out=out, lse=lse, return_lse=True)
        return out.array, lse.array

    found = [check(block_problem(seed), on_gpu) for seed in range(1, 16, 3)]
    assert not any(found), "\n".join(filter(None, found))
