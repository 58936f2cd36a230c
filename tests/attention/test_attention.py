"""dimorph.attention on the CPU against its definition in float64, in both forms."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention import reference
from dimorph.attention.kernels import attention_cpu
from dimorph.attention.request import Request
from support.attention_forms import attention_in
from support.paths import EXAMPLES
from support.store import result_of, start_child

# A user's own variant: a struct in a header of theirs, and this line.
Decay = dm.Variant("Decay", header="decay.h", params=(dm.scalar("rate"),), root=EXAMPLES / "variant")
RULES = reference.RULES | {"Decay": lambda x, b, i, j, rate: x - rate * np.abs(j - (i + x.shape[-1] - x.shape[-2]))}

VARIANTS = {
    "plain": at.Plain(),
    "causal": at.Causal(),
    "sigmoid": at.FlashSigmoid(scale=0.125, bias=-3.0),
    "user": Decay(rate=0.05),
}
HEAD_DIMS = [(32, 32), (64, 64), (128, 128)]


@pytest.fixture(scope="module", params=["jit", "aot"])
def attend(
    request: pytest.FixtureRequest, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> at.Attention:
    values = [variant.variant for variant in VARIANTS.values()]
    ahead = (
        attention_cpu.instantiations(dtype="float32", head_dims=HEAD_DIMS[:2], variant=values),
        attention_cpu.instantiations(dtype="float32", head_dims=HEAD_DIMS[2], variant=values, few_queries=False),
        attention_cpu.instantiations(dtype="float32", head_dims=(48, 80), variant=at.Plain, few_queries=False),
        attention_cpu.instantiations(dtype=["bfloat16", "float16"], head_dims=(64, 64), variant=values),
    )
    return attention_in(request.param, shared_store, tmp_path_factory, ahead)


def inputs(
    rng: np.random.Generator, batch: int, queries: int, keys: int, heads: tuple[int, int], dims: tuple[int, int]
) -> tuple[Any, Any, Any]:
    shapes = [(batch, queries, heads[0], dims[0]), (batch, keys, heads[1], dims[0]), (batch, keys, heads[1], dims[1])]
    q, k, v = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return q, k, v


def close(actual: Any, expected: Any) -> None:
    error = np.abs(np.asarray(actual) - expected).max(initial=0.0)
    scale = np.abs(expected).max(initial=0.0)
    assert error <= 2e-6 * max(scale, 1.0), f"error {error:.3g} at scale {scale:.3g}"


@pytest.mark.parametrize("dims", HEAD_DIMS)
@pytest.mark.parametrize("name", VARIANTS)
def test_dense(attend: at.Attention, name: str, dims: tuple[int, int]) -> None:
    q, k, v = inputs(np.random.default_rng(1), 2, 75, 139, (4, 2), dims)
    out = attend(q, k, v, variant=VARIANTS[name])
    close(out, reference.attention(q, k, v, variant=VARIANTS[name], rules=RULES)[0])


@pytest.mark.parametrize("queries", [9, 75])  # single rows, blocks of queries
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name", VARIANTS)
def test_sixteen_bits(attend: at.Attention, name: str, dtype: Any, queries: int) -> None:
    q, k, v = (x.astype(dtype) for x in inputs(np.random.default_rng(1), 2, queries, 139, (4, 2), (64, 64)))
    out, lse = attend(q, k, v, variant=VARIANTS[name], return_lse=True)
    assert out.dtype == dtype
    expected, expected_lse = reference.attention(
        *(x.astype(np.float32) for x in (q, k, v)), variant=VARIANTS[name], rules=RULES
    )
    # The output's rounding, and the weights' where pairs of bfloat16 are multiplied.
    bound = 2 * float(ml_dtypes.finfo(dtype).eps) * np.abs(expected).max()
    assert np.abs(out.astype(np.float64) - expected).max() <= bound
    if name != "sigmoid":
        close(lse, expected_lse)  # products are exact and sums float32, whatever the storage


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name", VARIANTS)
def test_few_queries_share_the_keys_among_threads(attend: at.Attention, name: str, dtype: Any) -> None:
    q, k, v = (x.astype(dtype) for x in inputs(np.random.default_rng(9), 1, 3, 2500, (4, 2), (64, 64)))
    out, lse = attend(q, k, v, variant=VARIANTS[name], return_lse=True)
    expected, expected_lse = reference.attention(
        *(x.astype(np.float32) for x in (q, k, v)), variant=VARIANTS[name], rules=RULES
    )
    bound = (2e-6 if dtype == np.float32 else 2 * float(ml_dtypes.finfo(dtype).eps)) * np.abs(expected).max()
    assert np.abs(out.astype(np.float64) - expected).max() <= bound
    if name != "sigmoid":
        close(lse, expected_lse)


@pytest.mark.parametrize("queries", [32, 33])
@pytest.mark.parametrize("ragged", [False, True])
def test_around_the_most_queries_that_are_few(attend: at.Attention, queries: int, ragged: bool) -> None:
    """Each is computed by another kernel."""
    q, k, v = inputs(np.random.default_rng(10), 1, queries, 40, (2, 2), (32, 32))
    expected = reference.attention(q, k, v, variant=at.Plain())[0]
    if not ragged:
        return close(attend(q, k, v), expected)
    offsets = [np.array([0, rows], np.int32) for rows in (queries, 40)]
    return close(attend(q[0], k[0], v[0], cu_seqlens_q=offsets[0], cu_seqlens_k=offsets[1]), expected[0])


def test_a_head_dim_of_its_own_for_values(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(2), 1, 33, 65, (2, 2), (48, 80))
    close(attend(q, k, v), reference.attention(q, k, v, variant=at.Plain())[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_ragged_is_each_sequence_alone(attend: at.Attention, name: str) -> None:
    rng = np.random.default_rng(3)
    queries, keys = [0, 5, 64, 1, 97], [3, 5, 80, 0, 130]
    cu_q, cu_k = (np.cumsum([0, *lengths], dtype=np.int32) for lengths in (queries, keys))
    q = rng.standard_normal((cu_q[-1], 4, 64), dtype=np.float32)
    k, v = (rng.standard_normal((cu_k[-1], 2, 64), dtype=np.float32) for _ in range(2))
    out = attend(q, k, v, variant=VARIANTS[name], cu_seqlens_q=cu_q, cu_seqlens_k=cu_k)
    for b in range(len(queries)):
        rows, cols = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        expected = reference.attention(q[None, rows], k[None, cols], v[None, cols], variant=VARIANTS[name], rules=RULES)
        close(out[rows], expected[0][0])


@pytest.mark.parametrize("queries", [4, 40])  # single rows, blocks of queries
@pytest.mark.parametrize("offsets", [[0], [0, 0], [0, 3], [0, 1, 3]])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_rows_behind_the_last_sequence_see_no_key(
    attend: at.Attention, offsets: list[int], queries: int, library: str
) -> None:
    q, k, v = (x[0] for x in inputs(np.random.default_rng(3), 1, queries, 40, (2, 2), (64, 64)))
    cu = np.array(offsets, np.int32)
    arrays = [torch.from_numpy(x) if library == "torch" else x for x in (q, k, v, cu)]
    for _ in range(5):  # memory that is used again holds the results before it
        out, lse = attend(*arrays[:3], cu_seqlens_q=arrays[3], cu_seqlens_k=arrays[3], return_lse=True)
        assert not np.asarray(out)[offsets[-1] :].any() and np.isneginf(np.asarray(lse)[offsets[-1] :]).all()
        np.asarray(out)[...] = np.asarray(lse)[..., None] = np.nan
        del out, lse


@pytest.mark.parametrize("name", ["plain", "causal"])
def test_lse_is_natural_and_rows_without_keys_are_zero(attend: at.Attention, name: str) -> None:
    q, k, v = inputs(np.random.default_rng(4), 1, 9, 4, (2, 1), (64, 64))
    out, lse = attend(q, k, v, variant=VARIANTS[name], return_lse=True)
    expected, expected_lse = reference.attention(q, k, v, variant=VARIANTS[name])
    close(out, expected)
    assert np.array_equal(np.isneginf(lse), np.isneginf(expected_lse))
    seen = ~np.isneginf(expected_lse)
    close(lse[seen], expected_lse[seen])
    if name == "causal":  # more queries than keys: the first five see none
        assert not seen[0, :5].any() and not out[0, :5].any()


def test_strides_are_free_and_out_is_written(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(5), 2, 40, 50, (4, 4), (64, 64))
    moved = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (q, k, v)]
    wide = np.full((2, 40, 4, 128), np.nan, np.float32)
    out = attend(*moved, out=wide[..., :64])
    close(out, reference.attention(q, k, v, variant=at.Plain())[0])
    assert np.shares_memory(out, wide) and np.isnan(wide[..., 64:]).all()


def test_torch_arrays_are_taken_and_given(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(6), 1, 20, 20, (2, 2), (32, 32))
    out = attend(torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(v), variant=at.Causal)
    assert isinstance(out, torch.Tensor)
    close(out, reference.attention(q, k, v, variant=at.Causal())[0])


# In a process of its own: JAX's threads do not go together with other tests' forks.
JAX = """
import jax, numpy as np
from dimorph import attention as at
from dimorph.attention import reference

arrays = [np.random.default_rng(6).standard_normal((1, 20, 2, 32), dtype=np.float32) for _ in range(3)]
out = at.attention(*map(jax.numpy.asarray, arrays), variant=at.Causal)
assert isinstance(out, jax.Array), type(out)
expected = reference.attention(*arrays, variant=at.Causal())[0]
assert np.abs(np.asarray(out) - expected).max() <= 2e-6 * np.abs(expected).max()

import ml_dtypes
here = [x.astype(ml_dtypes.bfloat16) for x in arrays]
there = [jax.numpy.asarray(x) for x in here]
alone = at.attention(*here)
for mixed in ((here[0], *there[1:]), (there[0], *here[1:]), (*here[:2], there[2])):
    assert np.array_equal(np.asarray(at.attention(*mixed)), alone)
"""


def test_jax_arrays_are_taken_and_given(warm_store: Path) -> None:
    subprocess.run([sys.executable, "-c", JAX], check=True)


def test_read_only_inputs_serve(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(7), 1, 8, 8, (1, 1), (32, 32))
    for x in (q, k, v):
        x.flags.writeable = False
    close(attend(q, k, v), reference.attention(q, k, v, variant=at.Plain())[0])


@pytest.mark.parametrize("length", [31, 75])  # single rows, blocks of queries
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_nan_and_inf_stay_in_their_rows(attend: at.Attention, dtype: Any, length: int) -> None:
    q, k, v = (x.astype(dtype) for x in inputs(np.random.default_rng(8), 1, length, length, (1, 1), (64, 64)))
    clean = attend(q, k, v, variant=at.Causal)
    q[0, 3] = np.nan
    k[0, 20], v[0, 20] = np.inf, np.nan  # keys that only the queries from 20 on see
    out = attend(q, k, v, variant=at.Causal)
    others = [row for row in range(20) if row != 3]
    # Not to the bit: what is 0 * NaN is computed in another way.
    np.testing.assert_allclose(out[0, others].astype(float), clean[0, others].astype(float), atol=1e-6, rtol=1 / 128)
    assert np.isnan(out[0, 3]).all() and np.isnan(out[0, 20:]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": np.zeros((1, 8, 3, 64), np.float32)}, "argument 'q': expected a number of heads that is a multiple"),
        ({"k": np.zeros((1, 8, 2, 32), np.float32)}, "argument 'k': expected size 64 in dimension 3"),
        ({"v": np.zeros((1, 7, 2, 64), np.float32)}, "argument 'v': expected size 8 in dimension 1"),
        ({"k": np.zeros((1, 8, 2, 64))}, "argument 'k': expected the dtype of 'q', float32, got float64"),
        ({"q": np.zeros((8, 64), np.float32)}, "argument 'q': expected an array"),
        ({"v": np.zeros((8, 64), np.float32)}, "argument 'v': expected an array"),
        ({"cu_seqlens_q": np.zeros(2, np.int32)}, "'cu_seqlens_k': expected offsets, as 'cu_seqlens_q' is given"),
        (
            {"q": np.zeros((1, 8, 4, 64), np.int32)},
            "argument 'q': expected dtype float32, .*, got int32|argument 'k': expected the dtype",
        ),
        ({"variant": "Causal"}, "argument 'variant': expected a dimorph.Variant, got 'Causal'"),
        (
            {"variant": at.ALiBi(np.ones(3, np.float32))},
            r"argument 'alibi_slopes': expected shape \[heads\], here \(4\)",
        ),
        (
            {"variant": at.KeyMask(np.ones(7, bool))},
            r"'key_mask': expected shape \[\*keys\], here \(1, 8\), got \(7\)",
        ),
        ({"variant": at.CustomMask(np.ones((1, 1, 8), bool))}, r"'mask': expected shape .*, here \(1, 8, 8\)"),
        (
            {"variant": at.additive_bias(np.ones((1, 1, 1, 8), np.float32))},
            r"'bias': .* here \(1, 1 or 4, 8, 8\)|'bias'",
        ),
        ({"cu_seqlens_q": [0, 8]}, r"argument 'cu_seqlens_q': expected an int32 array .*, got \[0, 8\]"),
        ({"q": [1.0], "variant": at.ALiBi(np.ones(4, np.float32))}, "argument 'q': expected an array"),
        ({"scale": np.nan}, "argument 'scale': expected a number, got NaN"),
        ({"scale": "1"}, "argument 'scale': expected a number, got a str"),
        ({"q": None}, "argument 'q': expected an array with a shape, got None"),
        ({"k": None}, "argument 'k': expected a tensor .*, got None"),
        ({"v": None}, "argument 'v': expected a KVCache as 'k', or keys and values, got None beside"),
        ({"cu_seqlens_q": np.zeros((), np.int32)}, r"argument 'cu_seqlens_q': expected an int32 array \[batch \+ 1\]"),
        ({"q": np.ma.masked_array(np.zeros((1, 8, 4, 64)))}, "argument 'q': expected an array without a mask"),
        ({"v": np.ma.masked_array(np.zeros((1, 8, 2, 64)))}, "argument 'v': expected an array without a mask"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    good = {name: np.zeros((1, 8, 2 + 2 * (name == "q"), 64), np.float32) for name in "qkv"}
    with pytest.raises((ValueError, TypeError), match=message):
        at.attention(**(good | change))


@pytest.mark.parametrize("queries", [8, 40])  # single rows, blocks of queries
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float64", "complex64", "int16"])
def test_other_dtypes_are_refused_by_name(attend: at.Attention, dtype: str, library: str, queries: int) -> None:
    q, k, v = inputs(np.random.default_rng(1), 1, queries, 9, (2, 2), (64, 64))
    attend(q, k, v)  # its function is the one that is tried first
    arrays = [x.astype(dtype) for x in (q, k, v)]
    message = f"argument 'q': expected dtype float32, bfloat16 or float16, got (torch.)?{dtype}"
    if dtype == "float64":
        message += ", but logits and sums are float32: convert it"
    with pytest.raises(TypeError, match=message):
        attend(*(torch.from_numpy(x) for x in arrays) if library == "torch" else arrays)


def test_gradients_are_refused_beside_arrays_of_another_library(warm_store: Path) -> None:
    q = np.zeros((1, 8, 2, 64), np.float32)
    grad = torch.zeros(1, 8, 2, 64, requires_grad=True)
    slopes = at.ALiBi(torch.zeros(2, requires_grad=True))
    calls: list[tuple[str, Any]] = [("k", ((q, grad, q), at.Plain)), ("v", ((q, q, grad), at.Plain))]
    for name, (arrays, variant) in [*calls, ("alibi_slopes", ((q, q, q), slopes))]:
        with pytest.raises(RuntimeError, match=f"argument '{name}': expected a tensor that requires no grad"):
            at.attention(*arrays, variant=variant)
        with torch.no_grad():
            at.attention(*arrays, variant=variant)


def test_a_request_prints_what_a_kernel_is_chosen_by() -> None:
    request = Request("Causal", np.dtype("float32"), 64, 32, None, False)
    expected = "variant='Causal', dtype=dtype('float32'), head_dim_qk=64, head_dim_vo=32, gpu=None, few_queries=False"
    assert repr(request) == f"Request({expected}, paged=False, in_pages=False, kv_dtype='as_q', batch_invariant=False)"


def test_variants_that_are_equal_share_what_was_loaded(shared_store: Path) -> None:
    attend = at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store))
    q, k, v = inputs(np.random.default_rng(9), 1, 8, 8, (2, 2), (64, 64))
    expected = attend(q, k, v, variant=Decay(0.1))
    for variant in (replace(Decay), replace(Decay), Decay):
        assert np.array_equal(attend(q, k, v, variant=variant(0.1)), expected)
    assert len(attend.resolutions()) == 2  # an entry and a case


def test_other_dtypes_and_head_dims_follow_each_other(attend: at.Attention) -> None:
    for dtype, dims in [(np.float32, (64, 64)), (np.float16, (64, 64)), (np.float32, (32, 32))] * 2:
        q, k, v = (x.astype(dtype) for x in inputs(np.random.default_rng(9), 1, 8, 8, (2, 2), dims))
        out = attend(q, k, v, variant=at.Causal)
        expected = reference.attention(q, k, v, variant=at.Causal())[0]
        assert out.dtype == dtype
        assert np.abs(out - expected).max() <= (2e-6 if dtype == np.float32 else 2e-3) * np.abs(expected).max()


def test_an_output_that_is_an_input_is_refused(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(9), 1, 8, 8, (2, 2), (64, 64))
    for name, out in (("q", q), ("k", k), ("v", v)):
        with pytest.raises(ValueError, match=f"argument 'out': expected memory of its own, got that of '{name}'"):
            attend(q, k, v, out=out)


@pytest.mark.parametrize(("queries", "keys"), [(40, 41), (1, 100), (100, 40)])
def test_a_window_as_wide_as_can_be_is_none(warm_store: Path, queries: int, keys: int) -> None:
    attend, most = at.Attention(), 2**31 - 1
    q, k, v = inputs(np.random.default_rng(9), 1, queries, keys, (2, 2), (64, 64))
    for widths, same in (
        ((-1, most), at.Plain),
        ((most, -1), at.Plain),
        ((most, most), at.Plain),
        ((most, 0), at.Causal),
    ):
        out = attend(q, k, v, variant=at.Window(*widths))
        np.testing.assert_allclose(out, attend(q, k, v, variant=same), atol=1e-6)


def test_a_fork_while_another_thread_loads_leaves_a_child_that_works(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(9), 1, 8, 8, (2, 2), (64, 64))
    expected = attend(q, k, v, variant=at.Causal)
    other = at.Attention()
    functions, load = other._functions, other._functions._load
    started, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> dm.Module:
        started.set()
        go_on.wait()
        return load(*args)

    def child() -> bool:
        signal.alarm(30)  # a dead lock must end
        functions._load = load  # type: ignore[method-assign]
        return bool(np.array_equal(other(q, k, v, variant=at.Causal), expected))

    functions._load = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(other, q, k, v, variant=at.Causal)
        started.wait()
        answer = result_of(start_child(child))
        go_on.set()
        assert np.array_equal(loading.result(), expected)
    assert answer is True


def test_the_threads_are_there_again_after_a_fork(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(9), 2, 300, 300, (4, 4), (64, 64))
    before = attend(q, k, v)

    def child() -> bool:
        return bool(np.array_equal(attend(q, k, v), before))

    assert result_of(start_child(child)) is True
    assert np.array_equal(attend(q, k, v), before)


def test_several_python_threads_share_the_pool(attend: at.Attention) -> None:
    q, k, v = inputs(np.random.default_rng(10), 1, 200, 200, (4, 4), (32, 32))
    expected = attend(q, k, v)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: attend(q, k, v), range(20)))
    assert all(np.array_equal(result, expected) for result in results)
