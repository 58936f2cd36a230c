"""Logits at the end of the range of float32, where times log2(e) they would be infinite, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.attention_configs import DTYPES
from support.attention_parts import DECAY, RULES

LOWEST = float(np.finfo(np.float32).min)
KEYS = 70  # more than a tile of few queries
MANY_KEYS = 700  # enough that GPUs split them among thread blocks
HEADS = 2


def _biases(queries: int, keys: int) -> dm.BoundVariant:
    """Rows whose keys are all far below 0: at the lowest float, elsewhere, at several places, and truly masked."""
    bias = np.zeros((1, 1, queries, keys), np.float32)
    rows = bias[0, 0]
    rows[0] = LOWEST
    rows[1] = float(ml_dtypes.finfo(ml_dtypes.bfloat16).min)
    rows[2] = 0.7 * LOWEST
    rows[3], rows[3, ::3] = LOWEST, 0.9 * LOWEST
    rows[4], rows[4, :5] = -np.inf, LOWEST
    rows[5] = -np.inf
    rows[6], rows[6, 9] = LOWEST, -LOWEST
    return at.additive_bias(bias)


def _first_keys() -> dm.BoundVariant:
    return at.KeyPadding(np.array([5], np.int32))


# Each takes the numbers of queries and keys.
VARIANTS: dict[str, Callable[[int, int], dm.BoundVariant]] = {
    "bias": _biases,
    # The last queries see distant keys only.
    "slopes": lambda queries, keys: at.compose(_first_keys(), at.ALiBi(np.array([2.8e38, 3.1e38], np.float32) / keys)),
    "own": lambda queries, keys: at.compose(_first_keys(), DECAY(2.8e38 / keys)),
    "bias and sinks": lambda queries, keys: at.compose(
        _biases(queries, keys), at.Sinks(np.array([LOWEST, 0.0], np.float32))
    ),
    "largest cap": lambda queries, keys: at.SoftCap(3e38),
    "large cap": lambda queries, keys: at.SoftCap(1e5),
    "small cap": lambda queries, keys: at.SoftCap(1e-30),
    "smallest cap": lambda queries, keys: at.SoftCap(1.2e-38),
}


def check(attend: Callable[..., Any], name: str, dtype: str, queries: int, keys: int = KEYS) -> None:
    """Compare output and log-sum-exp of one of `VARIANTS` with the definition."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, n, HEADS, 32)).astype(DTYPES[dtype]) for n in (queries, keys, keys))
    if "cap" in name:
        q[0, 0] = 0
    bound = VARIANTS[name](queries, keys)
    expected, expected_lse = reference.attention(q, k, v, variant=bound, rules=RULES)
    out, lse = attend(q, k, v, variant=bound, return_lse=True)
    allowed = 4e-6 if dtype == "float32" else 2 * float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    np.testing.assert_allclose(out.astype(np.float64), expected, atol=allowed, rtol=allowed)
    np.testing.assert_allclose(lse, expected_lse.astype(np.float32), atol=4e-6, rtol=4e-6)
