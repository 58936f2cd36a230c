"""Keys and values in 8 bits, on the CPU: attention over a `KVCache`, and `append` to one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import KVCache, reference
from dimorph.attention.kernels import FLOAT8, paged_cpu
from dimorph.toolchain import targets
from support.appends import difficult_numbers, rounded
from support.attention_configs import Specialization
from support.attention_forms import attention_in
from support.paged import failures, for_one_kernel, paged_config, stored_as

pytestmark = pytest.mark.usefixtures("warm_store")

PROBLEMS, CHUNKS = 200, 4
CONFIGS = sorted(
    (for_one_kernel(paged_config(seed), float8=True) for seed in range(5000, 5000 + PROBLEMS)),
    key=lambda config: repr(config.specialization),
)
BUILT = (Specialization("float32", (32, 32), ("Causal",)), Specialization("bfloat16", (64, 64), ("Plain",)))
TYPES: dict[str, Any] = {name: getattr(ml_dtypes, name) for name in FLOAT8}
KEYS = np.array([37, 12], np.int32)


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


Q, K, V = normal(2, 3, 4, 32), normal(2, 50, 2, 32), normal(2, 50, 2, 20)


def every_bit_pattern(dtype: Any) -> Any:
    return np.arange(256, dtype=np.uint8).view(dtype)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_50_random_problems(chunk: int, attend: at.Attention) -> None:
    size = PROBLEMS // CHUNKS
    failed = failures(attend, CONFIGS[chunk * size : (chunk + 1) * size], float8=True)
    assert not failed, f"{len(failed)} of {size} failed:\n" + "\n".join(failed)


def test_the_random_problems_have_both_dtypes_beside_each_dtype_of_queries() -> None:
    pairs = {(config.specialization.dtype, stored_as(config)) for config in CONFIGS}
    assert {pair for pair in pairs if pair[0] != "float16"} == {
        (q, stored) for q in ("float32", "bfloat16") for stored in FLOAT8
    }


@pytest.mark.parametrize("form", ["jit", "aot"])
def test_both_forms(form: str, shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    ahead = [
        paged_cpu.instantiations(
            dtype=one.dtype, head_dims=one.head_dims, kv_dtype=list(FLOAT8), variant=getattr(at, one.variant[0])
        )
        for one in BUILT
    ]
    own = attention_in(form, shared_store, tmp_path_factory, ahead)
    failed = failures(own, [paged_config(seed, BUILT) for seed in range(6000, 6030)], float8=True)
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("count", [1, 70])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("stored", FLOAT8)
def test_every_finite_number_is_read_as_it_is(stored: str, dtype: Any, count: int) -> None:
    check_numbers(at.attention, stored, dtype, count)


@pytest.mark.parametrize(("stored", "dtype"), [(FLOAT8[0], np.float32), (FLOAT8[1], ml_dtypes.bfloat16)])
@pytest.mark.parametrize("level", [level.name for level in targets.runnable()][1:])
def test_every_level_reads_them(level: str, stored: str, dtype: Any, shared_store: Path) -> None:
    own = at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store, target=level))
    for count in (1, 70):
        check_numbers(own, stored, dtype, count)


def check_numbers(attend: Any, stored: str, dtype: Any, count: int) -> None:
    """Check values in 8 bits: each query sees one key alone, so the output is its value."""
    numbers = every_bit_pattern(TYPES[stored])
    values = np.resize(numbers[np.isfinite(numbers.astype(np.float32))], (1, 256, 1, 64))
    rows = np.arange(count)[:, None] == np.arange(256) % count
    keep = rows & (np.arange(256) < count)
    q = np.zeros((1, count, 1, 64), dtype)
    out = attend(q, KVCache(values, values, k_scale=1.0, v_scale=2.0**-9), variant=at.CustomMask(keep[None], None))
    expected = values[0, :count, 0].astype(np.float32) * 2.0**-9
    assert np.array_equal(out[0, :, 0], expected.astype(dtype))


@pytest.mark.parametrize("stored", FLOAT8)
def test_numbers_that_are_not_finite_reach_only_what_sees_them(stored: str) -> None:
    dtype = TYPES[stored]
    k, v = K.astype(dtype), V.astype(dtype)
    v[0, 40, 1, 7], v[0, 41, 0, 3] = np.nan, (np.inf if stored == "float8_e5m2" else np.nan)
    for q in (Q, np.tile(Q, (1, 20, 1, 1))):
        causal = KVCache(k, v, k_scale=1.0, v_scale=1.0, seqlens=np.array([50, 50], np.int32))
        hidden = at.attention(q, causal, variant=at.KeyPadding(np.array([40, 50], np.int32)))
        assert np.isfinite(hidden).all()
        out = at.attention(q, causal)
        assert np.isnan(out[0, :, 2:, 7]).all()
        assert (np.isposinf if stored == "float8_e5m2" else np.isnan)(out[0, :, :2, 3]).all()
        assert np.isfinite(np.delete(out[0], [3, 7], -1)).all() and np.isfinite(out[1]).all()


@pytest.mark.parametrize("variant", [at.SoftCap(2.0), at.FlashSigmoid(0.3, -1.0), at.Plain()])
def test_hooks_see_logits_of_the_numbers_that_are_meant(variant: Any) -> None:
    """With keys that are so small in storage that a cap, or a sigmoid, of stored logits would be another one."""
    scales = np.array([900.0, 500.0], np.float32)
    k, v = (K / scales[:, None]).astype(ml_dtypes.float8_e5m2), V.astype(ml_dtypes.float8_e5m2)
    factors = k.astype(np.float64) * scales[:, None], v.astype(np.float64) * 0.25
    for q in (Q, np.tile(Q, (1, 20, 1, 1))):
        out = at.attention(q, KVCache(k, v, k_scale=scales, v_scale=0.25), variant=variant)
        expected, _ = reference.attention(q, *factors, variant=variant)
        assert np.allclose(out, expected, atol=1e-5)


def test_torch_and_the_kinds_of_scales() -> None:
    k, v = (torch.from_numpy(x).to(torch.float8_e4m3fn) for x in (K, V))
    numpy = [x.to(torch.float32).numpy().astype(ml_dtypes.float8_e4m3fn) for x in (k, v)]
    expected = at.attention(Q, KVCache(*numpy, k_scale=0.5, v_scale=3.0))
    half, three = torch.tensor(0.5), torch.tensor([3.0, 3.0])
    for k_scale, v_scale in ((0.5, 3), (np.float32(0.5), three), (half, three[:1]), (half[None], np.float64(3.0))):
        out = at.attention(torch.from_numpy(Q), KVCache(k, v, k_scale=k_scale, v_scale=v_scale))
        assert np.array_equal(out.numpy(), expected)


E4M3, E5M2 = TYPES.values()
SCALES: dict[str, Any] = {"k_scale": 1.0, "v_scale": 1.0}
STORED: dict[str, Any] = {"k": K.astype(E4M3), "v": V.astype(E4M3)}
NOT_MADE: dict[str, Any] = {
    "no scales": (ValueError, STORED, "'k_scale': expected a number or a float32 array, as the dtype of 'k' is float8"),
    "one scale": (ValueError, STORED | {"k_scale": 1.0}, "'v_scale': expected a number or a float32 array, as the"),
    "scales of float32": (
        ValueError,
        {"k": K, "v": V, **SCALES},
        "'k_scale': expected none, as the dtype of 'k' is fl",
    ),
    "keys alone": (
        ValueError,
        {"k": K.astype(E4M3), "v": V, **SCALES},
        "'v_scale': expected none, as the dtype of 'v'",
    ),
    "another dtype of 8 bits": (
        TypeError,
        {"k": torch.zeros(1).to(torch.float8_e4m3fnuz), "v": V, **SCALES},
        "'k': expected dtype float8_e4m3fn or float8_e5m2, got float8_e4m3fnuz",
    ),
    "a text": (
        TypeError,
        STORED | {"k_scale": "1", "v_scale": 1.0},
        "'k_scale': expected a number or a float32 array, g",
    ),
    "a list": (
        TypeError,
        STORED | {"k_scale": 1.0, "v_scale": [1.0]},
        "'v_scale': expected a number or a float32 arra",
    ),
}


@pytest.mark.parametrize("case", NOT_MADE)
def test_what_does_not_belong_together(case: str) -> None:
    kind, arguments, said = NOT_MADE[case]
    with pytest.raises(kind, match=f"KVCache: argument {said}"):
        KVCache(**arguments)


REFUSED: dict[str, Any] = {
    "two dtypes": (TypeError, {"v": V.astype(E5M2)}, "'v': expected the dtype of 'k', float8_e4m3fn, got float8_e5m2"),
    "a wide scale": (TypeError, {"k_scale": np.ones(2)}, "'k_scale': expected dtype float32, got float64"),
    "scales of other heads": (ValueError, {"k_scale": np.ones(3, np.float32)}, "'k_scale': expected one element, or a"),
    "scales in a matrix": (ValueError, {"v_scale": np.ones((2, 1), np.float32)}, "'v_scale': expected one element, or"),
    "strided scales": (ValueError, {"v_scale": np.ones(4, np.float32)[::2]}, "'v_scale': expected one element, or a"),
    "a scale of 0": (ValueError, {"k_scale": 0.0}, "'k_scale': expected factors above 0, up to 1e30, got 0 for head 0"),
    "a negative scale": (ValueError, {"v_scale": -2}, "'v_scale': expected factors above 0, up to 1e30, got -2"),
    "a scale that is 0 in float32": (ValueError, {"v_scale": 1e-60}, "'v_scale': expected factors above 0"),
    "NaN": (ValueError, {"v_scale": np.array([1, np.nan], np.float32)}, "'v_scale': expected factors above 0.*head 1"),
    "infinity": (ValueError, {"k_scale": float("inf")}, "'k_scale': expected factors above 0, up to 1e30, got inf"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_scales_are_checked(case: str) -> None:
    kind, changed, said = REFUSED[case]
    cache = KVCache(**STORED | SCALES | changed)
    out = np.full((2, 3, 4, 20), 7, np.float32)
    with pytest.raises(kind, match=f"attention: argument {said}"):
        at.attention(Q, cache, out=out)
    assert (out == 7).all()
    if "dtypes" in case:
        return
    with pytest.raises(kind, match=f"append: argument {said}"):
        at.append(cache, K[:, :1], V[:, :1], np.zeros((2, 1), np.int32))
    assert cache.k.tobytes() == STORED["k"].tobytes()


def test_keys_in_8_bits_need_a_cache() -> None:
    with pytest.raises(TypeError, match="argument 'k': expected the dtype of 'q', float32, got float8_e4m3fn"):
        at.attention(Q, STORED["k"], STORED["v"])
    with pytest.raises(TypeError, match="argument 'q': expected dtype float32, bfloat16 or float16, got float8_e4m3fn"):
        at.attention(Q.astype(E4M3), KVCache(**STORED, **SCALES))


def test_results_are_apart_from_scales() -> None:
    out = np.zeros((2, 3, 4, 20), np.float32)
    cache = KVCache(**STORED, k_scale=out.reshape(-1)[:2], v_scale=1.0)
    with pytest.raises(ValueError, match="argument 'out': expected memory of its own, got that of 'k_scale'"):
        at.attention(Q, cache, out=out)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("stored", FLOAT8)
def test_append_rounds_to_nearest_and_saturates(stored: str, dtype: Any) -> None:
    """Every number of 16 bits, and random ones of 32."""
    of, rows = TYPES[stored], difficult_numbers(dtype).reshape(1, -1, 2, 64)
    factors = np.array([1.0, 0.3], np.float32)
    cache = KVCache(np.zeros(rows.shape, of), np.zeros(rows.shape, of), k_scale=factors, v_scale=4.0)
    at.append(cache, rows, rows, np.arange(rows.shape[1], dtype=np.int32)[None])
    for array, scale in ((cache.k, factors), (cache.v, 4.0)):
        expected = rounded(rows, scale, of)
        nan = np.isnan(expected.astype(np.float32))
        assert nan.any() and np.isnan(array.astype(np.float32)[nan]).all()
        assert array[~nan].tobytes() == expected[~nan].tobytes()


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("stored", FLOAT8)
def test_what_append_stores_attention_reads(stored: str, layout: str) -> None:
    table, size = np.array([[4, 1, 7], [5, 6, 0]], np.int32), 16
    shape = (8, size, 2) if layout == "NHD" else (8, 2, size)
    k, v = (np.full((*shape, dim), np.nan, TYPES[stored]) for dim in (32, 20))
    scales: dict[str, Any] = {"k_scale": np.array([0.3, 2.0], np.float32), "v_scale": 0.7}
    cache = KVCache(k, v, layout=layout, block_table=table, seqlens=KEYS, **scales)
    positions = np.tile(np.arange(37, dtype=np.int32), (2, 1))
    at.append(cache, K[:, :37], V[:, :37], positions)
    exact = []
    for array, scale in ((K, scales["k_scale"][:, None]), (V, np.float32(0.7))):
        exact.append((array / scale).astype(TYPES[stored]).astype(np.float64) * scale)
    out = at.attention(Q, cache, variant=at.Causal)
    for b, n in enumerate(KEYS):
        expected, _ = reference.attention(Q[b : b + 1], *(x[b : b + 1, :n] for x in exact), variant=at.Causal())
        assert np.allclose(out[b], expected[0], atol=1e-5)


def test_append_takes_rows_of_one_dtype() -> None:
    cache = KVCache(**{name: x.copy() for name, x in STORED.items()}, **SCALES)
    positions = np.zeros((2, 1), np.int32)
    with pytest.raises(TypeError, match="append: argument 'v': expected the dtype of 'k', float32, got float16"):
        at.append(cache, K[:, :1], V[:, :1].astype(np.float16), positions)
    with pytest.raises(TypeError, match="'k': expected dtype float32, bfloat16 or float16, got float8_e4m3fn"):
        at.append(cache, STORED["k"][:, :1].copy(), STORED["v"][:, :1].copy(), positions)
    factors = cache.k.reshape(-1)[:4].view(np.float32)
    with pytest.raises(ValueError, match=r"'cache\.k': expected memory of its own, got that of 'k_scale'"):
        at.append(replace(cache, k_scale=factors), K[:, :1], V[:, :1], positions)


HEAD, TAIL = slice(0, 30), slice(30, 50)


def halves_of(**changed: Any) -> list[Any]:
    return [KVCache(STORED["k"][:, part], STORED["v"][:, part], **SCALES | changed) for part in (HEAD, TAIL)]


def test_a_plan_serves_caches_in_8_bits_alone() -> None:
    cache = KVCache(**STORED, k_scale=0.5, v_scale=3.0)
    step = at.plan(Q, cache, variant=at.Causal)
    assert np.array_equal(at.run(step, Q, cache), at.attention(Q, cache, variant=at.Causal))
    with pytest.raises(ValueError, match="'plan': expected one made for keys in float8 False, got True"):
        at.run(step, Q, KVCache(K, V))
    with pytest.raises(ValueError, match="'plan': expected one made for keys in float8 True, got False"):
        at.run(at.plan(Q, KVCache(K, V), variant=at.Causal), Q, cache)


def test_parts_are_joined() -> None:
    scales = np.array([0.5, 2.0], np.float32)
    expected, expected_lse = at.attention(Q, KVCache(**STORED, k_scale=scales, v_scale=3.0), return_lse=True)
    states = [at.attention(Q, part, return_lse=True) for part in halves_of(k_scale=scales, v_scale=3.0)]
    out, lse = at.merge_states(*zip(*states, strict=True))
    assert np.allclose(out, expected, atol=1e-5) and np.allclose(lse, expected_lse, atol=1e-5)
    small = [part.astype(E4M3) for part, _ in states]
    with pytest.raises(TypeError, match="'outs': expected dtype float32, bfloat16 or float16, got float8_e4m3fn"):
        at.merge_states(small, [lse for _, lse in states])


def test_a_prefix_is_shared_beside_own_keys_of_another_dtype() -> None:
    """The prefix in 8 bits, the own keys, or both, each with scales of its own."""
    shared: list[Any] = [x[:1, HEAD] for x in STORED.values()]
    prefix = KVCache(*shared, k_scale=0.5, v_scale=3.0)
    exact_prefix = KVCache(*(x.astype(np.float32) * scale for x, scale in zip(shared, (0.5, 3.0), strict=True)))
    own = halves_of(k_scale=2.0)[1]
    exact_own = KVCache(own.k.astype(np.float32) * 2, own.v.astype(np.float32))
    expected = at.attend_shared(Q, exact_prefix, exact_own, variant=at.Causal)
    for first, second in ((prefix, own), (prefix, exact_own), (exact_prefix, own)):
        assert np.allclose(at.attend_shared(Q, first, second, variant=at.Causal), expected, atol=1e-5)
