"""Logits at the end of the range of float32, where times log2(e) they would be infinite, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.attention_configs import DECAY, DTYPES, RULES

LOWEST = float(np.finfo(np.float32).min)
KEYS = 70  # more than a tile of few queries
HEADS = 2


def _biases(queries: int) -> dm.BoundVariant:
    """Rows whose keys are all far below 0: at the lowest float, elsewhere, at several places, and truly masked."""
    bias = np.zeros((1, 1, queries, KEYS), np.float32)
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


# Each takes the number of queries.
VARIANTS: dict[str, Callable[[int], dm.BoundVariant]] = {
    "bias": _biases,
    # The last queries see distant keys only.
    "slopes": lambda queries: at.compose(_first_keys(), at.ALiBi(np.array([4e36, 4.5e36], np.float32))),
    "own": lambda queries: at.compose(_first_keys(), DECAY(4e36)),
    "bias and sinks": lambda queries: at.compose(_biases(queries), at.Sinks(np.array([LOWEST, 0.0], np.float32))),
    "large cap": lambda queries: at.SoftCap(3e38),
    "small cap": lambda queries: at.SoftCap(1e-30),
    "smallest cap": lambda queries: at.SoftCap(1.2e-38),
}


def check(attend: Callable[..., Any], name: str, dtype: str, queries: int) -> None:
    """Compare output and log-sum-exp of one of `VARIANTS` with the definition."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, n, HEADS, 32)).astype(DTYPES[dtype]) for n in (queries, KEYS, KEYS))
    if "cap" in name:
        q[0, 0] = 0
    bound = VARIANTS[name](queries)
    expected, expected_lse = reference.attention(q, k, v, variant=bound, rules=RULES)
    out, lse = attend(q, k, v, variant=bound, return_lse=True)
    allowed = 4e-6 if dtype == "float32" else 2 * float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    np.testing.assert_allclose(out.astype(np.float64), expected, atol=allowed, rtol=allowed)
    np.testing.assert_allclose(lse, expected_lse.astype(np.float32), atol=4e-6, rtol=4e-6)
