"""The sm80 family's kernels over keys in pages, on the emulator (support/emulated.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimorph import attention as at
from dimorph.attention import cached
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Specialization
from support.emulated import EmulatedCache, Emulator, OnGpu, altered, missing
from support.paged import failures, paged_config, small

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

CASES = [
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_80"),
    (Specialization("float16", (80, 48), ("Causal",)), "sm_90"),
    (Specialization("bfloat16", (32, 32), ("DocumentMask", "Sinks")), "sm_80"),
]
CAUSAL = Specialization("float16", (80, 48), ("Causal",))
FAULTS = {
    "rows of the next page": ("gpu/work_tile.h", "(key - page * p.table.page_size)", "key"),
    "the page before": (
        "gpu/work_tile.h",
        "pages[page] * strides.batch",
        "pages[page > 0 ? page - 1 : 0] * strides.batch",
    ),
    "one stage for two tiles": ("sm80/load.h", "stages + stage * (kTileKeys * Chunk::kPitch), valid", "stages, valid"),
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator.build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(autouse=True)
def gpus(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(("specialization", "arch"), CASES, ids=str)
def test_random_problems(
    emulator: Emulator, shared_store: Path, specialization: Specialization, arch: str, split: bool
) -> None:
    configs = [small(paged_config(seed, (specialization,))) for seed in range(2000 + split * 30, 2030 + split * 30)]
    failed = failures(EmulatedCache(emulator, arch, shared_store, split=split), configs)
    assert not failed, f"{len(failed)} failed:\n" + "\n".join(failed)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    family = GPU_FAMILIES["sm80"]
    assert family.paged
    monkeypatch.setitem(GPU_FAMILIES, "sm80", family._replace(paged=altered(tmp_path, family.paged, *FAULTS[fault])))
    configs = [small(paged_config(seed, (CAUSAL,))) for seed in range(2000, 2030)]
    assert failures(EmulatedCache(emulator, "sm_90", shared_store), configs)


@pytest.mark.parametrize(("longest", "keys", "split"), [(None, 800, True), (100, 100, False), (9999, 800, True)])
def test_the_longest_of_sequences_by_indptr_is_given(
    emulator: Emulator, shared_store: Path, monkeypatch: pytest.MonkeyPatch, longest: int | None, keys: int, split: bool
) -> None:
    """Keys are split by the length of the longest sequence, not by that of all of them."""
    rng = np.random.default_rng(0)
    emulated, workspace, asked = EmulatedCache(emulator, "sm_80", shared_store), np.full(20000, np.nan, np.float32), []

    def give(*args: object) -> OnGpu:
        asked.append(args[-1])
        return OnGpu(workspace, 0)

    monkeypatch.setattr(cached, "new_workspace", give)
    q, pool = (rng.standard_normal((n, size, 1, 32)).astype(np.float16) for n, size in ((8, 1), (40, 20)))
    tables = {"indptr": np.arange(0, 41, 5), "indices": rng.permutation(40), "last_page_len": np.full(8, 20)}
    tables = {name: x.astype(np.int32) for name, x in tables.items()}
    out = np.zeros_like(q)
    cache = at.KVCache(OnGpu(pool, 0), OnGpu(pool, 0), **{name: OnGpu(x, 0) for name, x in tables.items()})
    emulated.attend(OnGpu(q, 0), cache, out=OnGpu(out, 0), max_seqlen_k=longest)
    assert asked == [keys]
    assert np.isnan(workspace).all() == (not split)
    assert np.allclose(out, at.attention(q, at.KVCache(pool, pool, **tables)), atol=4e-3)
    with pytest.raises(ValueError, match="argument 'max_seqlen_k': expected the length of a sequence, got -1"):
        emulated.attend(OnGpu(q, 0), cache, out=OnGpu(out, 0), max_seqlen_k=-1)


def test_the_sm90_family_is_passed_over(emulator: Emulator, shared_store: Path) -> None:
    pool, table = np.zeros((2, 16, 1, 32), np.float16), np.zeros((1, 1), np.int32)
    cache = at.KVCache(OnGpu(pool, 1), OnGpu(pool, 1), block_table=OnGpu(table, 1), seqlens=OnGpu(table[0], 1))
    q = OnGpu(np.zeros((1, 1, 1, 32), np.float16), 1)
    with pytest.raises(ValueError, match=r"argument 'k': expected keys that do not lie in pages.*'sm90'"):
        at.Attention(family="sm90")(q, cache, out=q)
    emulated = EmulatedCache(emulator, "sm_90", shared_store)
    settings = emulated.attend._functions._settings
    attend = at.Attention(policy="jit", settings=settings)
    out, workspace = OnGpu(np.full((1, 1, 1, 32), np.nan, np.float16), 1), OnGpu(np.zeros(1, np.float32), 1)
    attend(q, replace(cache, seqlens=OnGpu(np.zeros(1, np.int32), 1)), out=out, workspace=workspace)
    assert (out.array == 0).all()
    assert {line.artifact.meta.kernel for line in attend.resolutions()} >= {"attention_paged_sm80"}
