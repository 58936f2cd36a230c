"""`batch_invariant=True` in the kernels for GPUs, on the emulator (support/emulated.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.toolchain import nvidia_driver as driver
from support.emulated import EmulatedCache, Emulator, altered, missing
from support.invariance import Sequences

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

# Parts of 2048 keys, or of 4096: sequences of several, and of one. Few queries and many, for each family.
LENGTHS, QUERIES = [4500, 2100, 133], 34
PAGES = 16, 1, 7, 64
CASES = [
    ("sm_80", "causal", "bfloat16", 64),
    ("sm_80", "window and soft cap", "float16", 128),
    ("sm_80", "sinks", "bfloat16", 64),
    ("sm_80", "sigmoid", "float16", 64),
    ("sm_90a", "causal", "bfloat16", 128),
    ("sm_90a", "window and soft cap", "float16", 64),
]


@pytest.fixture(scope="module", autouse=True)
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    found = Emulator.build(tmp_path_factory.mktemp("emulator"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "find", lambda: found.driver)
        yield found


@pytest.mark.parametrize(("arch", "variant", "dtype", "head_dim"), CASES)
def test_bits_do_not_depend_on_the_batch(
    emulator: Emulator, shared_store: Path, arch: str, variant: str, dtype: str, head_dim: int
) -> None:
    """Sequences alone are computed with all of their keys in one thread block, the others in parts."""
    sequences = Sequences(LENGTHS, head_dim, dtype, variant, QUERIES)
    whole, parts = (
        partial(EmulatedCache(emulator, arch, shared_store, split=split), batch_invariant=True)
        for split in (False, True)
    )
    assert not sequences.differences(parts, sequences.alone(whole), PAGES)


@pytest.mark.parametrize("arch", ["sm_80"])
def test_without_the_option_they_do(emulator: Emulator, shared_store: Path, arch: str) -> None:
    """The comparison can fail."""
    sequences, attend = (
        Sequences(LENGTHS, 64, "bfloat16", "causal", QUERIES),
        EmulatedCache(emulator, arch, shared_store),
    )
    assert sequences.differences(attend, sequences.alone(attend), PAGES)


VOTE = "raised |= __fmaf_rn(max[r], scale, -kHeadroom) > softmax.row_max[r]"
FAULTS = {
    "a row max of the warp": ("gpu/softmax.h", VOTE, f"{VOTE} + kRescaleThreshold"),
    "parts in the other order": ("gpu/merge.cu", "place_of(params.splits - 1 - i)", "place_of(i)"),
    "parts of another size": ("gpu/plan.h", "kPartTiles * c.tile_keys)", "2 * kPartTiles * c.tile_keys)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    family = GPU_FAMILIES["sm80"]
    assert family.paged
    monkeypatch.setitem(GPU_FAMILIES, "sm80", family._replace(paged=altered(tmp_path, family.paged, *FAULTS[fault])))
    sequences = Sequences(LENGTHS, 64, "bfloat16", "causal", QUERIES)
    whole, parts = (
        partial(EmulatedCache(emulator, "sm_80", shared_store, split=split), batch_invariant=True)
        for split in (False, True)
    )
    assert sequences.differences(parts, sequences.alone(whole), PAGES)
