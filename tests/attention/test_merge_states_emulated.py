"""`merge_states` on a GPU, on the emulator (support/emulated.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.attention import merging
from dimorph.attention.kernels import merge_states_gpu
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Array
from support.emulated import HOST_FLAGS, Emulator, OnGpu, altered, missing
from support.merging import check, merge_problem

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

FAULTS = {
    "a part twice": ("merge_states.h", "parts[stacked ? 0 : part];\n    return static", "parts[0];\n    return static"),
    "one stride of heads": ("gpu/merge_states.cu", "head * p.out_strides.head", "head * p.head_dim"),
    "parts without keys": ("merge_states.h", "weight == 0.f ? 0.f : weight * values", "weight * values"),
    "all parts without keys": ("merge_states.h", "sum == 0.f ? 0.f : ", ""),
    "the first 32 chunks": (
        "gpu/merge_states.cu",
        "first < p.head_dim;",
        "first < p.head_dim && first < kWidth << lanes_log;",
    ),
}


@pytest.fixture(autouse=True)
def gpu(emulator: Emulator, warm_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)
    monkeypatch.setenv("DIMORPH_NVCC", str(emulator.nvcc))
    monkeypatch.setenv("DIMORPH_ARCH", "sm_80")
    monkeypatch.setenv("DIMORPH_CXXFLAGS", " ".join(HOST_FLAGS))
    merging._function.cache_clear()
    yield
    merging._function.cache_clear()


def merged(outs: Any, lses: Any) -> tuple[Array, Array]:
    # Memory behind a row, which must stay as it is.
    room = np.full((*outs[0].shape[:-1], outs[0].shape[-1] + 16), 7, outs[0].dtype)
    out, lse = room[..., : outs[0].shape[-1]], np.full(lses[0].shape, 7, np.float32)
    moved = [[OnGpu(x, 0) for x in given] if type(given) is list else OnGpu(given, 0) for given in (outs, lses)]
    at.merge_states(*moved, out=OnGpu(out, 0), lse=OnGpu(lse, 0))
    assert (room[..., outs[0].shape[-1] :] == 7).all()
    return out, lse


def failed(seeds: range) -> list[str]:
    problems = map(merge_problem, seeds)
    fitting = (problem for problem in problems if len(problem.outs) <= 8 or not problem.listed)  # no copies here
    return list(filter(None, (check(problem, merged) for problem in fitting)))


def test_random_problems() -> None:
    found = failed(range(150))
    assert not found, f"{len(found)} failed:\n" + "\n".join(found)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(merging, "merge_states_gpu", altered(tmp_path, merge_states_gpu, *FAULTS[fault]))
    assert any(failed(range(seed, seed + 1)) for seed in range(40))  # the first one ends it


def test_rows_more_than_2_to_the_31_elements_apart() -> None:
    room = np.zeros(2**31 + 100, np.float16)  # of which a few pages are touched
    far = np.lib.stride_tricks.as_strided(room, (2, 1, 8), (2 * (2**31 + 16), 16, 2))
    far[0], far[1] = 1, 3
    lses = np.zeros((2, 1), np.float32)
    out, lse = merged([far, far + np.float16(2)], [lses, lses])
    assert (out[0] == 2).all() and (out[1] == 4).all() and np.allclose(lse, np.log(2))


def test_a_part_elsewhere_is_refused() -> None:
    outs, lses = np.zeros((2, 3, 1, 8), np.float32), np.zeros((2, 3, 1), np.float32)
    results = {"out": OnGpu(outs[0].copy(), 0), "lse": OnGpu(lses[0].copy(), 0)}
    moved = [OnGpu(outs[0], 0), OnGpu(outs[1], 0)], [OnGpu(lses[0], 0), OnGpu(lses[1], 0)]
    for place, (name, array) in enumerate((("outs", outs), ("lses", lses))):
        given = [list(moved[0]), list(moved[1])]
        given[place][1] = array[1]
        said = rf"argument '{name}\[1\]': expected a tensor on cuda:0, where 'outs' is, got one on cpu"
        with pytest.raises(ValueError, match=said):
            at.merge_states(*given, **results)
