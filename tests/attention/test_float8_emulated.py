"""The sm80 family's kernels over keys and values in 8 bits, on the emulator (support/emulated.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import cached
from dimorph.attention.kernels import FLOAT8, GPU_FAMILIES
from dimorph.attention.request import few_rows
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Specialization
from support.emulated import EmulatedCache, Emulator, OnGpu, altered, missing
from support.paged import failures, paged_config, small

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

CASES = [
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_80"),
    (Specialization("float16", (80, 48), ("Causal",)), "sm_90"),
    (Specialization("bfloat16", (32, 32), ("DocumentMask", "Sinks")), "sm_90"),
    (Specialization("bfloat16", (32, 48), ("FlashSigmoid",)), "sm_80"),
    (Specialization("float16", (16, 16), ("SoftCap",)), "sm_80"),
]
CAUSAL = Specialization("float16", (80, 48), ("Causal",))
FAULTS = {
    "the other order of queries": ("sm80/mma_float8.h", "dim % 16 / 4 * 2 + dim % 4 / 2 * 8", "dim % 16 / 2 * 2"),
    "the scale of the first head": ("sm80/mma_float8.h", "p.k_scale.of(work.kv_head)", "p.k_scale.of(0)"),
    "values without their scale": ("gpu/epilogue.h", "p.v_scale.of(at.head / p.group_size)", "1.f"),
    "columns of 16 bits": ("gpu/softmax.h", "kFloat8 ? n / 2 * 16", "false ? n"),
    "rows of another lane": ("sm80/load_float8.h", "rows[i], (first + more) % 32)", "rows[i], first % 32)"),
}


@pytest.fixture(autouse=True)
def gpus(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)


@pytest.mark.parametrize("rows", ["as they are", "few", "many"])
@pytest.mark.parametrize(("specialization", "arch"), CASES, ids=str)
def test_random_problems(
    emulator: Emulator,
    shared_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    specialization: Specialization,
    arch: str,
    rows: str,
) -> None:
    """Kernels for few rows and for many compute any number of them."""
    if rows != "as they are":
        monkeypatch.setattr(cached, "few_rows", lambda *_: rows == "few")
    first = 7000 + 30 * len(rows)
    configs = [small(paged_config(seed, (specialization,))) for seed in range(first, first + 14)]
    failed = failures(EmulatedCache(emulator, arch, shared_store, split=rows != "many"), configs, float8=True)
    assert not failed, f"{len(failed)} failed:\n" + "\n".join(failed)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    family = GPU_FAMILIES["sm80"]
    assert family.float8
    monkeypatch.setitem(GPU_FAMILIES, "sm80", family._replace(float8=altered(tmp_path, family.float8, *FAULTS[fault])))
    configs = [small(paged_config(seed, (CAUSAL,))) for seed in range(7000, 7012)]
    attend = EmulatedCache(emulator, "sm_90", shared_store)
    assert any(failures(attend, [config], float8=True) for config in configs)  # the first one ends it


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("stored", FLOAT8)
def test_every_number_is_read_as_it_is(emulator: Emulator, shared_store: Path, stored: str, arch: str) -> None:
    """Keys: as the logits of a query of ones at one place. Values: as the output of a query that sees one key alone."""
    dtype = getattr(ml_dtypes, stored)
    numbers = np.arange(256, dtype=np.uint8).view(dtype)
    finite = numbers[np.isfinite(numbers.astype(np.float32))]
    attend = EmulatedCache(emulator, arch, shared_store)
    values = np.resize(finite, (1, 256, 1, 64))
    rows = np.arange(256)
    keep = (rows[:, None] == rows)[None]
    q = np.zeros((1, 256, 1, 64), np.float16)
    cache = at.KVCache(values, values, k_scale=1.0, v_scale=2.0**-3, seqlens=np.array([256], np.int32))
    out, _ = attend(q, cache, variant=at.CustomMask(keep.reshape(-1), None), return_lse=True)
    assert np.array_equal(out[0, :, 0], (values[0, :, 0].astype(np.float32) * 2.0**-3).astype(np.float16))

    keys = np.zeros((256, 32, 1, 64), dtype)  # sequences of one key that has one number
    keys[rows, 0, 0, rows % 64] = numbers
    q = np.zeros((256, 1, 1, 64), np.float16)
    q[rows, 0, 0, rows % 64] = 1
    cache = at.KVCache(keys, keys, k_scale=0.5, v_scale=1.0, seqlens=np.ones(256, np.int32))
    _, lse = attend(q, cache, variant=at.Plain(), scale=1.0, return_lse=True)
    logits = numbers.astype(np.float32) * 0.5
    finite_logits = np.isfinite(logits)
    assert np.allclose(lse[finite_logits, 0, 0], logits[finite_logits], rtol=1e-6, atol=1e-7)
    assert not np.isfinite(lse[~finite_logits, 0, 0]).any()


@pytest.mark.parametrize("magnitude", [2.0**-120, 2.0**-30, 1.0, 2.0**60, 2.0**90])
def test_queries_beyond_float16(emulator: Emulator, shared_store: Path, magnitude: float) -> None:
    rng = np.random.default_rng(0)
    q = (rng.standard_normal((1, 3, 2, 32)) * magnitude).astype(ml_dtypes.bfloat16)
    k, v = (rng.standard_normal((1, 40, 1, 32)).astype(ml_dtypes.float8_e4m3fn) for _ in range(2))
    scale, k_scale = 0.1 / max(magnitude, 0.1), 1e30 if magnitude < 2.0**-100 else 1.0
    cache = at.KVCache(k, v, k_scale=k_scale, v_scale=1.0, seqlens=np.array([40], np.int32))
    options: dict[str, Any] = {"variant": at.Plain(), "scale": scale, "return_lse": True}
    out, lse = EmulatedCache(emulator, "sm_80", shared_store)(q, cache, **options)
    expected, expected_lse = at.attention(q.astype(np.float32), cache, **options)
    assert np.allclose(out.astype(np.float32), expected, atol=2e-2)
    assert np.allclose(lse, expected_lse, atol=1e-5)


def test_many_small_weights_count(emulator: Emulator, shared_store: Path) -> None:
    """A weight of 2^-26 beside one of 1 would be 0 in float16."""
    keys, dim = 2049, 16
    k, v = np.zeros((1, keys, 1, dim), ml_dtypes.float8_e4m3fn), np.ones((1, keys, 1, dim), ml_dtypes.float8_e4m3fn)
    k[0, -1, 0, 0], v[0, -1] = 26, 0
    q = np.zeros((1, 1, 1, dim), ml_dtypes.bfloat16)
    q[..., 0] = np.log(2)
    cache = at.KVCache(k, v, k_scale=1.0, v_scale=1.0, seqlens=np.array([keys], np.int32))
    emulated = EmulatedCache(emulator, "sm_80", shared_store, split=False)
    out, _ = emulated(q, cache, variant=at.Plain(), scale=1.0, return_lse=True)
    expected = at.attention(q.astype(np.float32), cache, scale=1.0)
    assert np.allclose(out.astype(np.float32), expected, rtol=0.02)


def test_refusals(emulator: Emulator, shared_store: Path) -> None:
    attend = EmulatedCache(emulator, "sm_80", shared_store)
    k = np.zeros((1, 32, 1, 72), ml_dtypes.float8_e4m3fn)
    lengths = {"seqlens": np.array([32], np.int32), "k_scale": 1.0, "v_scale": 1.0}
    q = np.zeros((1, 1, 1, 72), np.float16)
    with pytest.raises(
        ValueError, match="'q': expected a head dim that is a multiple of 16, up to 256, on a GPU besid"
    ):
        attend(q, at.KVCache(k, k, **lengths), variant=at.Plain())
    q, narrow = np.zeros((1, 1, 1, 64), np.float16), k[..., :64]
    for name, scale in (("k_scale", 0.0), ("v_scale", float("nan"))):
        with pytest.raises(ValueError, match=f"'{name}': expected factors above 0, up to 1e30"):
            attend(q, at.KVCache(narrow.copy(), narrow.copy(), **lengths | {name: scale}), variant=at.Plain())
    with pytest.raises(TypeError, match="'k_scale': expected dtype float32, got float64"):
        attend(q, at.KVCache(narrow.copy(), narrow.copy(), **lengths | {"k_scale": np.ones(1)}), variant=at.Plain())
    moved = {name: OnGpu(x, 0) if isinstance(x, np.ndarray) else x for name, x in lengths.items()}
    stored = at.KVCache(OnGpu(narrow, 0), OnGpu(narrow, 0), **moved)
    results = {"out": OnGpu(q.copy(), 0), "workspace": OnGpu(np.zeros(1, np.float32), 0)}
    with pytest.raises(ValueError, match=r"'k': expected strides that are multiples of 16 bytes"):
        attend.attend(OnGpu(q, 0), stored, **results)
    host = replace(stored, k=OnGpu(narrow.copy(), 0), v=OnGpu(narrow.copy(), 0), k_scale=np.ones(1, np.float32))
    with pytest.raises(ValueError, match=r"'k_scale': expected a tensor on cuda:0, where 'q' is, got one on cpu:0"):
        attend.attend(OnGpu(q, 0), host, **results)
    with pytest.raises(ValueError, match=r"'k': expected strides that are multiples of 16 bytes"):
        attend.attend.plan(OnGpu(q, 0), stored, workspace=results["workspace"])
    attend.attend = at.Attention(family="sm90")
    with pytest.raises(ValueError, match="'k': expected keys of the dtype of 'q', as the family 'sm90' of kernels"):
        attend(q, at.KVCache(narrow.copy(), narrow.copy(), **lengths), variant=at.Plain())


@pytest.mark.parametrize("queries", [3, 20])
def test_a_gpu_of_9_0_passes_over_the_sm90_family(emulator: Emulator, shared_store: Path, queries: int) -> None:
    """In a call, and in a plan with its run."""
    config = replace(settings.current(), nvcc=str(emulator.nvcc), arch="sm_90", store=shared_store)
    attend = at.Attention(policy="jit", settings=config)
    rng = np.random.default_rng(queries)
    q = rng.standard_normal((2, queries, 4, 80)).astype(np.float16)
    k, v = (rng.standard_normal((2, 300, 2, dim)).astype(ml_dtypes.float8_e4m3fn) for dim in (80, 48))
    arrays = {"k": k, "v": v, "seqlens": np.array([300, 70], np.int32), "k_scale": np.array([0.5, 2], np.float32)}
    cache = at.KVCache(**{name: OnGpu(x, 1) for name, x in arrays.items()}, v_scale=0.25)
    workspace = OnGpu(np.zeros(at.plan_size(q.shape, 2, 48), np.float32), 1)
    outs = [np.zeros((2, queries, 4, 48), np.float16) for _ in range(2)]
    attend(OnGpu(q, 1), cache, variant=at.Causal, workspace=workspace, out=OnGpu(outs[0], 1))
    step = attend.plan(OnGpu(q, 1), cache, variant=at.Causal, workspace=workspace)
    attend.run(step, OnGpu(q, 1), cache, out=OnGpu(outs[1], 1))
    assert {line.artifact.meta.kernel for line in attend.resolutions()} == {"attention_float8_sm80"}
    expected = at.attention(q, at.KVCache(**arrays, v_scale=0.25), variant=at.Causal)
    assert np.array_equal(*outs) and np.allclose(outs[0], expected, atol=2e-3)


def test_few_rows() -> None:
    def of(*shape: int, kv_heads: int, offsets: int = 0, longest: int | None = None) -> bool:
        return few_rows(np.empty(shape), kv_heads, np.empty(offsets) if offsets else None, longest)

    assert of(5, 1, 32, 64, kv_heads=2) and not of(5, 1, 34, 64, kv_heads=2)
    assert of(5, 4, 8, 64, kv_heads=2) and not of(5, 5, 8, 64, kv_heads=2)
    assert of(12, 8, 64, kv_heads=2, offsets=4) and not of(13, 8, 64, kv_heads=2, offsets=4)
    assert of(13, 8, 64, kv_heads=2, offsets=4, longest=4) and not of(4, 8, 64, kv_heads=2, offsets=5, longest=5)
    assert of(0, 8, 64, kv_heads=2, offsets=1)
