"""Inputs of attention as torch tensors, a user's variant, and the comparison with torch's own attention."""

from __future__ import annotations

import torch
from torch import Tensor

import dimorph as dm
from support.paths import EXAMPLES

Decay = dm.Variant(
    "Decay",
    header="decay.h",
    params=(dm.scalar("rate"),),
    root=EXAMPLES / "variant",
)
SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625])
CU_Q, CU_K = torch.tensor([0, 30, 30, 70], dtype=torch.int32), torch.tensor([0, 40, 45, 90], dtype=torch.int32)


def inputs(queries: int = 70, keys: int = 90, heads: tuple[int, int] = (4, 4), dim: int = 32) -> list[Tensor]:
    """query, key, value, [batch, heads, seq, head_dim]."""
    shapes = [(2, heads[0], queries, dim), (2, heads[1], keys, dim), (2, heads[1], keys, dim)]
    return [torch.randn(shape) for shape in shapes]


def rows(queries: int = 70, keys: int = 90) -> list[Tensor]:
    """q, k, v, [batch, seq, heads, head_dim]."""
    return [x.transpose(1, 2) for x in inputs(queries, keys)]


def close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error, scale = (actual - expected).abs().max(), expected.abs().max().clamp(min=1.0)
    assert error <= 4e-6 * scale, f"error {error:.3g} at scale {scale:.3g}"
