"""What is computed, as torch functions, and the judge: float64 on the same device. For one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

FLOAT32 = 2e-6  # what float32 sums have to keep, relative to a row's scale
SAMPLED_ROWS = 64
LOUD = 8.0  # a factor for queries: a soft cap hardly shows in the logits of normally distributed ones


@dataclass(frozen=True)
class Formula:
    """What becomes of the logits.

    Attributes:
        score: (logits, batch, head, query, key) -> logits, as for FlexAttention. Where there is no softmax it gives the
            weights, and gets logits that are not scaled. A query's index is its place among the keys.
        keep: (batch, head, query, key) -> whether the key counts.
        softmax: whether weights are normalised.
        flashinfer: the same in FlashInfer's own options; None: it has none for this.
    """

    score: Callable[..., Any] | None = None
    keep: Callable[..., Any] | None = None
    softmax: bool = True
    flashinfer: Mapping[str, Any] | None = field(default_factory=dict)


def _causal(b: Any, h: Any, i: Any, j: Any) -> Any:
    return j <= i


PLAIN = Formula()
CAUSAL = Formula(keep=_causal, flashinfer={"causal": True})


class WrongResult(Exception):
    """An output is further from the exact one than it may be."""


def check(formula: Formula, q: Any, k: Any, v: Any, out: Any, slack: float = 1.0) -> None:
    """Raises WrongResult unless every sequence of a batch is within `slack` times what `judge` allows."""
    for b in range(len(q)):
        error, bar = judge(formula, q[b], k[b], v[b], out[b])
        if not error <= slack * bar:  # so that NaN fails too
            raise WrongResult(f"sequence {b} is off by {error:.3g} of its row's scale, allowed is {slack * bar:.3g}")


def judge(formula: Formula, q: Any, k: Any, v: Any, out: Any) -> tuple[float, float]:
    """The largest error of an element relative to its row's scale, and what is allowed, as in the project's tests.

    A row's scale is the largest sum of |weight * value|. Allowed is twice the error of the textbook's three steps with
    weights and output rounded to bfloat16, and the rounding of the output. Of long sequences some rows are taken.
    """
    rows = torch.arange(len(q), device=q.device)
    if len(q) > 512:
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(len(q) - 2, generator=generator)[:SAMPLED_ROWS] + 1
        rows = torch.cat([torch.tensor([0, len(q) - 1]), sample]).to(q.device)
    exact = weights(formula, q, k, rows, torch.float64)
    values = _by_head(v, q.shape[1]).double()
    expected, scale = exact @ values, (exact @ values.abs()).amax(-1, keepdim=True)
    rounded = weights(formula, q, k, rows, torch.float32).bfloat16().float()
    naive = (rounded @ values.float()).bfloat16()
    eps = torch.finfo(torch.bfloat16).eps
    rounding = float((expected.abs() * eps / 2 / scale).max())
    bar = 2 * _error(naive, expected, scale) + rounding + FLOAT32
    return _error(out[rows].transpose(0, 1), expected, scale), bar


def weights(formula: Formula, q: Any, k: Any, rows: Any, dtype: torch.dtype) -> Any:
    """Of some rows, [heads, rows, keys]. Masks are aligned bottom-right."""
    queries, heads, dim = q.shape
    logits = q[rows].transpose(0, 1).to(dtype) @ _by_head(k, heads).to(dtype).transpose(1, 2)
    if formula.softmax:
        logits = logits * dim**-0.5
    h, j = torch.arange(heads, device=q.device)[:, None, None], torch.arange(len(k), device=q.device)
    i = rows[:, None] + len(k) - queries
    if formula.score:
        logits = formula.score(logits, 0, h, i, j)
    if formula.keep:
        logits = logits.masked_fill(~formula.keep(0, h, i, j), -torch.inf if formula.softmax else 0.0)
    return logits.softmax(-1) if formula.softmax else logits


def _by_head(x: Any, heads: int) -> Any:
    """[keys, kv_heads, dim] as [heads, keys, dim]."""
    return x.transpose(0, 1).repeat_interleave(heads // x.shape[1], 0)


def _error(out: Any, expected: Any, scale: Any) -> float:
    return float(((out.double() - expected).abs() / scale).max())
