"""Random problems of `attend_blocks`, and their results by the definition of attention with dense masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.attention_configs import DTYPES, Array

# Kernels that support/paged.py has, too.
KERNELS = (("float32", 32, "Sinks"), ("bfloat16", 64, "Plain"), ("float32", 32, "SoftCap"))
# The largest error, relative to the largest output.
BAR = {"float32": 3e-6, "bfloat16": 1e-2}


@dataclass
class BlockProblem:
    """A call of `attend_blocks`.

    Attributes:
        words: what it is, for messages.
        q, k, v, indptr, indices, block_size, bound: the arguments.
    """

    words: str
    q: Array
    k: Array
    v: Array
    indptr: Array
    indices: Array
    block_size: tuple[int, int]
    bound: dm.BoundVariant

    def mask(self) -> Array:
        """Return which queries see which keys, [queries, keys]."""
        rows, columns = self.block_size
        blocks = np.zeros((len(self.q) // rows, len(self.k) // columns), bool)
        for i, (start, end) in enumerate(zip(self.indptr[:-1], self.indptr[1:], strict=True)):
            blocks[i, self.indices[start:end]] = True
        return blocks.repeat(rows, 0).repeat(columns, 1)


def block_problem(seed: int) -> BlockProblem:
    """Return a problem; the same each time. Where `seed % 3` is 1, it is one for GPUs, too."""
    rng = np.random.default_rng([seed, 11])
    dtype, dim, name = KERNELS[seed % len(KERNELS)]
    rows, columns = int(rng.choice([1, 2, 16, 40])), int(rng.choice([1, 3, 16, 64]))
    counts = int(rng.integers(0, 1 + 160 // rows)), int(rng.integers(1, 1 + 400 // columns))
    kv_heads, group = int(rng.integers(1, 3)), int(rng.choice([1, 2, 4]))
    seen = [rng.permutation(counts[1])[: rng.integers(0, counts[1] + 1)] for _ in range(counts[0])]

    def new(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(DTYPES[dtype])

    sinks = rng.standard_normal(group * kv_heads).astype(np.float32)
    made = {
        "Plain": at.Plain(),
        "SoftCap": at.SoftCap(3.0),
        "Sinks": at.Sinks(sinks),
    }
    return BlockProblem(
        f"seed {seed}: {dtype} {name}, {counts} blocks of {rows} x {columns}, heads {group} x {kv_heads}",
        new(counts[0] * rows, group * kv_heads, dim),
        new(counts[1] * columns, kv_heads, dim),
        new(counts[1] * columns, kv_heads, dim),
        np.cumsum([0, *map(len, seen)], dtype=np.int32),
        np.concatenate([np.empty(0, np.int32), *seen]).astype(np.int32),
        (rows, columns),
        made[name],
    )


def check(problem: BlockProblem, attend: Any) -> str:
    """Compute a problem by `attend`, which returns out and lse; return what is wrong, or an empty text."""
    try:
        out, lse = attend(problem)
    except Exception as error:
        return f"{problem.words}: {type(error).__name__}: {error}"
    parts = [] if problem.bound.variant is at.Plain else [problem.bound]
    bound = at.compose(at.CustomMask(problem.mask()[None], None), *parts)
    arrays = (x.astype(np.float64)[None] for x in (problem.q, problem.k, problem.v))
    expected, expected_lse = (x[0] for x in reference.attention(*arrays, variant=bound))
    error = abs(out.astype(np.float64) - expected).max(initial=0)
    if out.shape != expected.shape or error > BAR[problem.q.dtype.name] * max(1.0, abs(expected).max(initial=0)):
        return f"{problem.words}: {out.shape}, off by {error:.3g}"
    if not np.allclose(lse, expected_lse, rtol=1e-6, atol=2e-5, equal_nan=True):
        return f"{problem.words}: lse {lse}, expected {expected_lse}"
    return ""
