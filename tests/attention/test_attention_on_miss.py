"""Attention under `DIMORPH_ON_MISS=serve`: a kernel for blocks of queries serves until that for few is built."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import reference
from dimorph.attention.kernels import attention_cpu
from support.waiting import builds, until


def test_blocks_of_queries_serve_until_the_kernel_for_few_is_built(store: Path) -> None:
    config = replace(settings.current(), on_miss="serve")
    values = {"dtype": "float32", "head_dims": (32, 32), "variant": at.Causal, "kv_dtype": "as_q"}
    attention_cpu.load(settings=config, **values, few_queries=False)
    attend = at.Attention(settings=config)
    rng = np.random.default_rng(0)
    offsets = np.array([0, 1, 41, 44, 44, 76, 109], np.int32)  # sequences of few queries and of many
    q, k, v = (rng.standard_normal((offsets[-1], 2, 32)).astype(np.float32) for _ in range(3))
    parts = [slice(first, last) for first, last in pairwise(offsets)]
    expected = np.concatenate(
        [reference.attention(*(x[None, rows] for x in (q, k, v)), variant=at.Causal())[0][0] for rows in parts]
    )

    def error() -> float:
        out = attend(q, k, v, variant=at.Causal, cu_seqlens_q=offsets, cu_seqlens_k=offsets)
        return float(np.abs(out - expected).max())

    def cases() -> set[str]:
        return {one.unit.values["few_queries"] for one in attend.resolutions() if one.unit.kind == "case"}

    assert error() < 1e-5
    assert cases() == {"false"}
    until(lambda: not builds())
    assert cases() == {"false", "true"}
    assert error() < 1e-5
