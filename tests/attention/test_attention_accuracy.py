"""Accuracy where it is hard: at most twice the error of the naive computation in the same storage type."""

from __future__ import annotations

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from support.attention_check import FLOAT32, LSE, allowed, error, exact, naive
from support.attention_configs import DTYPES


def judge(attend: at.Attention, q: np.ndarray, k: np.ndarray, v: np.ndarray, variant: dm.BoundVariant) -> None:
    expected, _, scale = exact(q, k, v, variant, None)
    found = error(attend(q, k, v, variant=variant), expected, scale)
    bar = allowed(naive(q, k, v, variant, None), expected, scale)
    print(f"error {found:.3g}, allowed {bar:.3g}")
    assert found <= bar


@pytest.mark.parametrize("where", ["q", "k", "v", "qkv"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_outliers_of_100_sigma(attend: at.Attention, dtype: str, where: str) -> None:
    rng = np.random.default_rng(1)
    inputs = {}
    # Many rows: which few of them lose most is luck, on either side.
    for name, rows in (("q", 200), ("k", 700), ("v", 700)):
        values = rng.standard_normal((1, rows, 12, 64), dtype=np.float32)
        if name in where:
            values[rng.random(values.shape) < 1e-3] *= 100
        inputs[name] = values.astype(DTYPES[dtype])
    judge(attend, *inputs.values(), at.Causal())


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_at_the_bias_that_its_paper_advises(attend: at.Attention, dtype: str) -> None:
    """-ln of the number of keys: weights near 6e-5, which a half-precision sigmoid would get wrong."""
    rng = np.random.default_rng(2)
    keys = 16384
    q = rng.standard_normal((1, 60, 1, 64), dtype=np.float32).astype(DTYPES[dtype])
    k, v = (rng.standard_normal((1, keys, 1, 64), dtype=np.float32).astype(DTYPES[dtype]) for _ in range(2))
    judge(attend, q, k, v, at.FlashSigmoid(0.125, -float(np.log(keys))))


@pytest.mark.parametrize("queries", [3, 60])  # single rows with split keys, blocks of queries
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hundred_thousand_keys(attend: at.Attention, dtype: str, queries: int) -> None:
    rng = np.random.default_rng(3)
    shapes = [(1, queries, 1, 64), (1, 100_003, 1, 64), (1, 100_003, 1, 64)]
    q, k, v = (rng.standard_normal(shape, dtype=np.float32).astype(DTYPES[dtype]) for shape in shapes)
    expected, lse, scale = exact(q, k, v, at.Causal(), None)
    out, found = attend(q, k, v, variant=at.Causal, return_lse=True)
    bar = FLOAT32 if dtype == "float32" else allowed(naive(q, k, v, at.Causal(), None), expected, scale)
    assert error(out, expected, scale) <= bar
    assert np.abs(found - lse).max() <= LSE * np.abs(lse).max()


@pytest.mark.parametrize("queries", [3, 60])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1e3, 1e9, 1e17])
def test_extreme_logits(attend: at.Attention, dtype: str, queries: int, size: float) -> None:
    """Logits up to 1e35: all weight is on one key, whose value comes out as it is."""
    rng = np.random.default_rng(4)
    q, k, v = (
        (rng.standard_normal((1, rows, 1, 64), dtype=np.float32) * factor).astype(DTYPES[dtype])
        for rows, factor in ((queries, size), (200, size), (200, 1.0))
    )
    logits = q[0, :, 0].astype(np.float64) @ k[0, :, 0].astype(np.float64).T
    assert np.diff(np.sort(logits, 1)[:, -2:], axis=1).min() > 800, "no key stands out"
    out, lse = attend(q, k, v, return_lse=True)
    assert np.array_equal(out[0, :, 0], v[0, logits.argmax(1), 0])
    np.testing.assert_allclose(lse[0, :, 0], logits.max(1) / 8, rtol=1e-6)
