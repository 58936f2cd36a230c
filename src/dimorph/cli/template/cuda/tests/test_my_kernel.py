"""The device code compiles for every architecture without spilling; on a GPU the kernel agrees with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from my_kernel import KERNEL, my_kernel


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return found


def test_jit_compiles_for_every_architecture_without_spilling(tmp_path: Path) -> None:
    report = KERNEL.build(tmp_path, dtype="bfloat16", width=1024)
    found = {one.meta.target: one.meta.device for one in report.artifacts if one.meta.device}
    assert found.keys() == {"sm_80", "sm_90"}
    for device in found.values():
        assert device.kernels["my_kernel_device"]["spill_stores"] == 0


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["jit", "aot"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("width", [1024, 4096])
def test_both_forms_agree_with_torch(torch: Any, form: str, dtype: str, width: int) -> None:
    # One value for every axis, or all declared ones: the same sources, constants or a switch.
    module = KERNEL.load(dtype=dtype, width=width) if form == "jit" else KERNEL.load()
    x = torch.randn(5, width, device="cuda").to(getattr(torch, dtype))
    y = torch.empty_like(x)
    module.my_kernel(x, y, 1e-6)
    expected = torch.nn.functional.rms_norm(x.float(), (width,), eps=1e-6)
    torch.testing.assert_close(y, expected.to(x.dtype))


@pytest.mark.gpu
def test_the_function_serves_and_refuses(torch: Any) -> None:
    x = torch.ones(3, 1024, device="cuda")
    y = torch.empty_like(x)
    my_kernel(x, y)
    torch.testing.assert_close(y, x)
    with pytest.raises(ValueError, match="argument 'y'"):
        my_kernel(x, y[:2])
