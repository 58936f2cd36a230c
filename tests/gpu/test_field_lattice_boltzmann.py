"""examples/lattice_boltzmann on a GPU: the flow is that of the CPU, for every lattice, precision and model."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dimorph.toolchain import nvidia_driver as driver
from support.paths import REPOSITORY

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples" / "lattice_boltzmann" / "src"))
    import lattice_boltzmann

    return lattice_boltzmann


@pytest.mark.parametrize("shape", [(48, 96), (20, 24, 48)], ids=["D2Q9", "D3Q19"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-14)])
@pytest.mark.parametrize("model", ["BGK", "TRT", "MRT"])
def test_a_flow_is_the_same_on_both(
    package: Any, model: str, dtype: str, tolerance: float, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    collision = {"BGK": package.BGK(0.03), "TRT": package.TRT(0.03, 3 / 16), "MRT": package.MRT(0.03, 0.1, 1.2)}[model]
    kinds = np.where(rng.random(shape) < 0.9, 0, rng.integers(0, 4, shape))
    density, velocity = 1 + 0.01 * rng.random(shape), 0.02 * rng.standard_normal((*shape, len(shape)))
    flows = []
    for device in ("cpu", "cuda"):
        flow = package.Flow(
            shape, collision, kinds=kinds, boundary=(0.03, 0.01, 0.0)[: len(shape)], dtype=dtype, device=device
        )
        flow.start(density, velocity)
        flow.advance(25)
        flows.append(flow)
    np.testing.assert_allclose(flows[1].velocity(), flows[0].velocity(), atol=tolerance)
    np.testing.assert_allclose(flows[1].density(), flows[0].density(), atol=tolerance)
