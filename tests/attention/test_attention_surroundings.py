"""The result of a sequence on the CPU does not depend on those beside it: it is the same to the bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import dimorph as dm
from dimorph import aot, settings
from dimorph import attention as at
from dimorph.attention.kernels import attention_cpu
from support.attention_forms import attention_in

# Queries and keys of sequences: single rows, some, blocks; keys of one share, of several, none.
MIXED = ((1, 200), (400, 400), (1, 2600), (33, 300), (32, 5300), (0, 9), (2, 0), (7, 1030))
PROMPTS_AMONG_DECODES = ((1, 700), (1, 3000), (40, 40), (1, 64), (50, 90), (1, 1))
DTYPES = [np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)]
SINKS = at.Sinks(np.array([0.5, 1.0, -1.0, 2.0], np.float32))


@pytest.fixture(scope="module", params=["jit", "aot"])
def attend(
    request: pytest.FixtureRequest, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> at.Attention:
    variants = [at.Causal, SINKS.variant, at.compose(at.Window(2100, 0), SINKS).variant]
    chosen = attention_cpu.instantiations(dtype=["float32", "bfloat16"], head_dims=(32, 32), variant=variants)
    return attention_in(request.param, shared_store, tmp_path_factory, [chosen])


def arrays(lengths: Sequence[tuple[int, int]], dtype: Any) -> list[tuple[Any, Any, Any]]:
    """Return q, k and v of each sequence."""
    rng = np.random.default_rng(0)
    return [
        tuple(rng.standard_normal((n, h, 32)).astype(dtype) for n, h in ((queries, 4), (keys, 2), (keys, 2)))  # type: ignore[misc]
        for queries, keys in lengths
    ]


def together(attend: at.Attention, sequences: Sequence[Any], variant: Any) -> list[tuple[bytes, bytes]]:
    """Return the bits of out and lse of each sequence, computed by one ragged call."""
    q, k, v = (np.concatenate(each) for each in zip(*sequences, strict=True))
    ends = [np.cumsum([0, *(len(each[i]) for each in sequences)], dtype=np.int32) for i in (0, 1)]
    out, lse = attend(q, k, v, variant=variant, cu_seqlens_q=ends[0], cu_seqlens_k=ends[1], return_lse=True)
    rows = [slice(*ends[0][b : b + 2]) for b in range(len(sequences))]
    return [(out[row].tobytes(), lse[row].tobytes()) for row in rows]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variant", [at.Causal(), SINKS], ids=["causal", "sinks"])
@pytest.mark.parametrize("lengths", [MIXED, PROMPTS_AMONG_DECODES], ids=["mixed", "prompts among decodes"])
def test_a_sequence_among_others(attend: at.Attention, lengths: Any, variant: Any, dtype: Any) -> None:
    sequences = arrays(lengths, dtype)
    found = together(attend, sequences, variant)
    for b, (q, k, v) in enumerate(sequences):
        alone = [x.tobytes() for x in attend(q[None], k[None], v[None], variant=variant, return_lse=True)]
        assert tuple(alone) == found[b], f"sequence {b}, {lengths[b]}"
    order = np.random.default_rng(1).permutation(len(lengths))
    assert together(attend, [sequences[b] for b in order], variant) == [found[b] for b in order]
    assert together(attend, sequences * 3, variant) == found * 3


def test_sums_are_folded_at_keys_of_the_sequence(attend: at.Attention) -> None:
    """Not after as many tiles as some block of a task needs: a larger batch has larger tasks, of 16 blocks, not 13."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((8, 2600, 1, 32), dtype=np.float32) for _ in range(3))
    variant = at.compose(at.Window(2100, 0), at.Sinks(np.array([0.5], np.float32)))
    many = attend(q, k, v, variant=variant)
    assert attend(q[:1], k[:1], v[:1], variant=variant).tobytes() == many[:1].tobytes()


# The pool of a process keeps its number of threads.
THREADS = """
import hashlib, numpy as np
from dimorph import attention as at
rng = np.random.default_rng(2)
for queries, keys in ((1, 9000), (3, 1030), (2600, 2600)):
    q, k, v = (rng.standard_normal((1, n, h, 32), dtype=np.float32) for n, h in ((queries, 2), (keys, 1), (keys, 1)))
    print(hashlib.sha256(at.attention(q, k, v, variant=at.Window(2100, 0)).tobytes()).hexdigest())
"""


def test_the_number_of_threads_changes_no_bit(warm_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bits(threads: int) -> bytes:
        monkeypatch.setenv("DIMORPH_NUM_THREADS", str(threads))
        return subprocess.run([sys.executable, "-c", THREADS], check=True, stdout=subprocess.PIPE).stdout

    alone = bits(1)
    assert bits(2) == alone and bits(7) == alone


@pytest.mark.parametrize("built", [False, True])  # few_queries
def test_nothing_is_written_if_a_kernel_is_missing(shared_store: Path, tmp_path: Path, built: bool) -> None:
    ahead = tmp_path / "ahead"
    config = replace(settings.current(), store=shared_store)
    chosen = attention_cpu.instantiations(dtype="float32", head_dims=(32, 32), few_queries=built, variant=at.Causal)
    aot.build(chosen, ahead, settings=config)
    attend = at.Attention(policy="aot", settings=replace(config, store=tmp_path / "own", shared_stores=(ahead,)))
    for lengths in (MIXED, PROMPTS_AMONG_DECODES):
        q, k, v = (np.concatenate(each) for each in zip(*arrays(lengths, np.float32), strict=True))
        cu_q, cu_k = (np.cumsum([0, *each], dtype=np.int32) for each in zip(*lengths, strict=True))
        out = np.full_like(q, 7)
        with pytest.raises(dm.MissingSpecialization, match=f"few_queries={str(not built).lower()}"):
            attend(q, k, v, variant=at.Causal, out=out, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k)
        assert (out == 7).all()
