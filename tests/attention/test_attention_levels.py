"""Attention built for several target levels side by side: the best that the machine runs serves, and each is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dimorph import aot, settings
from dimorph import attention as at
from dimorph.attention import reference
from dimorph.attention.kernels import attention_cpu
from dimorph.toolchain import targets

LEVELS = [level.name for level in targets.runnable()]  # best first


@pytest.fixture(scope="module", params=["float32", "bfloat16", "float16"])
def built(
    request: pytest.FixtureRequest, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Plain attention of one dtype, for single rows and blocks of queries, for every level."""
    ahead = tmp_path_factory.mktemp("levels")
    config = replace(settings.current(), store=shared_store)
    chosen = attention_cpu.instantiations(dtype=request.param, head_dims=(48, 80), variant=at.Plain)
    aot.build(chosen, ahead, targets=LEVELS, settings=config)
    return request.param, ahead


@pytest.mark.parametrize("level", [None, *LEVELS])
def test_level(built: tuple[str, Path], level: str | None, tmp_path: Path) -> None:
    """None: whatever the machine runs, the best first; a name: as on a machine that runs no better one."""
    dtype, ahead = built
    config = replace(settings.current(), store=tmp_path, shared_stores=(ahead,), target=level)
    attend = at.Attention(policy="aot", settings=config)
    rng = np.random.default_rng(0)
    for queries in (3, 75):
        q, k, v = (
            rng.standard_normal((2, rows, heads, dim)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            for rows, heads, dim in ((queries, 4, 48), (139, 2, 48), (139, 2, 80))
        )
        expected = reference.attention(*(x.astype(np.float32) for x in (q, k, v)), variant=at.Plain())[0]
        out = attend(q, k, v).astype(np.float64)
        bound = 2e-6 if dtype == "float32" else 2 * float(ml_dtypes.finfo(q.dtype).eps)
        assert np.abs(out - expected).max() <= bound * np.abs(expected).max()
    served: list[Any] = [line.artifact.meta.target for line in attend.resolutions() if line.unit.kind == "case"]
    assert served == [level or LEVELS[0]] * 2
