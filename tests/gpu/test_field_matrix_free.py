"""The operators of examples/matrix_free on a GPU agree with those on the CPU, in both forms."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest

from dimorph.toolchain import nvidia_driver as driver
from support.paths import EXAMPLES

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

sys.path.append(str(EXAMPLES / "matrix_free" / "src"))
mf: Any = importlib.import_module("matrix_free")


def bend(points: np.ndarray) -> np.ndarray:
    bump = np.prod(np.sin(np.pi * points), axis=1, keepdims=True)
    return points + bump * np.array([0.08, -0.06, 0.04])


def to_gpu(array: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array)).cuda()


@pytest.mark.parametrize("form", ["jit", "aot"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("degree", [1, 2, 3, 6, 8])
def test_a_gpu_agrees_with_the_cpu(warm_store: Any, degree: int, dtype: str, form: str) -> None:
    module = mf.GPU_KERNEL.load(degree=[1, 2, 3, 6, 8]) if form == "aot" else None
    mesh = mf.grid((5, 3, 4), bend)
    for physics in (mf.MASS, mf.DIFFUSION):
        of_gpu = mf.Operator(mesh, degree, physics, dtype, to_gpu, module)
        of_cpu = mf.Operator(mesh, degree, physics, dtype)
        x = np.random.default_rng(0).standard_normal(of_gpu.unknowns).astype(dtype)
        y = of_gpu(to_gpu(x), torch.full((of_gpu.unknowns,), float("nan"), dtype=getattr(torch, dtype), device="cuda"))
        same = np.empty_like(x)
        same[of_cpu.numbers()] = x[of_gpu.numbers()]
        expected = of_cpu(same)[of_cpu.numbers()]
        bound = {"float32": 1e-4, "float64": 1e-12}[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(y.cpu().numpy()[of_gpu.numbers()], expected, rtol=0, atol=bound)


def test_a_physics_with_parameters_that_nobody_declared(warm_store: Any) -> None:
    mesh, physics = mf.grid((3, 3, 3), bend), mf.HELMHOLTZ(shift=2.0, contrast=0.5)
    of_gpu, of_cpu = mf.Operator(mesh, 9, physics, to_gpu=to_gpu), mf.Operator(mesh, 9, physics)
    x = np.random.default_rng(0).standard_normal(of_gpu.unknowns)
    y = of_gpu(to_gpu(x), torch.empty(of_gpu.unknowns, dtype=torch.float64, device="cuda")).cpu().numpy()
    same = np.empty_like(x)
    same[of_cpu.numbers()] = x[of_gpu.numbers()]
    np.testing.assert_allclose(y[of_gpu.numbers()], of_cpu(same)[of_cpu.numbers()], rtol=0, atol=1e-10)
