"""The GPU kernels' own source, run on the CPU by an emulator, against the definition in float64. It needs no GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention import select
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.toolchain import nvidia_driver as driver
from support.attention_check import check, error, exact, failures
from support.attention_configs import Specialization
from support.emulated import (
    SMALL,
    Emulated,
    Emulator,
    OnGpu,
    altered,
    long_problems,
    missing,
    problems,
    two_groups,
)
from support.sanitized import ADDRESS

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

CASES = [
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_80"),
    (Specialization("float16", (128, 128), ("Causal",)), "sm_90"),
    (Specialization("float16", (64, 64), ("Causal", "Window", "SoftCap")), "sm_90"),
    (Specialization("bfloat16", (192, 128), ("ALiBi", "Sinks")), "sm_80"),
    (Specialization("bfloat16", (256, 256), ("FlashSigmoid",)), "sm_90"),
    (Specialization("float16", (80, 48), ("Decay",)), "sm_80"),
    (Specialization("bfloat16", (64, 64), ("ChunkedCausal", "Sinks")), "sm_80"),
    (Specialization("float16", (32, 64), ("TreeMask", "SoftCap")), "sm_80"),
    (Specialization("float16", (64, 64), ("SequenceTemperature", "Causal")), "sm_80"),
    (Specialization("float16", (64, 64), ("Bias", "FlashSigmoid")), "sm_80"),
    (Specialization("bfloat16", (64, 64), ("Plain",)), "sm_90a"),
    (Specialization("bfloat16", (64, 64), ("Bias", "FlashSigmoid")), "sm_90a"),
    (Specialization("float16", (80, 48), ("Causal", "Window", "SoftCap")), "sm_90a"),
    (Specialization("bfloat16", (192, 128), ("ALiBi", "Sinks")), "sm_90a"),
    (Specialization("float16", (64, 64), ("ChunkedCausal",)), "sm_90a"),
    (Specialization("bfloat16", (64, 64), ("TreeMask",)), "sm_90a"),
    (Specialization("bfloat16", (64, 64), ("SequenceTemperature",)), "sm_90a"),
]

WAIT_FOR_KEYS = (
    "    mbarrier_wait(shared_address(&pipeline_.keys_full[keys_.stage()]), keys_.phase());\n    wgmma_fence"
)
WAIT_FOR_VALUES = (
    "    mbarrier_wait(shared_address(&pipeline_.values_full[values_.stage()]), values_.phase());\n    wgmma_fence"
)
BARRIER = "    cp_async_wait();\n    __syncthreads();\n    auto key_load"
# What is done to a source, and what is said then.
FAULTS = {
    "no barrier": ("sm80/mainloop.h", BARRIER, "    cp_async_wait();\n    auto key_load", "out is off by"),
    "no waiting for copies": ("sm80/mainloop.h", BARRIER, "    __syncthreads();\n    auto key_load", "out is off by"),
    "no waiting for the last copies": (
        "sm80/mainloop.h",
        "  cp_async_wait();  // the zeros",
        "  // the zeros",
        "a thread ended while copies were under way",
    ),
    "one stage for two tiles": ("sm80/load.h", "to + stage * (kTileKeys * Chunk::kPitch)", "to", "out is off by"),
    "halves swapped": (
        "gpu/ptx.h",
        '"cvt.rn.bf16x2.f32 %0, %1, %2;"',
        '"cvt.rn.bf16x2.f32 %0, %2, %1;"',
        "out is off by",
    ),
    "too little shared memory": (
        "sm80/config.h",
        "query_offset() + tile_rows() * pitch_qk(),",
        "query_offset() + tile_rows() * pitch_qk() - 32,",
        "is outside of the [0-9]+ bytes of shared memory",
    ),
    "lanes apart": (
        "sm80/mainloop.h",
        BARRIER,
        f"    if (threadIdx.x % 2) __syncwarp();\n{BARRIER}",
        r"deadlock: warp 0: lanes 0 to 0 wait in __syncthreads \(mainloop.h:[0-9]+\); lanes 1 to 1 wait in __syncwarp",
    ),
    "warps apart": (
        "sm80/mainloop.h",
        BARRIER,
        f"    if (threadIdx.x >= 64) __syncthreads();\n{BARRIER}",
        "threads of one block meet at different barriers",
    ),
}

# A stage that is read and released before its load has landed: poison is seen, or the copy's barrier notices.
NOT_THERE = "more arrivals than|out is off by"

SM90_FAULTS = {
    "no waiting for keys": ("sm90/consumer.h", WAIT_FOR_KEYS, "    wgmma_fence", NOT_THERE),
    "no waiting for values": ("sm90/consumer.h", WAIT_FOR_VALUES, "    wgmma_fence", NOT_THERE),
    "no waiting for the products": ("sm90/consumer.h", "        wgmma_wait<1>();\n", "", "out is off by"),
    "a stage that is released early": (
        "sm90/consumer.h",
        "        wgmma_wait<1>();\n        finish_qk(s);\n",
        "        release(pipeline_.keys_empty[keys_.stage()]);\n"
        "        for (int i = 0; i < 99; ++i) named_barrier_sync(kConsumerGroup + group_, 128);\n"
        "        wgmma_wait<1>();\n        fence_operand(s);\n        keys_.advance();\n",
        "out is off by",
    ),
    "a stage that is never released": (
        "sm90/consumer.h",
        "    fence_operand(weights);\n    release(pipeline_.values_empty[values_.stage()]);\n",
        "    fence_operand(weights);\n",
        r"deadlock: .*mbarrier.try_wait",
    ),
    "a turn that is not passed on": (
        "sm90/consumer.h",
        "        pass_turn();\n",
        "",
        r"deadlock: .*barrier.cta.sync",
    ),
    "fewer bytes than come": (
        "sm90/producer.h",
        "mbarrier_arrive_expect_tx(full, kConfig.value_bytes());",
        "mbarrier_arrive_expect_tx(full, kConfig.value_bytes() - 16);",
        "deadlock",
    ),
    "an output that is not rescaled after tiles were left out": (
        "sm90/consumer.h",
        "else if (raised)",
        "else if (raised && pending)",
        "out is off by",
    ),
    "rows of other values": (
        "sm90/mma.h",
        "advance_descriptor(b, i * 2 * layout.group)",
        "advance_descriptor(b, i * layout.group)",
        "out is off by",
    ),
    "keys where values lie": (
        "sm90/consumer.h",
        "shared_address(shared_ + kConfig.value_offset() + values_",
        "shared_address(shared_ + kConfig.key_offset() + values_",
        "out is off by",
    ),
}


class RefusedOnce(OnGpu):
    """An array that cannot be exported the first time."""

    refusals = 0

    def __dlpack__(self, stream: object = None) -> object:
        if self.refusals == 0:
            self.refusals += 1
            raise BufferError("not now")
        return super().__dlpack__(stream)


@pytest.fixture(autouse=True)
def gpus(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)


@pytest.mark.parametrize(("specialization", "arch"), CASES, ids=str)
def test_problems(emulator: Emulator, shared_store: Path, specialization: Specialization, arch: str) -> None:
    failed = failures(Emulated(emulator, arch, shared_store), problems(specialization))  # type: ignore[arg-type]
    assert not failed, "\n".join(failed)


def test_the_family_is_the_best_for_the_gpu_and_of_what_may_be_used(emulator: Emulator, store: Path) -> None:
    config = replace(settings.current(), nvcc=str(emulator.nvcc), store=store)
    q = np.zeros((1, 1, 1, 32), np.float16)
    assert [select.families(gpu) for gpu in (0, 1)] == [["sm80"], ["sm90", "sm80"]]
    # Nothing is built, and nothing may be.
    with pytest.raises(dm.MissingSpecialization, match="attention_sm90"):
        at.Attention(policy="aot", settings=config)(*[OnGpu(q, 1)] * 3, out=OnGpu(q, 1))
    with pytest.raises(dm.MissingSpecialization, match="attention_sm90"):
        at.Attention(policy="aot", settings=config, family="sm90")(*[OnGpu(q, 1)] * 3, out=OnGpu(q, 1))
    # Where something else is named to be compiled for, the family that can be is taken.
    out = np.full((1, 1, 1, 32), np.nan, np.float16)
    named = at.Attention(policy="jit", settings=replace(config, arch="sm_90"))
    named(*[OnGpu(q, 1)] * 3, out=OnGpu(out, 1), workspace=OnGpu(np.zeros(1, np.float32), 1))
    assert (out == 0).all()
    assert "attention_sm80" in {line.artifact.meta.kernel for line in named.resolutions()}
    with pytest.raises(ValueError, match="argument 'out': expected an array to write to, as 'stream' is given"):
        named(*[OnGpu(q, 1)] * 3, stream=0)
    with pytest.raises(ValueError, match="argument 'family': expected 'sm80' or 'sm90', got 'sm70'"):
        at.Attention(family="sm70")


def test_what_ran_last_gives_way_to_what_fits(emulator: Emulator, shared_store: Path) -> None:
    attend = Emulated(emulator, "sm_90", shared_store)
    rng = np.random.default_rng(0)
    for dtype, dim in ((np.float16, 32), (np.float16, 48), (ml_dtypes.bfloat16, 32), (np.float16, 32)):
        for _ in range(2):  # as the first with these values, and once they are known
            q, k, v = (rng.standard_normal((1, 33, 2, dim)).astype(dtype) for _ in range(3))
            expected, _, scale = exact(q, k, v, at.Plain(), None)
            assert error(attend(q, k, v, variant=at.Plain()), expected, scale) < 2.0**-7
    # What the fastest way of a call refuses goes another way.
    q, k, v = (rng.standard_normal((1, 33, 2, 32)).astype(np.float16) for _ in range(3))
    out = np.full_like(q, np.nan)
    expected, _, scale = exact(q, k, v, at.Plain(), None)
    refused = RefusedOnce(q, 1)
    attend.attend(refused, OnGpu(k, 1), OnGpu(v, 1), out=OnGpu(out, 1), workspace=OnGpu(np.zeros(1, np.float32), 1))
    assert refused.refusals == 1
    assert error(out, expected, scale) < 2.0**-7
    # What does not fit and is not another kernel's is said, whatever ran last.
    q = np.zeros((1, 33, 2, 32), np.float16)
    with pytest.raises(ValueError, match="argument 'v': expected an array"):
        attend(q, q, q[0, 0], variant=at.Plain(), out=q.copy())
    with pytest.raises(ValueError, match="argument 'k': expected size 32 in dimension 3"):
        attend(q, q[..., :16].copy(), q, variant=at.Plain())


def test_each_load_launches_the_device_code_that_it_found(emulator: Emulator, shared_store: Path) -> None:
    q, k, v = (np.random.default_rng(0).standard_normal((1, 33, 2, 32)).astype(np.float16) for _ in range(3))
    expected, _, scale = exact(q, k, v, at.Plain(), None)
    for arch in ("sm_80", "sm_90", "sm_80"):  # one case, whose device code is another
        assert error(Emulated(emulator, arch, shared_store)(q, k, v, variant=at.Plain()), expected, scale) < 2.0**-7


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_arguments_for_gpus(emulator: Emulator, shared_store: Path, arch: str) -> None:
    """Check the arguments that only GPUs have: lengths of ragged sequences, strides, workspaces, parts of keys."""
    attend, rng = Emulated(emulator, arch, shared_store), np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 33, 1, 32)).astype(np.float16) for _ in range(3))
    expected, _, scale = exact(q, k, v, at.Plain(), None)
    # The longest length, or more.
    ends = np.array([0, 33], np.int32)
    for longest in (33, 128):
        lengths = {"cu_seqlens_q": ends, "cu_seqlens_k": ends, "max_seqlen_q": longest, "max_seqlen_k": longest}
        assert error(attend(q[0], k[0], v[0], variant=at.Plain(), **lengths)[None], expected, scale) < 2.0**-7
    with pytest.raises(ValueError, match="argument 'max_seqlen_k': expected the length of a sequence, got -1"):
        attend(q[0], k[0], v[0], variant=at.Plain(), **{**lengths, "max_seqlen_k": -1})
    # A single head's stride is nobody's.
    gpu = attend._gpu
    single = [OnGpu(np.lib.stride_tricks.as_strided(x, strides=(*x.strides[:2], 2, 2)), gpu) for x in (q, k, v)]
    out, workspace = np.full_like(q, np.nan), OnGpu(np.zeros(1, np.float32), gpu)
    attend.attend(*single, out=OnGpu(out, gpu), workspace=workspace)
    assert error(out, expected, scale) < 2.0**-7
    back = OnGpu(k[:, ::-1], gpu)
    with pytest.raises(ValueError, match=r"argument 'k': expected (rows one after the other|strides that are not neg)"):
        attend.attend(single[0], back, single[2], out=OnGpu(out, gpu), workspace=workspace)
    odd = OnGpu(np.zeros(9, np.float32)[1:], gpu)
    odd = odd if odd.array.ctypes.data % 8 else OnGpu(odd.array[1:], gpu)
    with pytest.raises(ValueError, match="argument 'workspace': expected an address that is a multiple of 8"):
        attend.attend(*single, out=OnGpu(out, gpu), workspace=odd)
    # A part of NaN alone is a part.
    q, k, v = (rng.standard_normal((1, n, 1, 32)).astype(np.float16) for n in (1, 1024, 1024))
    k[:, :512] = np.nan
    for one in (attend, Emulated(emulator, arch, shared_store, split=False)):
        out, lse = one(q, k, v, variant=at.Plain(), return_lse=True)
        assert np.isnan(out).all()
        assert np.isnan(lse).all()


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_a_workspace_for_the_length_of_the_keys_is_large_enough(
    emulator: Emulator, shared_store: Path, arch: str
) -> None:
    """Keys are split as with the largest workspace, which shows in the bits of the output."""
    emulated, rng = Emulated(emulator, arch, shared_store), np.random.default_rng(0)
    gpu, outputs = emulated._gpu, {}
    for keys in (255, 256, 700):
        q, k, v = (rng.standard_normal((1, n, 2, 32)).astype(np.float16) for n in (3, keys, keys))
        sizes = {"none": 1, "enough": at.workspace_size(q.shape, 32, keys), "most": at.workspace_size(q.shape, 32)}
        for name, size in sizes.items():
            out, workspace = np.full_like(q, np.nan), np.full(size, np.nan, np.float32)
            emulated.attend(*(OnGpu(x, gpu) for x in (q, k, v)), out=OnGpu(out, gpu), workspace=OnGpu(workspace, gpu))
            outputs[name] = out.tobytes()
        assert outputs["enough"] == outputs["most"]
        assert (outputs["none"] == outputs["most"]) == (keys < 256) == (sizes["enough"] == 0)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("empty", ["batch", "queries", "keys"])
def test_sizes_of_0(emulator: Emulator, shared_store: Path, arch: str, empty: str) -> None:
    attend = Emulated(emulator, arch, shared_store)
    sizes = {"batch": 2, "queries": 3, "keys": 5, "heads": 2, empty: 0}
    q = np.ones((sizes["batch"], sizes["queries"], sizes["heads"], 32), np.float16)
    k = np.ones((sizes["batch"], sizes["keys"], sizes["heads"], 32), np.float16)
    out, lse = attend(q, k, k, variant=at.Plain(), return_lse=True)
    assert out.shape == q.shape and (out == 0).all()
    assert lse.shape == q.shape[:-1] and (lse == -np.inf).all()


def test_long_problems(emulator: Emulator, shared_store: Path) -> None:
    attend = Emulated(emulator, "sm_90a", shared_store, split=False)
    failed = failures(attend, long_problems())  # type: ignore[arg-type]
    assert not failed, "\n".join(failed)


def test_heads_take_turns_in_groups(emulator: Emulator, shared_store: Path) -> None:
    check(Emulated(emulator, "sm_80", shared_store), two_groups())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arch", "fault"), [("sm_80", fault) for fault in FAULTS] + [("sm_90a", fault) for fault in SM90_FAULTS]
)
def test_a_planted_fault_is_noticed(
    emulator: Emulator, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, fault: str
) -> None:
    family, faults = ("sm90", SM90_FAULTS) if arch == "sm_90a" else ("sm80", FAULTS)
    file, old, new, said = faults[fault]
    altered_kernel = altered(tmp_path, GPU_FAMILIES[family].kernel, file, old, new)
    monkeypatch.setitem(GPU_FAMILIES, family, GPU_FAMILIES[family]._replace(kernel=altered_kernel))
    attend = Emulated(emulator, arch, shared_store, split=arch != "sm_90a")
    with pytest.raises((AssertionError, RuntimeError), match=said):
        for config in long_problems() if arch == "sm_90a" else problems(SMALL):
            check(attend, config)  # type: ignore[arg-type]


@pytest.mark.long
def test_under_sanitizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_LOG", "off")  # the line about a compile that takes longer than a second
    if reason := ADDRESS.missing():
        pytest.skip(reason)
    past_the_end = "sm80/load.h", "left > j * Chunk::kRowsPerCopy", "left >= j * Chunk::kRowsPerCopy"
    done = ADDRESS.run("support.emulated", str(tmp_path), *past_the_end)
    right, _, altered = done.stdout.partition("\n0 failed\n")
    assert right == "", done.stdout[-5000:]
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in altered, altered
    assert "load.h" in altered, "the report names no line of the kernel"
