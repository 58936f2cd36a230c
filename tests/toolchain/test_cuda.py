"""Kernels with device code, as far as no GPU is needed: compiles, keys, architectures, messages and records."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from dimorph.aot import verify
from dimorph.attention.kernels import append_gpu
from dimorph.plan import unit as plan
from dimorph.plan.load_plan import declared_archs
from dimorph.resolve.levels import archs_here
from dimorph.settings import Settings
from dimorph.toolchain import archs, cuda, ptxas
from dimorph.toolchain import nvidia_driver as driver
from support.cuda import EXAMPLE, RMS

VALUES = {"dtype": "float16", "width": 1024}


def for_arch(name: str) -> Settings:
    return replace(settings.current(), arch=name)


def device_artifact(module: dm.Module) -> Any:
    (found,) = (r.artifact for r in module.resolutions if r.unit.kind == "device")
    return found


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_just_in_time_and_ahead_of_time_make_the_same_cubin(arch: str, store: Path, tmp_path: Path) -> None:
    loaded = device_artifact(RMS.load(settings=for_arch(arch), **VALUES))
    elsewhere = replace(settings.current(), store=tmp_path / "other")
    built = RMS.build(tmp_path / "ahead", archs=[arch], settings=elsewhere, **VALUES)
    (ahead,) = (artifact for artifact in built.artifacts if artifact.meta.kind == "device")
    assert built.built == len(built.artifacts)
    assert ahead.meta.target == arch
    assert loaded.meta.key == ahead.meta.key
    assert loaded.file.name == "device.cubin"
    assert loaded.file.read_bytes() == ahead.file.read_bytes()


def test_the_cubin_does_not_depend_on_the_place_of_the_sources(
    copy_of: Callable[..., dm.Kernel], store: Path, tmp_path: Path
) -> None:
    here, there = copy_of(RMS, "here"), copy_of(RMS, "there")
    settings_there = replace(for_arch("sm_90a"), store=tmp_path / "other")
    first = device_artifact(here.load(settings=for_arch("sm_90a"), **VALUES))
    second = device_artifact(there.load(settings=settings_there, **VALUES))
    assert first.meta.key == second.meta.key
    assert first.path != second.path
    assert first.file.read_bytes() == second.file.read_bytes()


def test_what_the_assembler_says_is_recorded(warm_store: Path) -> None:
    meta = device_artifact(RMS.load(settings=for_arch("sm_90a"), **VALUES)).meta
    used = meta.device.kernels["rms_kernel"]
    assert 0 < used["registers"] <= 64
    assert used["shared"] == 16
    assert used["spill_stores"] == used["spill_loads"] == used["stack"] == 0
    assert meta.device.driver_version[1] == 0, "machine code needs no certain minor version"
    assert list(meta.device.messages) == []


def test_spills_and_warnings_are_recorded(copy_of: Callable[..., dm.Kernel], store: Path) -> None:
    kernel = copy_of(RMS)
    source = kernel.root / "rms.cu"
    text = source.read_text().replace("__launch_bounds__(kThreads)", "__launch_bounds__(1024, 2)")
    many = "float v[64]; for (int i = 0; i < 64; ++i) v[i] = float(x[i * threadIdx.x]);\n"
    many += "for (int k = 0; k < WIDTH; ++k) for (int i = 0; i < 64; ++i) v[i] = v[i] * v[(i + 1) % 64] + k;\n"
    many += "int never_used; for (int i = 0; i < 64; ++i) squares += v[i];\n"
    source.write_text(text.replace("const float scale", many + "const float scale"))
    device = device_artifact(kernel.load(settings=for_arch("sm_80"), **VALUES)).meta.device
    assert device.kernels["rms_kernel"]["spill_stores"] > 0
    assert device.kernels["rms_kernel"]["registers"] <= 32
    assert any("never_used" in message for message in device.messages)


def test_the_assemblers_advice_is_read() -> None:
    output = (
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to x\n"
        "ptxas info    : Compiling entry function 'first' for 'sm_90a'\n"
        "ptxas info    : Function properties for first\n"
        "    8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n"
        "ptxas info    : Used 168 registers, used 9 barriers, 8 bytes cumulative stack size, 1024 bytes smem\n"
        "ptxas warning : setmaxnreg ignored (C7508)\n"
    )
    kernels, messages = ptxas.report(output)
    sizes = {"stack": 8, "spill_stores": 16, "spill_loads": 24}
    assert kernels == {"first": {**sizes, "registers": 168, "shared": 1024}}
    assert len(messages) == 2
    assert "C7510" in messages[0]
    assert "C7508" in messages[1]


def test_ptx_for_newer_gpus(store: Path, tmp_path: Path) -> None:
    built = RMS.build(tmp_path / "ahead", archs=["compute_80"], **VALUES)
    (ptx,) = (artifact for artifact in built.artifacts if artifact.meta.kind == "device")
    assert ".target sm_80" in ptx.file.read_text()
    assert ptx.file.name == "device.ptx"
    assert ptx.meta.device.driver_version == cuda.find(settings.current()).version


def test_built_ahead_for_several_architectures(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "ahead"
    levels = ["x86-64-v2", "x86-64-v3"] if os.uname().machine == "x86_64" else ["armv8"]
    report = RMS.build(out, targets=levels, **VALUES)
    assert report.targets == (*levels, "sm_80", "sm_90a")
    kinds = [(artifact.meta.kind, artifact.meta.target) for artifact in report.artifacts]
    # The same cubin serves every host level.
    assert sorted(kinds) == sorted(
        [*((kind, level) for kind in ("entry", "case") for level in levels), ("device", "sm_80"), ("device", "sm_90a")]
    )
    assert verify([RMS], out).ok
    assert RMS.build(out, targets=levels, **VALUES).built == 0


def test_a_changed_device_source_is_noticed(copy_of: Callable[..., dm.Kernel], store: Path, tmp_path: Path) -> None:
    kernel = copy_of(RMS)
    kernel.build(tmp_path / "ahead", archs=["sm_80"], **VALUES)
    source = kernel.root / "rms.cu"
    source.write_text(source.read_text().replace("kThreads = 128", "kThreads = 64"))
    coverage = verify([kernel], tmp_path / "ahead")
    assert not coverage.ok
    # The case has another key too, because it is loaded together with its device code.
    assert "2 of its 3 artifacts" in str(coverage)


def test_keys_and_plans_need_no_cuda(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["nvidia"] = None
from dimorph import settings
from dimorph.toolchain import nvidia_driver as driver
from dimorph.plan import unit as plan
from dimorph.plan.load_plan import declared_archs
from dimorph.toolchain import archs, cuda, targets
driver.find = None
sys.path.insert(0, {str(EXAMPLE.parent)!r})
from rms import rms
one = next(iter(rms.instantiations(dtype="float16", width=1024)))
unit = plan.device_unit(one, declared_archs(one))
print([unit.key(arch, settings.current()) for arch in unit.archs])
"""
    env = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one = next(iter(RMS.instantiations(**VALUES)))
    unit = plan.device_unit(one, declared_archs(one))
    assert done.stdout.strip() == str([unit.key(arch, settings.current()) for arch in unit.archs])


def test_the_architecture_and_the_device_source_are_in_the_key(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(RMS)

    def keys() -> dict[str, str]:
        one = next(iter(kernel.instantiations(**VALUES)))
        unit = plan.device_unit(one, declared_archs(one))
        return {arch.name: unit.key(arch, settings.current()) for arch in unit.archs}

    before = keys()
    assert len(set(before.values())) == 2
    params = kernel.root / "rms_params.h"
    params.write_text(params.read_text() + "// a comment\n")
    after = keys()
    assert not set(before.values()) & set(after.values())


def test_an_error_in_a_device_source_is_at_its_place(copy_of: Callable[..., dm.Kernel], store: Path) -> None:
    kernel = copy_of(RMS)
    source = kernel.root / "rms.cu"
    source.write_text(source.read_text().replace("params.epsilon", "params.epsilom"))
    line = source.read_text()[: source.read_text().index("epsilom")].count("\n") + 1
    with pytest.raises(dm.BuildError) as caught:
        kernel.load(settings=for_arch("sm_80"), **VALUES)
    assert f'{source}:{line}: error: class "RmsParams" has no member "epsilom"' in str(caught.value)
    assert "rms device (dtype=float16, width=1024)" in str(caught.value)


def test_an_architecture_that_the_compiler_does_not_know(store: Path) -> None:
    with pytest.raises(dm.BuildError, match="invalid value for --gpu-architecture"):
        RMS.load(settings=for_arch("sm_990"), **VALUES)


def test_an_architecture_that_the_sources_are_not_for(tmp_path: Path) -> None:
    with pytest.raises(dm.DeclarationError, match=r"its device code is for sm_80, sm_90a; none of .* is: sm_75"):
        RMS.build(tmp_path / "ahead", archs=["sm_75"], **VALUES)
    with pytest.raises(dm.ToolchainError, match="arch: expected a name such as sm_80"):
        RMS.build(tmp_path / "ahead", archs=["hopper"], **VALUES)


def test_families_choose_their_architectures(tmp_path: Path) -> None:
    kernel = replace(
        RMS,
        axes=(*RMS.axes, dm.int_axis("family", "FAMILY", [80, 90])),
        archs=lambda values: ("sm_90a",) if values["family"] == 90 else ("sm_80", "sm_90"),
    )
    names = {one["family"]: one.archs() for one in kernel.instantiations(**VALUES)}
    assert names == {80: ("sm_80", "sm_90"), 90: ("sm_90a",)}
    with pytest.raises(dm.DeclarationError, match=r"kernel rms \(.*family=90\): its device code is for sm_90a"):
        kernel.build(tmp_path / "ahead", archs=["sm_80"], **VALUES)


def names(gpu: tuple[int, int], *declared: str) -> list[str]:
    return [arch.name for arch in archs.serving(gpu, [archs.by_name(name) for name in declared])]


def test_what_serves_which_gpu() -> None:
    assert names((9, 0), "sm_80", "sm_90a")[:2] == ["sm_90a", "sm_90"]
    assert names((9, 0), "sm_80")[0] == "sm_90", "compiled for the GPU itself, with what the sources are declared for"
    assert names((9, 0), "sm_90a") == ["sm_90a", "compute_90a"]
    assert names((8, 6), "sm_80", "sm_90a")[0] == "sm_86"
    assert {"sm_80", "compute_80"} < set(names((8, 6), "sm_80"))
    assert not {"sm_75", "sm_87", "sm_90", "compute_75", "compute_87"} & set(names((8, 6), "sm_80"))
    assert names((7, 5), "sm_80") == []
    newer = names((13, 0), "sm_80", "sm_90a")
    assert newer[0] == "sm_130"
    assert {"compute_90", "compute_80"} < set(newer)
    assert not any(name.startswith("sm_") and not name.startswith("sm_130") for name in newer)


@pytest.mark.parametrize("kernel", [RMS, append_gpu], ids=lambda kernel: kernel.name)
def test_a_case_that_launches_carries_no_machinery_of_exceptions(kernel: dm.Kernel, warm_store: Path) -> None:
    first = next(iter(kernel.instantiations()))
    module = kernel.load(settings=for_arch("sm_80"), **{axis.name: value for axis, value in first.pairs()})
    (case,) = (one.artifact.file for one in module.resolutions if one.unit.kind == "case")
    assert b"terminate called" not in case.read_bytes()
    assert case.stat().st_size < 50_000


class OldDriver:
    """A stand-in for the NVIDIA driver, with the given GPUs and version."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpus: tuple[tuple[int, int], ...], version: tuple[int, int]):
        monkeypatch.setattr(driver, "find", lambda: driver.Driver(version, gpus, 0))


def test_a_kind_of_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    OldDriver(monkeypatch, ((9, 0), (8, 0), (9, 0), (7, 5)), (13, 0))
    one = next(iter(RMS.instantiations(**VALUES)))
    assert [levels[0].name for levels in archs_here(settings.current())(one)] == ["sm_90a", "sm_80"]
    assert [levels[0].name for levels in archs_here(for_arch("sm_90"))(one)] == ["sm_90"]


def test_a_driver_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
    RMS.build(tmp_path / "ahead", archs=["sm_80"], **VALUES)
    OldDriver(monkeypatch, ((8, 0),), (12, 4))
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "ahead"))
    major = cuda.find(settings.current()).version[0]
    reason = rf"needs an NVIDIA driver for CUDA {major}\.0, this one is for 12\.4"
    with pytest.raises(dm.MissingSpecialization, match=reason):
        RMS.load(policy="aot", **VALUES)
    with pytest.raises(dm.MissingSpecialization, match=r"update the driver, or install an older compiler"):
        RMS.load(settings=replace(settings.current(), store=tmp_path / "empty"), policy="jit", **VALUES)


@pytest.mark.parametrize(
    ("version", "target", "package"),
    [
        ((12, 4), "sm_90", "nvidia-cuda-nvrtc-cu12"),
        ((13, 0), "compute_90", "nvidia-cuda-nvrtc==13.0.*"),  # nvidia-cuda-nvrtc-cu13 is an empty package
    ],
)
def test_the_older_compiler_that_a_message_names_is_one(
    version: tuple[int, int], target: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    OldDriver(monkeypatch, ((9, 0),), version)
    compiler = cuda.CudaCompiler("nvrtc", Path("/libnvrtc.so"), (13, 3), None, "")
    with pytest.raises(dm.ToolchainError, match=rf"pip install '{re.escape(package)}'$"):
        compiler.check(archs.by_name(target))


def test_code_for_another_gpu_alone_is_named(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
    RMS.build(tmp_path / "ahead", archs=["sm_80"], **VALUES)
    OldDriver(monkeypatch, ((9, 0),), (13, 0))
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "ahead"))
    with pytest.raises(dm.MissingSpecialization, match=r"has it only for sm_80,(.|\n)*--arch sm_90a") as caught:
        RMS.load(policy="aot", **VALUES)
    assert "rms device (dtype=float16, width=1024) for sm_90a is not there" in str(caught.value)


def test_one_of_two_kinds_of_gpus_suffices(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
    RMS.build(tmp_path / "ahead", archs=["sm_80"], **VALUES)
    OldDriver(monkeypatch, ((9, 0), (8, 6)), (13, 0))
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "ahead"))
    assert device_artifact(RMS.load(policy="aot", **VALUES)).meta.target == "sm_80"


def test_arrays_of_the_host_are_refused(warm_store: Path) -> None:
    x = np.zeros((2, 1024), np.float16)
    with pytest.raises(ValueError, match="argument 'x': expected an array on a GPU"):
        RMS.load(settings=for_arch("sm_80"), **VALUES).rms(x, x, 1e-6)


def test_a_launch_without_a_driver_says_so(copy_of: Callable[..., dm.Kernel], store: Path) -> None:
    if driver.find() is not None:
        pytest.skip("this machine has a driver with a GPU")
    kernel = copy_of(RMS)
    for file, old, new in (
        ("rms.cc", "x.device().device_type == kDLCUDA", "x.device().device_type == kDLCPU"),
        ("rms_case.cc", "x.device(),", "dimorph::Device{kDLCUDA, 0},"),
    ):
        path = kernel.root / file
        path.write_text(path.read_text().replace(old, new))
    x = np.zeros((2, 1024), np.float16)
    with pytest.raises(RuntimeError, match=r"rms case \(dtype=float16, width=1024\) cannot launch .* no NVIDIA driver"):
        kernel.load(settings=for_arch("sm_80"), **VALUES).rms(x, x, 1e-6)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "compute_80"])
def test_nvcc_compiles_the_same_source(arch: str, store: Path) -> None:
    config = replace(for_arch(arch), nvcc="nvcc")
    assert cuda.find(config).dialect == "nvcc"
    found = device_artifact(RMS.load(settings=config, **VALUES))
    assert found.meta.toolchain.startswith("nvcc")
    if arch.startswith("sm_"):
        assert found.meta.device.kernels["rms_kernel"]["spill_stores"] == 0


def test_the_compiler_is_found_or_its_absence_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = replace(settings.current(), path=str(tmp_path))
    assert cuda.find(config).dialect == "nvrtc"
    monkeypatch.setattr(cuda, "_libraries", list)
    with pytest.raises(dm.ToolchainError, match="pip install nvidia-cuda-nvrtc"):
        cuda.find(config)
    with pytest.raises(dm.ToolchainError, match="DIMORPH_NVCC=nvcc-99: there is no such program"):
        cuda.find(replace(config, nvcc="nvcc-99"))


def test_nvrtc_keeps_no_cache_of_its_own(tmp_path: Path) -> None:
    """A cache of NVRTC's own would ignore our keys, and make a first call look faster than it is."""
    assert cuda.find(settings.current()).environment(tmp_path)["CUDA_CACHE_DISABLE"] == "1"


def test_nvrtc_alone_suffices(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """The CUDA headers inside NVRTC are used if no package has them."""
    found = cuda.find(settings.current())
    if found.version < (13, 3):
        pytest.skip(f"NVRTC {cuda.describe(found.version)} brings no headers along; 13.3 does")
    with_headers = device_artifact(RMS.load(settings=for_arch("sm_80"), **VALUES))
    monkeypatch.setattr(cuda, "_include_dirs", lambda library: iter(()))
    assert cuda.find(settings.current()).include is None
    other = replace(for_arch("sm_80"), store=store / "other")
    without = device_artifact(RMS.load(settings=other, **VALUES))
    assert without.file.read_bytes() == with_headers.file.read_bytes()


def test_device_sources_are_declared_with_architectures_and_a_case() -> None:
    with pytest.raises(dm.DeclarationError, match="no `archs`"):
        dm.Kernel(name="k", entry="k.cc", case=["k_case.cc"], device=["k.cu"])
    with pytest.raises(dm.DeclarationError, match="device sources but no case"):
        dm.Kernel(name="k", entry="k.cc", case=[], device=["k.cu"], archs=["sm_80"])
    with pytest.raises(dm.DeclarationError, match="device: expected a list"):
        dm.Kernel(name="k", entry="k.cc", case=["k_case.cc"], device="k.cu", archs=["sm_80"])
