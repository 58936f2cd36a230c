"""Head dims that are no multiple of 16: the GPU kernels' own source, run on the CPU by an emulator, against float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.toolchain import nvidia_driver as driver
from support.attention_check import error, exact, failures
from support.attention_configs import Array, Specialization
from support.emulated import Emulated, Emulator, OnGpu, missing, problems
from support.paths import SUPPORT

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

ARCHS = pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
CASES = [
    Specialization("bfloat16", (8, 8), ("Plain",)),
    Specialization("float16", (24, 40), ("Causal",)),
    Specialization("bfloat16", (72, 88), ("Causal", "Window", "SoftCap")),
    Specialization("float16", (104, 72), ("ALiBi", "Sinks")),
    Specialization("bfloat16", (136, 200), ("FlashSigmoid",)),
    Specialization("float16", (248, 248), ("Plain",)),
]


@pytest.fixture(autouse=True)
def gpus(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)


@ARCHS
@pytest.mark.parametrize("specialization", CASES, ids=str)
def test_problems(emulator: Emulator, shared_store: Path, specialization: Specialization, arch: str) -> None:
    """Ragged, split and merged, strided, with values that are not finite; memory around the results stays as it is."""
    failed = failures(Emulated(emulator, arch, shared_store), problems(specialization))  # type: ignore[arg-type]
    assert not failed, "\n".join(failed)


def rows_apart(array: Array) -> tuple[Array, Array]:
    """Return a strided copy of an array, and the NaN that lie behind each of its rows."""
    dim = array.shape[-1]
    wide = np.full((*array.shape[:-1], dim + 8), np.nan, array.dtype)
    wide[..., :dim] = array
    return wide[..., :dim], wide[..., dim:]


@ARCHS
@pytest.mark.parametrize("dims", [(40, 40), (72, 24), (88, 104), (16, 8)], ids=str)
@pytest.mark.parametrize("keys", [70, 700])  # 700: split and merged
def test_what_lies_between_rows_is_neither_read_nor_written(
    emulator: Emulator, shared_store: Path, arch: str, dims: tuple[int, int], keys: int
) -> None:
    rng = np.random.default_rng(1)
    shapes = (5, 4, dims[0]), (keys, 2, dims[0]), (keys, 2, dims[1])
    q, k, v = (rng.standard_normal((1, *shape)).astype(ml_dtypes.bfloat16) for shape in shapes)
    out, behind = rows_apart(np.full((1, 5, 4, dims[1]), np.nan, q.dtype))
    Emulated(emulator, arch, shared_store)(*(rows_apart(x)[0] for x in (q, k, v)), variant=at.Causal(), out=out)
    expected, _, scale = exact(q, k, v, at.Causal(), None)
    assert error(out, expected, scale) < 2.0**-6
    assert np.isnan(behind).all()


@ARCHS
def test_one_module_for_several_head_dims(emulator: Emulator, store: Path, arch: str) -> None:
    """The dispatching form, beside a head dim that is a multiple of 16."""
    kernel = GPU_FAMILIES["sm90" if arch.endswith("a") else "sm80"].kernel
    config = replace(settings.current(), nvcc=str(emulator.nvcc), arch=arch, store=store)
    dims = [(40, 24), (48, 32), (104, 72)]
    module = kernel.load(policy="jit", settings=config, dtype="float16", head_dims=dims, variant=at.Causal)
    rng, gpu = np.random.default_rng(2), int(arch != "sm_80")
    for qk, vo in dims:
        sizes = (20, 2, qk), (50, 1, qk), (50, 1, vo)
        q, k, v = (rng.standard_normal((1, *size)).astype(np.float16) for size in sizes)
        out = np.full((1, 20, 2, vo), np.nan, np.float16)
        arrays = (OnGpu(array, gpu) for array in (q, k, v, out))
        module.attention(*arrays, qk**-0.5, "Causal", None, None, None, None, None, None)
        expected, _, scale = exact(q, k, v, at.Causal(), None)
        assert error(out, expected, scale) < 2.0**-8


@ARCHS
def test_queries_are_not_transformed_behind_the_head_dim(emulator: Emulator, shared_store: Path, arch: str) -> None:
    """Zeros there become infinite, and times the zeros of keys NaN."""
    variant = dm.Variant("ReciprocalQueries", header="reciprocal_queries.h", root=SUPPORT / "variants")
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((1, n, 2, 24)).astype(ml_dtypes.bfloat16) for n in (5, 70, 70))
    expected, _, scale = exact((1 / q.astype(np.float32)).astype(q.dtype), k, v, at.Plain(), None)
    assert error(Emulated(emulator, arch, shared_store)(q, k, v, variant=variant()), expected, scale) < 2.0**-6


@ARCHS
@pytest.mark.parametrize(
    ("dims", "name", "on_cpu"),
    [
        *(((12, 16), "q", True), ((40, 4), "v", True), ((264, 64), "q", True), ((64, 512), "v", True)),
        *(((512, 576), "q", True), ((64, 1032), "v", False), ((2000, 64), "q", False)),
    ],
)
def test_other_head_dims_are_refused_with_those_that_exist(
    emulator: Emulator, shared_store: Path, arch: str, dims: tuple[int, int], name: str, on_cpu: bool
) -> None:
    q, v = (np.zeros((1, 8, 2, dim), np.float16) for dim in dims)
    got = f"{dims[0]}, beside {dims[1]} of 'v'" if name == "q" else f"{dims[1]}, beside {dims[0]} of 'q'"
    more = "; there are kernels for a head dim from 1 to 1024, on the CPU" if on_cpu else ""
    said = f"argument '{name}': expected a head dim that is a multiple of 8, up to 256, on a GPU, got {got}{more}$"
    with pytest.raises(ValueError, match=said):
        Emulated(emulator, arch, shared_store)(q, q, v, variant=at.Plain())
    pool, ends = OnGpu(np.zeros((1, 8, 2, dims[1]), np.float16), 0), OnGpu(np.zeros(1, np.int32), 0)
    cache = at.KVCache(OnGpu(q, 0), pool, seqlens=ends)
    with pytest.raises(ValueError, match=said):
        at.attention(OnGpu(q, 0), cache, out=pool)


@ARCHS
def test_longer_values_are_computed_in_parts(emulator: Emulator, shared_store: Path, arch: str) -> None:
    attend, rng = Emulated(emulator, arch, shared_store), np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, *size)).astype(np.float16) for size in ((5, 2, 64), (70, 1, 64), (70, 1, 512)))
    out = np.full((1, 5, 2, 512), np.nan, np.float16)
    for part in (slice(256), slice(256, 512)):
        attend(q, k, v[..., part], variant=at.Causal(), out=out[..., part])
    expected, _, scale = exact(q, k, v, at.Causal(), None)
    assert error(out, expected, scale) < 2.0**-8


@ARCHS
def test_rows_that_copies_of_16_bytes_do_not_reach_are_refused(
    emulator: Emulator, shared_store: Path, arch: str
) -> None:
    attend = Emulated(emulator, arch, shared_store)
    good, wide = np.zeros((1, 8, 2, 40), np.float16), np.zeros((1, 8, 2, 44), np.float16)
    arrays: dict[str, Any] = {name: OnGpu(good.copy(), attend._gpu) for name in ("q", "k", "v", "out")}
    for name in arrays:
        odd = arrays | {name: OnGpu(wide[..., :40], attend._gpu)}
        said = f"argument '{name}': expected strides that are multiples of 16 bytes, .* of 0, 88 and 44 elements"
        with pytest.raises(ValueError, match=said):
            attend.attend(**odd, workspace=OnGpu(np.zeros(1, np.float32), attend._gpu))
