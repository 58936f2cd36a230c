"""The function shaped like torch's on a GPU beside torch's own, and random calls of attention."""

from __future__ import annotations

from typing import Any

import pytest

from dimorph.toolchain import nvidia_driver as driver
from support.attention_fuzz import count_results
from support.attention_fuzz_gpu import on_cuda
from support.sdpa_shapes import SHAPES

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

FAMILIES = ["sm80", "sm90"] if torch.cuda.get_device_capability() == (9, 0) else ["sm80"]


def assert_equal(*args: Any, dtype: Any = None, **options: Any) -> None:
    """Compare with torch in float32 on the CPU; `dtype`: what the result has."""
    from dimorph.attention.torch import scaled_dot_product_attention

    with torch.no_grad():
        actual = scaled_dot_product_attention(*args, **options)
        # Torch 2.11 divides by the number of heads where that is 0.
        place = "cpu" if actual.numel() else "meta"
        plain = {name: moved(value, place) for name, value in options.items()}
        expected = torch.nn.functional.scaled_dot_product_attention(*(moved(x, place) for x in args), **plain)
    assert (actual.shape, actual.device.type, actual.dtype) == (expected.shape, "cuda", dtype or args[0].dtype)
    if actual.numel():
        bound = 4 * torch.finfo(actual.dtype).eps * expected.abs().max().clamp(min=1.0)
        assert (actual.float().cpu() - expected).abs().max() <= bound


def moved(value: Any, device: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device) if value.dtype == torch.bool else value.float().to(device)


def made(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return torch.randn(shape, dtype=dtype or torch.bfloat16, device="cuda")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("is_causal", [False, True])
def test_shapes(name: str, is_causal: bool) -> None:
    torch.manual_seed(1)
    shapes = SHAPES[name]
    assert_equal(*(made(shapes[min(i, len(shapes) - 1)]) for i in range(3)), is_causal=is_causal)


@pytest.mark.parametrize("dtype", ["bool", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(2, 4, 70, 90), (1, 1, 70, 90), (70, 90), (2, 1, 1, 90), (2, 4, 70, 1)])
def test_masks(shape: tuple[int, ...], dtype: str) -> None:
    torch.manual_seed(1)
    q, k, v = made((2, 4, 70, 40)), made((2, 4, 90, 40)), made((2, 4, 90, 40))
    mask = made(shape, torch.float32)
    mask = mask > -1 if dtype == "bool" else mask.to(getattr(torch, dtype))
    assert_equal(q, k, v, attn_mask=mask)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast(dtype: str) -> None:
    torch.manual_seed(1)
    to = getattr(torch, dtype)
    q, k, v = (made((2, 4, 50, 64), torch.float32) for _ in range(3))
    with torch.autocast("cuda", to):
        assert_equal(q, k, v, dtype=to)
        assert_equal(q, k.bfloat16(), v.half(), attn_mask=made((50, 50), torch.float32), dtype=to)


@pytest.mark.parametrize("is_causal", [False, True])
def test_jagged_tensors(is_causal: bool) -> None:
    from dimorph.attention.torch import scaled_dot_product_attention

    torch.manual_seed(1)
    rows = [made((length, 4, 64)) for length in (5, 70, 1, 300)]
    x = torch.nested.nested_tensor(rows, layout=torch.jagged).transpose(1, 2)
    with torch.no_grad():
        found = scaled_dot_product_attention(x, x, x, is_causal=is_causal)
        for one, row in zip(found.unbind(), rows, strict=True):
            alone = row.transpose(0, 1)[None]
            expected = scaled_dot_product_attention(alone, alone, alone, is_causal=is_causal)
            assert torch.equal(one, expected[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_random_calls_are_right_or_refused_by_name(family: str) -> None:
    found = count_results(range(3000), on_cuda(family).call)
    assert set(found) == {"right", "refused"} and min(found.values()) > 1000
