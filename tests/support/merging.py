"""Random problems of `merge_states`, and its definition in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from support.attention_configs import DTYPES, Array

LEADS = ((), (7,), (2, 5), (3, 1, 2, 2, 2))
HEAD_DIMS = (128, 64, 20, 65, 1, 192)


@dataclass
class MergeProblem:
    """Arguments of `merge_states`, stacked; `listed`: to be given as sequences."""

    words: str
    outs: Array
    lses: Array
    listed: bool


def merge_problem(seed: int) -> MergeProblem:
    """Return a problem; the same each time. Parts without keys have outputs that must not count."""
    rng = np.random.default_rng([seed, 6])
    dtype, lead, dim = list(DTYPES)[seed % 3], LEADS[int(rng.integers(4))], int(rng.choice(HEAD_DIMS))
    heads, parts = int(rng.integers(1, 9)), int(rng.choice([1, 2, 3, 8, 64]))
    listed = bool(rng.random() < 0.6)
    shape = (parts, *lead, heads)
    spread = float(rng.choice([1, 20, 1e4]))
    lses = (rng.standard_normal(shape) * spread).astype(np.float32)
    lses[rng.random(shape) < rng.choice([0, 0.3, 0.9])] = -np.inf
    kind = str(rng.choice(["contiguous", "wider rows", "heads first"]))
    outs = rng.standard_normal((*shape, dim + 8 * (kind == "wider rows"))).astype(DTYPES[dtype])[..., :dim]
    outs[np.isneginf(lses)] = rng.choice([0, np.nan, np.inf])
    if spread == 1 and rng.random() < 0.3:  # no weight is 0, so that these count
        outs[(*(rng.integers(0, n) for n in shape), slice(None, 3))] = rng.choice([np.nan, np.inf, -np.inf])
    if kind == "heads first" and len(lead) == 1:
        outs, lses = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (outs, lses))
    if rng.random() < 0.2:  # makes its row NaN
        lses[tuple(rng.integers(0, n) for n in shape)] = np.nan
    return MergeProblem(f"seed {seed}: {dtype} {shape} x {dim}, {kind}, listed {listed}", outs, lses, listed)


def definition(outs: Array, lses: Array) -> tuple[Array, Array, Array]:
    """Return out and lse, and for each row of out the largest sum of finite absolute values, in float64."""
    wide, values = lses.astype(np.float64), np.where(np.isneginf(lses)[..., None], 0, outs.astype(np.float64))
    top = wide.max(0)
    safe = np.where(np.isneginf(top), 0, top)
    weights = np.exp(wide - safe)
    total = weights.sum(0)
    with np.errstate(divide="ignore"):
        lse = safe + np.log(total)
    shares = (weights / np.where(total == 0, 1, total))[..., None]
    sizes = np.where(np.isfinite(values), abs(values), 0)
    return (shares * values).sum(0), lse, (shares * sizes).sum(0).max(-1, keepdims=True)


def check(problem: MergeProblem, call: Callable[..., tuple[Array, Array]]) -> str:
    """Return what is wrong with `call(outs, lses)`, or an empty text."""
    outs, lses = problem.outs, problem.lses
    try:
        out, lse = call(*((list(outs), list(lses)) if problem.listed else (outs, lses)))
    except Exception as error:
        return f"{problem.words}: {type(error).__name__}: {error}"
    expected, expected_lse, scale = definition(outs, lses)
    eps = {4: 2.0**-24, 2: 2.0**-11}[out.dtype.itemsize] if out.dtype.kind == "f" else 2.0**-8
    # Weights are exact to a few units of float32; so is a log-sum-exp.
    bar = eps * abs(expected) + 3e-6 * scale + (2.0**-25 if out.dtype == np.float16 else 0)
    if not _within(out.astype(np.float64), expected, bar):
        with np.errstate(invalid="ignore"):
            error = np.nan_to_num(abs(out.astype(np.float64) - expected))
        return f"{problem.words}: out is off by {error.max():.3g}"
    if not _within(lse, expected_lse, 2e-6 + 1e-7 * abs(expected_lse)):
        return f"{problem.words}: lse {lse}, expected {expected_lse}"
    return ""


def _within(found: Any, expected: Array, bar: Array) -> bool:
    if found.shape != expected.shape or (np.isnan(found) != np.isnan(expected)).any():
        return False
    with np.errstate(invalid="ignore"):
        return bool(((abs(found - expected) <= bar) | (found == expected) | np.isnan(expected)).all())
