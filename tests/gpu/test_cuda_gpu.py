"""Kernels with device code on a GPU: numbers, streams, graphs, several threads, errors. Each test in both forms."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from dimorph.toolchain import nvidia_driver as driver
from support.cuda import EXAMPLE, RMS
from support.forms import Form

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


def expected(x: Any, epsilon: float = 1e-6) -> Any:
    wide = x.double()
    return wide / (wide.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()


@pytest.fixture
def load(warm_store: Path, mode: Form) -> Callable[..., dm.Module]:
    return lambda **values: mode.load(RMS, **values)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_numbers(load: Callable[..., dm.Module], dtype: str, tolerance: float) -> None:
    x = torch.randn(33, 1024, device="cuda").to(getattr(torch, dtype))
    y = torch.full_like(x, float("nan"))
    load(dtype=dtype, width=1024).rms(x, y, 1e-6)
    assert ((y.double() - expected(x)).abs() <= tolerance * (1 + expected(x).abs())).all()


def test_both_forms_give_the_same_bits(warm_store: Path) -> None:
    x = torch.randn(33, 1024, device="cuda")
    results = []
    for form in ("jit", "aot"):
        y = torch.empty_like(x)
        Form(form).load(RMS, dtype="float32", width=1024).rms(x, y, 1e-6)
        results.append(y)
    assert torch.equal(*results)


def test_runs_on_the_current_stream(load: Callable[..., dm.Module]) -> None:
    rms = load(dtype="float32", width=1024).rms
    x = torch.randn(33, 1024, device="cuda")
    y = torch.empty_like(x)
    rms(x, y, 1e-6)
    stream = torch.cuda.Stream()
    for use in (lambda: rms(x, y, 1e-6), lambda: rms(x, y, 1e-6, stream=torch.cuda.current_stream())):
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)  # cycles: about 10 ms
            use()
            assert not stream.query(), "the call waited, or the sleep was too short"
            done = torch.cuda.Event()
            done.record()
        assert not done.query(), "the call is not behind the sleep"
        done.synchronize()


@pytest.mark.parametrize("given", ["torch", "raw handle"])
def test_runs_on_the_stream_that_is_given(load: Callable[..., dm.Module], given: str) -> None:
    rms = load(dtype="float32", width=1024).rms
    x = torch.randn(33, 1024, device="cuda")
    y = torch.zeros_like(x)
    rms(x, torch.empty_like(x), 1e-6)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
    rms(x, y, 1e-6, stream=stream if given == "torch" else stream.cuda_stream)
    with torch.cuda.stream(torch.cuda.Stream()):
        early = y.clone()  # the call must still wait behind the sleep in its own stream
        torch.cuda.current_stream().synchronize()
    assert not early.any()
    torch.cuda.synchronize()
    assert torch.allclose(y.double(), expected(x), atol=1e-5)


def test_a_stream_without_arrays_on_a_gpu_is_refused(load: Callable[..., dm.Module]) -> None:
    x = torch.zeros(2, 1024)
    with pytest.raises(ValueError, match="stream: expected an argument that is an array on a GPU"):
        load(dtype="float32", width=1024).rms(x, x, 1e-6, stream=0)


def test_captured_into_a_graph(load: Callable[..., dm.Module]) -> None:
    rms = load(dtype="float32", width=1024).rms
    x, y = torch.randn(33, 1024, device="cuda"), torch.zeros(33, 1024, device="cuda")
    rms(x, y, 1e-6)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rms(x, y, 1e-6)
        rms(y, y, 1e-6)
    x.copy_(torch.randn(33, 1024, device="cuda"))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.allclose(y.double(), expected(expected(x)), atol=1e-5)


def test_a_call_with_out_allocates_nothing(load: Callable[..., dm.Module]) -> None:
    rms = load(dtype="float32", width=1024).rms
    x = torch.randn(33, 1024, device="cuda")
    y = torch.empty_like(x)
    rms(x, y, 1e-6)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(100):
        rms(x, y, 1e-6)
    torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.parametrize("form", ["jit", "aot"])
def test_a_miss_during_capture_is_refused(form: str, store: Path) -> None:
    x, y = torch.randn(2, 1024, device="cuda"), torch.zeros(2, 1024, device="cuda")
    # jit: a declared value whose case is nowhere; aot: a value that nobody declared.
    module = RMS.load()
    wide = torch.randn(2, 1032, device="cuda")
    x, y = (x, y) if form == "jit" else (wide, torch.zeros_like(wide))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.raises(dm.MissingSpecialization, match="a CUDA graph is being captured") as e:
        module.rms(x, y, 1e-6)
    assert e.value.missing.get("width") == str(x.shape[1])
    module.rms(x, y, 1e-6)
    assert torch.allclose(y.double(), expected(x), atol=1e-5)


def test_the_first_launch_may_be_a_captured_one(warm_store: Path) -> None:
    # In a new process, so that nothing is loaded.
    RMS.load(dtype="float32", width=4096)
    code = f"""
import importlib.util, torch
spec = importlib.util.spec_from_file_location("example", {str(EXAMPLE)!r})
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
x, y = torch.randn(2, 4096, device="cuda"), torch.zeros(2, 4096, device="cuda")
loaded = module.rms.load(dtype="float32", width=4096)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    loaded.rms(x, y, 1e-6)
graph.replay()
torch.cuda.synchronize()
assert torch.allclose(y, torch.nn.functional.rms_norm(x, (4096,), eps=1e-6), atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr


def test_many_threads_at_once(load: Callable[..., dm.Module]) -> None:
    module = load(dtype="float16", width=4096)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                x = torch.randn(8, 4096, device="cuda", dtype=torch.float16)
                y = torch.empty_like(x)
                for _ in range(50):
                    module.rms(x, y, 1e-6)
            stream.synchronize()
            assert torch.allclose(y.double(), expected(x), atol=1e-2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_thread_without_a_context(warm_store: Path) -> None:
    """torch gives a thread its context when that thread first uses the GPU; a launch must not rely on it."""
    x = torch.randn(8, 1024, device="cuda")
    y = torch.empty_like(x)
    rms = RMS.load(dtype="float32", width=1024).rms
    thread = threading.Thread(target=rms, args=(x, y, 1e-6))
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert torch.allclose(y.double(), expected(x), atol=1e-5)


def test_neither_import_nor_load_makes_a_context(warm_store: Path) -> None:
    RMS.load(dtype="float32", width=1024)
    code = f"""
import ctypes, importlib.util
spec = importlib.util.spec_from_file_location("example", {str(EXAMPLE)!r})
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
module.rms.load(dtype="float32", width=1024)
cuda = ctypes.CDLL("libcuda.so.1")
flags, active = ctypes.c_uint(), ctypes.c_int(7)
assert cuda.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0
assert active.value == 0, "a primary context is active"
context = ctypes.c_void_p()
assert cuda.cuCtxGetCurrent(ctypes.byref(context)) == 0 and not context.value
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr


def test_a_launch_that_fails_names_what_was_launched(
    copy_of: Callable[..., dm.Kernel], mode: Form, store: Path
) -> None:
    kernel = copy_of(RMS)
    case = kernel.root / "rms_case.cc"
    case.write_text(case.read_text().replace("config.block.x = 128", "config.block.x = 2048"))
    x = torch.randn(2, 1024, device="cuda")
    with pytest.raises(RuntimeError) as caught:
        mode.load(kernel, dtype="float32", width=1024).rms(x, x, 1e-6)
    for part in ("rms_kernel", "dtype=float32, width=1024", "grid 2x1x1", "block 2048x1x1", "CUDA_ERROR_INVALID_VALUE"):
        assert part in str(caught.value)


def test_params_that_the_two_sides_see_differently_are_refused(
    copy_of: Callable[..., dm.Kernel], mode: Form, store: Path
) -> None:
    kernel = copy_of(RMS)
    params = kernel.root / "rms_params.h"
    params.write_text(
        params.read_text().replace(
            "  float epsilon;", "  float epsilon;\n#if defined(__CUDACC__)\n  long more;\n#endif"
        )
    )
    x = torch.randn(2, 1024, device="cuda")
    with pytest.raises(TypeError, match="parameter 0: the device code expects 40 bytes, the host passes 32"):
        mode.load(kernel, dtype="float32", width=1024).rms(x, x, 1e-6)


def test_much_shared_memory_and_clusters(copy_of: Callable[..., dm.Kernel], mode: Form, store: Path) -> None:
    kernel = copy_of(RMS)
    case = kernel.root / "rms_case.cc"
    more = "config.block.x = 128;\n  config.shared_bytes = 100 << 10;\n  config.cluster.x = 2;"
    case.write_text(case.read_text().replace("config.block.x = 128;", more))
    x = torch.randn(4, 1024, device="cuda")
    y = torch.empty_like(x)
    mode.load(kernel, dtype="float32", width=1024).rms(x, y, 1e-6)
    assert torch.allclose(y.double(), expected(x), atol=1e-5)


def test_ptx_serves_where_no_machine_code_does(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RMS.build(tmp_path / "ahead", archs=["compute_80"], dtype="float32", width=1024)
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "ahead"))
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "empty"))
    x = torch.randn(4, 1024, device="cuda")
    y = torch.empty_like(x)
    module = RMS.load(policy="aot", dtype="float32", width=1024)
    module.rms(x, y, 1e-6)
    assert [r.artifact.meta.target for r in module.resolutions if r.unit.kind == "device"] == ["compute_80"]
    assert torch.allclose(y.double(), expected(x), atol=1e-5)


def test_of_several_architectures_the_best_is_taken(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    major, minor = torch.cuda.get_device_capability()
    best = f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else "")
    RMS.build(tmp_path / "ahead", archs=["compute_80", "sm_80", best], dtype="float32", width=1024)
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "ahead"))
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "empty"))
    module = RMS.load(policy="aot", dtype="float32", width=1024)
    assert [r.artifact.meta.target for r in module.resolutions if r.unit.kind == "device"] == [best]


def test_code_for_another_gpu_alone_is_missing(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "sm_90" if torch.cuda.get_device_capability()[0] != 9 else "sm_100"
    RMS.build(tmp_path / "ahead", archs=[other], dtype="float32", width=1024)
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "ahead"))
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "empty"))
    with pytest.raises(dm.MissingSpecialization, match=f"shared store .* has it only for {other}, which"):
        RMS.load(policy="aot", dtype="float32", width=1024)


def test_an_edited_device_source_is_another_kernel(copy_of: Callable[..., dm.Kernel], store: Path) -> None:
    kernel = copy_of(RMS)
    x = torch.randn(2, 1024, device="cuda")
    y, z = torch.empty_like(x), torch.empty_like(x)
    kernel.load(dtype="float32", width=1024).rms(x, y, 1e-6)
    source = kernel.root / "rms.cu"
    source.write_text(source.read_text().replace("* scale)", "* scale * 2)"))
    kernel.load(dtype="float32", width=1024).rms(x, z, 1e-6)
    assert torch.equal(2 * y, z)


def test_cupy(load: Callable[..., dm.Module]) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    rms = load(dtype="float32", width=1024).rms
    x = cupy.random.standard_normal((8, 1024), dtype=cupy.float32)
    y, z = cupy.zeros_like(x), cupy.zeros_like(x)
    rms(x, y, 1e-6)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        torch.cuda.ExternalStream(stream.ptr)
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
            torch.cuda._sleep(20_000_000)
        rms(x, z, 1e-6)
        assert not stream.done, "the call waited, or the sleep was too short"
    stream.synchronize()
    rows = x.astype(cupy.float64)
    reference = rows / cupy.sqrt((rows**2).mean(-1, keepdims=True) + 1e-6)
    assert float(abs(y - reference).max()) < 1e-5
    assert bool((y == z).all())
