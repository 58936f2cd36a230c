"""Check results of attention against float64 on the same GPU, for formulas that are given as torch functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

FLOAT32 = 2e-6  # the error allowed for sums in float32, relative to a row's scale
SAMPLED_ROWS = 64
LOUD = 8.0  # a factor for queries; without it logits are so small that a wrong soft cap would go unnoticed


@dataclass(frozen=True)
class Formula:
    """The way from logits to weights.

    Attributes:
        score: (logits, batch, head, query, key) -> logits, as for FlexAttention. Without softmax it gets unscaled
            logits and returns the weights. The index of a query is its position among the keys.
        keep: (batch, head, query, key) -> True if the query attends to the key.
        softmax: True if the weights are normalised.
        sinks: [heads], the logit of one more term of each row's softmax, which has no value; None: there is none.
        flashinfer: the same formula as options of FlashInfer; None: FlashInfer has no option for it.
    """

    score: Callable[..., Any] | None = None
    keep: Callable[..., Any] | None = None
    softmax: bool = True
    sinks: Any = None
    flashinfer: Mapping[str, Any] | None = field(default_factory=dict)


def _causal(b: Any, h: Any, i: Any, j: Any) -> Any:
    return j <= i


PLAIN = Formula()
CAUSAL = Formula(keep=_causal, flashinfer={"causal": True})


class WrongResult(Exception):
    """An output whose error is larger than allowed."""


def check(formula: Formula, q: Any, k: Any, v: Any, out: Any, slack: float = 1.0) -> None:
    """Raise WrongResult unless the error of every sequence of a batch is at most `slack` times what `judge` allows."""
    for b in range(len(q)):
        error, bar = judge(formula, q[b], k[b], v[b], out[b])
        if not error <= slack * bar:  # so that NaN fails too
            raise WrongResult(f"sequence {b} is off by {error:.3g} of its row's scale, allowed is {slack * bar:.3g}")


def judge(formula: Formula, q: Any, k: Any, v: Any, out: Any) -> tuple[float, float]:
    """Return the largest error of an element of one sequence, and the error that is allowed, as in the project's tests.

    Both are relative to the scale of a row, its largest sum of |weight * value|. Allowed is twice the error of the
    plain computation with weights and output rounded to bfloat16, plus the rounding of the output. Of sequences longer
    than 512 a sample of rows is checked.
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
    """Return the attention weights of some rows, [heads, rows, keys]. Masks are aligned bottom-right."""
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
    if formula.sinks is not None:
        sinks = formula.sinks.to(dtype)[:, None, None].expand(-1, len(rows), 1)
        return torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]
    return logits.softmax(-1) if formula.softmax else logits


def _by_head(x: Any, heads: int) -> Any:
    """Return [keys, kv_heads, dim] as [heads, keys, dim], each key head repeated for its query heads."""
    return x.transpose(0, 1).repeat_interleave(heads // x.shape[1], 0)


def _error(out: Any, expected: Any, scale: Any) -> float:
    return float(((out.double() - expected).abs() / scale).max())
