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

# Of 2048 keys is a part, so that sequences have three or one. Queries: few for the sm90 family, and many.
LENGTHS, PAGES, FEW, MANY = [4300, 300, 40], (16, 1, 7, 64), 20, 34
CASES = [
    ("sm_80", "window and soft cap", "float16", 128, MANY),
    ("sm_90a", "sinks", "bfloat16", 128, MANY),
]
VOTE = "raised |= __fmaf_rn(max[r], scale, -kHeadroom) > softmax.row_max[r]"
FAULTS = {
    "a row max of the warp": ("sm_80", "gpu/softmax.h", VOTE, f"{VOTE} + kRescaleThreshold"),
    "the last part twice": ("sm_90a", "gpu/scheduled_parts.h", "+ count - 1 - i", "+ count - 1 - i * (i < 2)"),
}


@pytest.fixture(scope="module", autouse=True)
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    found = Emulator.build(tmp_path_factory.mktemp("emulator"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "find", lambda: found.driver)
        yield found


def differences(attend: EmulatedCache, sequences: Sequences, **option: bool) -> list[str]:
    """Compare sequences alone on one multiprocessor, all of their keys in one thread block, with parts on many."""
    invariant = partial(attend, **option)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMULATED_MULTIPROCESSORS", "1")
        alone = sequences.alone(invariant)
    return sequences.differences(invariant, alone, PAGES)


@pytest.mark.parametrize(("arch", "variant", "dtype", "head_dim", "queries"), CASES)
def test_bits_do_not_depend_on_the_batch(
    emulator: Emulator, shared_store: Path, arch: str, variant: str, dtype: str, head_dim: int, queries: int
) -> None:
    attend = EmulatedCache(emulator, arch, shared_store)
    assert not differences(attend, Sequences(LENGTHS, head_dim, dtype, variant, queries), batch_invariant=True)


def test_without_the_option_they_do(emulator: Emulator, shared_store: Path) -> None:
    """The comparison can fail."""
    attend = EmulatedCache(emulator, "sm_80", shared_store)
    assert differences(attend, Sequences(LENGTHS, 64, "bfloat16", "plain", FEW))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    arch, *change = FAULTS[fault]
    name = "sm90" if arch == "sm_90a" else "sm80"
    family = GPU_FAMILIES[name]
    assert family.paged
    monkeypatch.setitem(GPU_FAMILIES, name, family._replace(paged=altered(tmp_path, family.paged, *change)))
    attend = EmulatedCache(emulator, arch, shared_store)
    assert differences(attend, Sequences(LENGTHS, 128, "bfloat16", "causal", FEW), batch_invariant=True)
