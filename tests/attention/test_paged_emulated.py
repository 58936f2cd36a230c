"""GPU kernels over keys in pages, on the emulator (support/emulated.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimorph import aot
from dimorph import attention as at
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.attention.variants.compose import composition
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Specialization
from support.emulated import EmulatedCache, Emulator, OnGpu, altered, missing
from support.every_hook import CACHES, EVERY_HOOK, QUERIES, check
from support.paged import GPU_SPECIALIZATIONS, failures, paged_config, small

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

CASES = [
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_80"),
    (Specialization("float16", (80, 48), ("Causal",)), "sm_90"),
    (Specialization("bfloat16", (32, 32), ("DocumentMask", "Sinks")), "sm_80"),
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_90a"),
    (Specialization("float16", (80, 48), ("Causal",)), "sm_90a"),
    (Specialization("bfloat16", (128, 128), ("Causal", "Window", "SoftCap")), "sm_90a"),
    (Specialization("bfloat16", (32, 32), ("DocumentMask", "Sinks")), "sm_90a"),
    (Specialization("bfloat16", (64, 32), ("ChunkedCausal", "SoftCap")), "sm_80"),
    (Specialization("bfloat16", (32, 64), ("TreeMask",)), "sm_80"),
    (Specialization("bfloat16", (192, 128), ("Causal",)), "sm_80"),
    (Specialization("float16", (64, 64), ("SequenceTemperature", "Causal")), "sm_80"),
]
CAUSAL = Specialization("float16", (80, 48), ("Causal",))
FAULTS = {
    "rows of the next page": ("gpu/work_tile.h", "key - page * p.table.page_size", "key"),
    "the page before": (
        "gpu/work_tile.h",
        "{pages[page], key",
        "{pages[page > 0 ? page - 1 : 0], key",
    ),
    "one stage for two tiles": ("sm80/load.h", "stages + stage * (kTileKeys * Chunk::kPitch), valid", "stages, valid"),
}


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


@pytest.mark.parametrize("variant", sorted({one.variant for one in GPU_SPECIALIZATIONS}), ids="+".join)
def test_every_variant(emulator: Emulator, shared_store: Path, variant: tuple[str, ...]) -> None:
    known = (Specialization("float16", (32, 32), variant),)
    for split in (True, False):
        configs = [small(paged_config(seed, known)) for seed in range(2100 + split * 6, 2106 + split * 6)]
        failed = failures(EmulatedCache(emulator, "sm_80", shared_store, split=split), configs)
        assert not failed, f"{len(failed)} failed:\n" + "\n".join(failed)


def test_built_ahead(emulator: Emulator, shared_store: Path, tmp_path: Path) -> None:
    emulated, kernel = EmulatedCache(emulator, "sm_80", shared_store), GPU_FAMILIES["sm80"].paged
    config = emulated.attend._functions._settings
    assert kernel and config
    together = composition(at.SoftCap, EVERY_HOOK, at.Window)
    for variant in (EVERY_HOOK, together, at.TreeMask, at.ChunkedCausal):
        aot.build(
            kernel.instantiations(dtype="float16", head_dims=(32, 32), variant=variant), tmp_path, settings=config
        )
    served = replace(config, store=tmp_path / "own", shared_stores=(tmp_path,))
    emulated.attend = at.Attention(policy="aot", family="sm80", settings=served)
    for queries in QUERIES:
        for composed in (False, True):
            check(emulated, np.float16, "block_table", queries, composed=composed, most=1e-2)
    known = tuple(Specialization("float16", (32, 32), (name,)) for name in ("TreeMask", "ChunkedCausal"))
    failed = failures(emulated, [small(paged_config(seed, known)) for seed in range(2200, 2210)])
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("kind", CACHES)
def test_every_hook_of_a_users_variant(
    emulator: Emulator, shared_store: Path, kind: str, queries: str, split: bool
) -> None:
    for composed in (False, True):
        attend = EmulatedCache(emulator, "sm_80", shared_store, split=split)
        check(attend, np.float16, kind, queries, composed=composed, most=1e-2)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    family = GPU_FAMILIES["sm80"]
    assert family.paged
    monkeypatch.setitem(GPU_FAMILIES, "sm80", family._replace(paged=altered(tmp_path, family.paged, *FAULTS[fault])))
    configs = [small(paged_config(seed, (CAUSAL,))) for seed in range(2000, 2030)]
    attend = EmulatedCache(emulator, "sm_90", shared_store)
    assert any(failures(attend, [config]) for config in configs)  # the first one ends it


@pytest.mark.parametrize(("longest", "split"), [(None, True), (100, False), (9999, True)])
def test_the_longest_of_sequences_by_indptr_is_given(
    emulator: Emulator, shared_store: Path, longest: int | None, split: bool
) -> None:
    """The sm80 family splits keys by the length of the longest sequence, not by that of all of them."""
    rng = np.random.default_rng(0)
    emulated, workspace = EmulatedCache(emulator, "sm_80", shared_store), np.full(20000, np.nan, np.float32)
    q, pool = (rng.standard_normal((n, size, 1, 32)).astype(np.float16) for n, size in ((8, 1), (40, 20)))
    tables = {"indptr": np.arange(0, 41, 5), "indices": rng.permutation(40), "last_page_len": np.full(8, 20)}
    tables = {name: x.astype(np.int32) for name, x in tables.items()}
    out = np.zeros_like(q)
    cache = at.KVCache(OnGpu(pool, 0), OnGpu(pool, 0), **{name: OnGpu(x, 0) for name, x in tables.items()})
    call = {"out": OnGpu(out, 0), "workspace": OnGpu(workspace, 0)}
    emulated.attend(OnGpu(q, 0), cache, **call, max_seqlen_k=longest)
    assert np.isnan(workspace).all() == (not split)
    assert np.allclose(out, at.attention(q, at.KVCache(pool, pool, **tables)), atol=4e-3)
    with pytest.raises(ValueError, match="argument 'max_seqlen_k': expected the length of a sequence, got -1"):
        emulated.attend(OnGpu(q, 0), cache, **call, max_seqlen_k=-1)


@pytest.mark.parametrize("longest", [None, 100])
def test_pages_of_all_sequences_may_hold_more_keys_than_one_can_have(
    emulator: Emulator, shared_store: Path, longest: int | None
) -> None:
    size, batch = 2**20, 3
    assert batch * 400 * size > 2**30
    rng = np.random.default_rng(0)
    q, pool = rng.standard_normal((batch, 1, 2, 32)).astype(np.float16), np.zeros((2, size, 1, 32), np.float16)
    pool[:, :100] = rng.standard_normal((2, 100, 1, 32))
    tables = {"indptr": np.arange(batch + 1), "indices": np.arange(batch * 400) % 2, "last_page_len": [100, 7, 60]}
    tables = {name: np.array(x, np.int32) for name, x in tables.items()}
    cache, options = at.KVCache(pool, pool, **tables), {"return_lse": True, "max_seqlen_k": longest}
    emulated = EmulatedCache(emulator, "sm_80", shared_store)
    for found, expected in zip(
        emulated(q, cache, variant=at.Plain(), **options), at.attention(q, cache, **options), strict=True
    ):
        assert np.allclose(found, expected, atol=4e-3)
