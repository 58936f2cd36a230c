"""The GPU kernels' own source, run on the CPU by an emulator, against the definition in float64. It needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from attention_check import check, failures
from attention_configs import Specialization
from emulated import HERE, SMALL, Emulated, Emulator, altered, missing, problems
from sanitized import ADDRESS

from dimorph import driver
from dimorph.attention import ops

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

CASES = [
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_80"),
    (Specialization("float16", (128, 128), ("Causal",)), "sm_90"),
    (Specialization("float16", (64, 64), ("Causal", "Window", "SoftCap")), "sm_90"),
    (Specialization("bfloat16", (192, 128), ("ALiBi", "Sinks")), "sm_80"),
    (Specialization("bfloat16", (256, 256), ("FlashSigmoid",)), "sm_90"),
    (Specialization("float16", (80, 48), ("Decay",)), "sm_80"),
]

BARRIER = "    copy_wait();\n    __syncthreads();\n    auto key_run"
# What is done to a source, and what is said then.
FAULTS = {
    "no barrier": ("sm80/forward.h", BARRIER, "    copy_wait();\n    auto key_run", "out is off by"),
    "no waiting for copies": ("sm80/forward.h", BARRIER, "    __syncthreads();\n    auto key_run", "out is off by"),
    "no waiting for the last copies": (
        "sm80/forward.h",
        "  copy_wait();  // the zeros",
        "  // the zeros",
        "a thread ended while copies were under way",
    ),
    "no barrier within a warp": ("gpu/epilogue.h", "  __syncwarp();\n", "", "out is off by"),
    "one slot for two tiles": ("sm80/copy.h", "to + slot * (kKeys * S::kPitch)", "to", "out is off by"),
    "halves swapped": (
        "gpu/ptx.h",
        '"cvt.rn.bf16x2.f32 %0, %1, %2;"',
        '"cvt.rn.bf16x2.f32 %0, %2, %1;"',
        "out is off by",
    ),
    "too little shared memory": (
        "sm80/config.h",
        "queries_at() + rows() * pitch_qk();",
        "queries_at() + rows() * pitch_qk() - 32;",
        "is outside of the [0-9]+ bytes of shared memory",
    ),
    "lanes apart": (
        "sm80/forward.h",
        BARRIER,
        f"    if (threadIdx.x % 2) __syncwarp();\n{BARRIER}",
        r"deadlock: warp 0: lanes 0 to 0 wait in __syncthreads \(forward.h:[0-9]+\); lanes 1 to 1 wait in __syncwarp",
    ),
    "warps apart": (
        "sm80/forward.h",
        BARRIER,
        f"    if (threadIdx.x >= 64) __syncthreads();\n{BARRIER}",
        "threads of one block meet at different barriers",
    ),
}


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator.build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(autouse=True)
def gpus(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)


@pytest.mark.parametrize(("specialization", "arch"), CASES, ids=str)
def test_problems(emulator: Emulator, store: Path, specialization: Specialization, arch: str) -> None:
    failed = failures(Emulated(emulator, arch, store), problems(specialization))  # type: ignore[arg-type]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    file, old, new, said = FAULTS[fault]
    monkeypatch.setattr(ops, "attention_sm80", altered(tmp_path, file, old, new))
    attend = Emulated(emulator, "sm_80", store)
    with pytest.raises((AssertionError, RuntimeError), match=said):
        for config in problems(SMALL):
            check(attend, config)  # type: ignore[arg-type]


def test_under_sanitizers(tmp_path: Path) -> None:
    if reason := ADDRESS.missing():
        pytest.skip(reason)
    past_the_end = "sm80/copy.h", "left > j * S::kRowsAtOnce", "left >= j * S::kRowsAtOnce"
    done = ADDRESS.run(str(HERE.parent / "emulated.py"), str(tmp_path), *past_the_end)
    right, _, altered = done.stdout.partition("\n0 failed\n")
    assert right == "", done.stdout[-5000:]
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in altered, altered
    assert "copy.h" in altered, "the report names no line of the kernel"
