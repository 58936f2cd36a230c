"""Head dims of any size on the CPU, against the definition in float64, in both forms.

Rows lie between bytes that are NaN in every dtype, and the last row ends where its memory does, so that what reads
beyond a row gives NaN or ends the process, and what writes beyond one is seen.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention import reference
from dimorph.attention.kernels import attention_cpu
from dimorph.toolchain import targets
from support.attention_forms import attention_in
from support.store import in_child

# Multiples of 8 that are none of 16, others, and large ones; each is the head dim of queries once, and of values once.
DIMS = [
    (8, 24),
    (24, 40),
    (40, 72),
    (72, 88),
    (88, 104),
    (104, 8),
    (20, 33),
    (33, 20),
    (64, 512),
    (512, 576),
    (576, 64),
]
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
# What float16 has of its own is the conversion of vectors and of tails.
BUILT = {"float32": DIMS, "bfloat16": DIMS, "float16": [(8, 24), (20, 33), (512, 576)]}


def biased(bias: Any, batch_stride: int, head_stride: int) -> dm.BoundVariant:
    return at.compose(at.Causal, at.Bias(bias, batch_stride, head_stride))


@pytest.fixture(scope="module", params=["jit", "aot"])
def attend(
    request: pytest.FixtureRequest, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> at.Attention:
    variant = biased(np.zeros(1, np.float32), 0, 0).variant
    ahead = (
        attention_cpu.instantiations(dtype=dtype, head_dims=dims, variant=variant) for dtype, dims in BUILT.items()
    )
    return attention_in(request.param, shared_store, tmp_path_factory, ahead)


def poisoned(shape: tuple[int, ...], dtype: Any, gap: int) -> tuple[Any, Any]:
    """Return an array whose rows lie `gap` elements apart and the last of which ends at a page that traps, and all
    bytes before that page."""
    row = shape[-1] + gap
    strides = [dtype.itemsize * row * int(np.prod(shape[dim + 1 : -1])) for dim in range(len(shape) - 1)]
    size = dtype.itemsize * (row * int(np.prod(shape[:-1])) - gap)
    page = mmap.PAGESIZE
    whole = -(-size // page) * page
    memory = np.frombuffer(mmap.mmap(-1, whole + page), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    trap = ctypes.c_void_p(memory.ctypes.data + whole)
    assert libc.mprotect(trap, ctypes.c_size_t(page), 0) == 0, os.strerror(ctypes.get_errno())
    memory = memory[:whole]
    memory[:] = 0xFF
    array = as_strided(memory[whole - size :][: dtype.itemsize].view(dtype), shape, [*strides, dtype.itemsize])
    return array, memory


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, gap: int = 3) -> Any:
    array = poisoned(shape, dtype, gap)[0]
    array[...] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return array


def check(out: Any, lse: Any, arrays: Any, variant: Any) -> None:
    expected, expected_lse = reference.attention(*(x.astype(np.float32) for x in arrays), variant=variant)
    bound = 2e-6 if out.dtype == np.float32 else 2 * float(ml_dtypes.finfo(out.dtype).eps)
    assert np.abs(out.astype(np.float64) - expected).max() <= bound * np.abs(expected).max()
    np.testing.assert_allclose(lse, expected_lse, atol=2e-6, rtol=1e-6)


def dense(attend: at.Attention, dims: tuple[int, int], dtype: Any, variant: dm.BoundVariant | None = None) -> None:
    rng = np.random.default_rng(0)
    for queries in (3, 75):  # single rows, blocks of queries
        q, k, v = (
            random(rng, (2, rows, heads, dim), dtype)
            for rows, heads, dim in ((queries, 4, dims[0]), (139, 2, dims[0]), (139, 2, dims[1]))
        )
        bias = rng.standard_normal((2, 4, queries, 139), dtype=np.float32)
        bound = variant or biased(bias, 4 * queries * 139, queries * 139)
        out, memory = poisoned((2, queries, 4, dims[1]), dtype, 3)
        _, lse = attend(q, k, v, out=out, variant=bound, return_lse=True)
        check(out, lse, (q, k, v), bound)
        out[...] = np.frombuffer(b"\xff" * dtype.itemsize, dtype)
        assert (memory == 0xFF).all(), "a store beyond a row"


def ragged(attend: at.Attention, dims: tuple[int, int], dtype: Any) -> None:
    rng = np.random.default_rng(1)
    lengths = ((1, 40, 75, 0, 9), (40, 40, 131, 7, 300))
    cu_q, cu_k = (np.cumsum([0, *each], dtype=np.int32) for each in lengths)
    q = random(rng, (cu_q[-1], 4, dims[0]), dtype)
    k, v = (random(rng, (cu_k[-1], 2, dim), dtype) for dim in dims)
    bias = rng.standard_normal((5, 75 * 300), dtype=np.float32)
    out, memory = poisoned((cu_q[-1], 4, dims[1]), dtype, 3)
    offsets = {"cu_seqlens_q": cu_q, "cu_seqlens_k": cu_k}
    _, lse = attend(q, k, v, out=out, variant=biased(bias.ravel(), 75 * 300, 0), return_lse=True, **offsets)
    for b, (queries, keys) in enumerate(zip(*lengths, strict=True)):
        rows, cols = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        if queries:
            own = biased(bias[b, : queries * keys].reshape(1, 1, queries, keys), 0, 0)
            check(out[None, rows], lse[None, rows], (q[None, rows], k[None, cols], v[None, cols]), own)
    out[...] = np.frombuffer(b"\xff" * dtype.itemsize, dtype)
    assert (memory == 0xFF).all(), "a store beyond a row"


@pytest.mark.parametrize(("dtype", "dims"), [(dtype, dims) for dtype in BUILT for dims in BUILT[dtype]], ids=str)
def test_dense_and_ragged(attend: at.Attention, dtype: str, dims: tuple[int, int]) -> None:
    def child() -> None:
        dense(attend, dims, DTYPES[dtype])
        ragged(attend, dims, DTYPES[dtype])

    in_child(child)


@pytest.mark.parametrize("level", [level.name for level in targets.runnable()][1:])
@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_of_targets(shared_store: Path, dtype: str, level: str) -> None:
    """Vectors of other lengths than those of the best level have other tails."""
    config = replace(settings.current(), store=shared_store, target=level)

    def child() -> None:
        attend = at.Attention(policy="jit", settings=config)
        dense(attend, (21, 35), DTYPES[dtype], at.Plain())

    in_child(child)


@pytest.mark.parametrize("queries", [3, 75])  # single rows, blocks of queries
@pytest.mark.parametrize("dtype", DTYPES)
def test_queries_that_a_variant_transforms(shared_store: Path, dtype: str, queries: int) -> None:
    """They are kept in another form, as bfloat16 pairs in two parts."""
    attend = at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store))
    variant = at.FlashSigmoid(scale=0.125, bias=-3.0)

    def child() -> None:
        rng = np.random.default_rng(2)
        shapes = (1, queries, 2, 33), (1, 139, 2, 33), (1, 139, 2, 20)
        q, k, v = (random(rng, shape, DTYPES[dtype]) for shape in shapes)
        out = attend(q, k, v, variant=variant)
        expected = reference.attention(*(x.astype(np.float32) for x in (q, k, v)), variant=variant)[0]
        bound = 2e-6 if dtype == "float32" else 2 * float(ml_dtypes.finfo(out.dtype).eps)
        assert np.abs(out.astype(np.float64) - expected).max() <= bound * np.abs(expected).max()

    in_child(child)


@pytest.mark.parametrize("queries", [9, 75])  # single rows, blocks of queries
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(shared_store: Path, bad: float, dtype: str, queries: int) -> None:
    """They are computed in another way, which has tails of its own."""
    attend = at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store))

    def child() -> None:
        rng = np.random.default_rng(3)
        q, k, v = (random(rng, (1, queries, 2, dim), DTYPES[dtype]) for dim in (20, 20, 33))
        clean = attend(q, k, v, variant=at.Causal).astype(np.float64)
        v[0, -1, :, 32] = bad  # of a key that only the last query sees
        out = attend(q, k, v, variant=at.Causal).astype(np.float64)
        np.testing.assert_allclose(out[:, :-1], clean[:, :-1], atol=1e-6, rtol=1 / 128)
        np.testing.assert_allclose(out[:, -1, :, :32], clean[:, -1, :, :32], atol=1e-6, rtol=1 / 128)
        np.testing.assert_array_equal(out[:, -1, :, 32], bad)

    in_child(child)


@pytest.mark.parametrize("dims", [(1025, 64), (64, 1025), (0, 64), (64, 0)], ids=str)
def test_others_are_refused_by_name(dims: tuple[int, int]) -> None:
    name, size = ("q", dims[0]) if dims[0] != 64 else ("v", dims[1])
    q, k, v = (np.zeros((1, 8, 2, dim), np.float32) for dim in (dims[0], *dims))
    with pytest.raises(
        ValueError, match=f"argument '{name}': expected a head dim from 1 to 1024, on the CPU, got {size}"
    ):
        at.attention(q, k, v)


def test_a_read_beyond_a_row_is_noticed() -> None:
    array = poisoned((2, 3), np.dtype(np.float32), 1)[0]
    assert np.isnan(as_strided(array, (1, 4), array.strides)).tolist() == [[True] * 4]

    def child() -> float:
        faulthandler.disable()
        return float(as_strided(array, (3, 3), array.strides).sum())

    with pytest.raises(AssertionError, match=f"ended with status {signal.SIGSEGV:#x}"):
        in_child(child)
