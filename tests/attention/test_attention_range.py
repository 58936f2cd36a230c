"""Attention on the CPU with logits, scales and caps at the end of the range of float32, for every target level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import reference
from dimorph.toolchain import targets
from support.attention_range import VARIANTS, check

LEVELS = [level.name for level in targets.runnable()]


@pytest.mark.parametrize("queries", [8, 70])  # single rows, blocks of queries
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_up_to_the_largest_float(shared_store: Path, name: str, level: str, dtype: str, queries: int) -> None:
    config = replace(settings.current(), store=shared_store, target=level)
    check(at.Attention(policy="jit", settings=config), name, dtype, queries)


@pytest.mark.parametrize("queries", [8, 70])
def test_large_scales_leave_the_largest_logit(warm_store: Path, queries: int) -> None:
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((1, n, 2, 32), dtype=np.float32) for n in (queries, 70, 70))
    for scale in (1e6, 1e29, -1e29):
        expected = reference.attention(q, k, v, variant=at.Plain(), scale=scale)[0]
        np.testing.assert_allclose(at.attention(q, k, v, scale=scale), expected, atol=2e-6)


@pytest.mark.parametrize("scale", [1e31, -3e38, np.inf, -np.inf])
def test_a_scale_too_large_is_refused(warm_store: Path, scale: float) -> None:
    q = np.zeros((1, 8, 2, 32), np.float32)
    with pytest.raises(ValueError, match="argument 'scale': expected a number from -1e30 to 1e30, got"):
        at.attention(q, q, q, scale=scale)
