"""`batch_invariant=True` on the CPU: a row's bits do not depend on what is computed beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.attention import reference, select
from dimorph.attention.kernels import paged_cpu
from support.emulated import altered
from support.invariance import Sequences, same_bits
from support.programs import run

pytestmark = pytest.mark.usefixtures("warm_store")

CASES = [
    ("causal", "float32", 64),
    ("causal", "bfloat16", 128),
    ("window and soft cap", "float32", 128),
    ("sinks", "bfloat16", 64),
    ("alibi", "float16", 128),
    ("sigmoid", "float32", 64),
]
LENGTHS = [1100, 300, 130, 33]
PAGES = 16, 1, 7, 64


@pytest.mark.parametrize(("variant", "dtype", "head_dim"), CASES)
def test_bits_do_not_depend_on_the_batch(attend: at.Attention, variant: str, dtype: str, head_dim: int) -> None:
    sequences, invariant = Sequences(LENGTHS, head_dim, dtype, variant), partial(attend, batch_invariant=True)
    alone = sequences.alone(invariant)
    assert not sequences.differences(invariant, alone, PAGES)


def test_neither_over_keys_in_8_bits(attend: at.Attention) -> None:
    sequences, invariant = (
        Sequences(LENGTHS, 64, "bfloat16", "causal", float8=True),
        partial(attend, batch_invariant=True),
    )
    assert not sequences.differences(invariant, sequences.alone(invariant), PAGES)


def test_without_the_option_they_do(attend: at.Attention) -> None:
    """The comparison can fail."""
    sequences = Sequences(LENGTHS, 64, "float32", "causal")
    assert sequences.differences(attend, sequences.alone(attend), PAGES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BATCH_INVARIANT ? kMinShareKeys", "BATCH_INVARIANT ? round_up(kv_len / 4 + 1, TILE_KEYS)"),
        ("return BATCH_INVARIANT || dimorph", "return dimorph"),
        ("counted = FloatV(RawFloat(", "counted = FloatV(1.0000002f) * FloatV(RawFloat("),
    ],
    ids=["shares by length", "few queries only", "care that rounds"],
)
def test_a_planted_fault_is_noticed(
    attend: at.Attention, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    monkeypatch.setattr(select, "paged_cpu", altered(tmp_path, paged_cpu, "cpu/few_queries.h", old, new))
    other = at.Attention(policy="jit", settings=attend._functions._settings)
    sequences, invariant = Sequences(LENGTHS, 64, "float32", "causal"), partial(other, batch_invariant=True)
    assert sequences.differences(invariant, sequences.alone(invariant), PAGES)


def test_numbers_of_threads_give_the_same_bits(attend: at.Attention, shared_store: Path) -> None:
    program = "import runpy; runpy.run_module('support.invariance', run_name='__main__')"
    digests = {run(program, DIMORPH_NUM_THREADS=n, DIMORPH_STORE=str(shared_store)) for n in ("1", "2", "4")}
    assert len(digests) == 1


def test_a_plan_and_arrays_without_a_cache_have_the_option_too() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 600, heads, 64), dtype=np.float32) for heads in (4, 2, 2))
    dense = at.attention(q, k, v, variant=at.Causal, batch_invariant=True)
    expected = reference.attention(q, *(x.repeat(2, axis=2) for x in (k, v)), variant=at.Causal())[0]
    assert np.abs(dense - expected).max() < 4e-6
    lengths, pages = np.array([600, 311], np.int32), np.arange(40, dtype=np.int32).reshape(2, 20)
    pools = [np.zeros((40, 32, 2, 64), np.float32) for _ in "kv"]
    for pool, x in zip(pools, (k, v), strict=True):
        for b in range(2):
            pool.reshape(2, 640, 2, 64)[b, : lengths[b]] = x[b, : lengths[b]]
    cache = at.KVCache(pools[0], pools[1], block_table=pages, seqlens=lengths)
    tokens = np.stack([q[b, lengths[b] - 1 :][:1] for b in range(2)])
    plan = at.plan(tokens, cache, variant=at.Causal, batch_invariant=True)
    assert plan.batch_invariant
    for out in (at.run(plan, tokens, cache), at.attention(tokens, cache, variant=at.Causal, batch_invariant=True)):
        assert all(same_bits(out[b, 0], dense[b, lengths[b] - 1]) for b in range(2))
