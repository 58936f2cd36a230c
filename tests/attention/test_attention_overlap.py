"""Results that share memory with an argument are refused, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dimorph import attention as at
from dimorph.attention import attention


@pytest.fixture(autouse=True)
def prepared(warm_store: Path) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def rows() -> list[Tensor]:
    return [torch.randn(2, 8, 2, 16) for _ in range(3)]


def test_slices_of_one_array_do_not_overlap() -> None:
    packed = torch.randn(2, 8, 4, 2, 16)
    q, k, v, out = packed.unbind(2)
    expected = attention(q.clone(), k.clone(), v.clone())
    assert torch.equal(attention(q, k, v, out=out), expected)
    # Rows of queries with other numbers of heads and other head dims between them.
    wide = torch.randn(2, 8, 4 * 16 + 2 * 16 + 2 * 32 + 4 * 32)
    parts = wide.split([64, 32, 64, 128], -1)
    q, k, v, out = (x.unflatten(-1, (heads, -1)) for x, heads in zip(parts, (4, 2, 2, 4), strict=True))
    expected = attention(q.clone(), k.clone(), v.clone())
    assert torch.equal(attention(q, k, v, out=out), expected)
    backwards = np.zeros((2, 8, 2, 32), np.float32)
    q_, out_ = backwards[..., :16], backwards[::-1, :, ::-1, 16:]
    attention(q_, q_.copy(), q_.copy(), out=out_)


@pytest.mark.parametrize("argument", ["q", "k", "v"])
@pytest.mark.parametrize(
    "pair",
    [
        lambda x: (x.view(-1)[:512].view(2, 8, 2, 16), x.view(-1)[256:768].view(2, 8, 2, 16)),
        lambda x: (x.view(-1)[:512].view(2, 8, 2, 16), x.view(-1)[511:1023].view(2, 8, 2, 16)),
        lambda x: (x.view(2, 8, 4, 16)[:, :, :2], x.view(2, 8, 4, 16)[:, :, 1:3]),
        lambda x: (x.view(2, 8, 2, 32)[..., :16], x.view(2, 8, 2, 32)[..., 15:31]),
        lambda x: (x.view(2, 8, 2, 32)[..., :16], x.view(-1)[500:1012].view(2, 8, 2, 16)),
        lambda x: (x.view(2, 8, 2, 32)[..., :16], x.view(2, 8, 2, 32)[..., :16]),
        lambda x: (x.view(2, 8, 2, 32)[:, :, :1, :16].expand(2, 8, 2, 16), x.view(-1)[:512].view(2, 8, 2, 16)),
    ],
)
def test_a_result_that_overlaps_an_argument_is_refused(pair: Any, argument: str) -> None:
    arrays = dict(zip("qkv", rows(), strict=True))
    arrays[argument], out = pair(torch.zeros(1024))
    with pytest.raises(ValueError, match=f"argument 'out': expected memory of its own, got that of '{argument}'"):
        attention(**arrays, out=out)


@pytest.mark.parametrize("argument", ["q", "v", "out"])
def test_a_log_sum_exp_that_overlaps_another_array_is_refused(argument: str) -> None:
    arrays = dict(zip(("q", "k", "v", "out"), (*rows(), torch.zeros(2, 8, 2, 16)), strict=True))
    lse = arrays[argument].view(-1)[100:132].view(2, 8, 2)
    with pytest.raises(ValueError, match=f"argument 'lse': expected memory of its own, got that of '{argument}'"):
        attention(**arrays, lse=lse, return_lse=True)


def test_overlap_is_what_the_elements_say() -> None:
    """Random views of one array: refused exactly if two addresses are one."""
    generator = np.random.default_rng(1)
    base = np.zeros(4096, np.float32)
    k = v = np.zeros((2, 4, 1, 16), np.float32)
    for _ in range(300):
        strides = [int(generator.choice([16, 24, 32, 48, 64, 96, 128, 192, 256, 320])) for _ in range(4)]

        def view(start: int, batch: int, row: int) -> Any:
            return np.lib.stride_tricks.as_strided(base[start:], (2, 4, 1, 16), (4 * batch, 4 * row, 64, 4))

        q = view(int(generator.integers(0, 600)), strides[0], strides[1])
        out = view(int(generator.integers(0, 600)), max(strides[2], 4 * strides[3]), strides[3])
        addresses = [
            {x[b, r, 0].ctypes.data + 4 * d for b in range(2) for r in range(4) for d in range(16)} for x in (q, out)
        ]
        if addresses[0] & addresses[1]:
            with pytest.raises(ValueError, match="argument 'out': expected memory of its own"):
                attention(q, k, v, out=out)
        else:
            attention(q, k, v, out=out)


@pytest.mark.parametrize("result", ["out", "lse"])
@pytest.mark.parametrize("argument", ["cu_seqlens_q", "cu_seqlens_k"])
def test_offsets_in_a_result_are_refused(result: str, argument: str) -> None:
    q, k, v = (torch.randn(400, 4, 20) for _ in range(3))
    results = {"out": torch.zeros(400, 4, 20), "lse": torch.zeros(400, 4)}
    offsets = {name: torch.arange(401, dtype=torch.int32) for name in ("cu_seqlens_q", "cu_seqlens_k")}
    offsets[argument] = results[result].view(-1).view(torch.int32)[:401].copy_(offsets[argument])
    with pytest.raises(ValueError, match=f"argument '{result}': expected memory of its own, got that of '{argument}'"):
        attention(q, k, v, **results, **offsets)


def variants(memory: Tensor) -> dict[str, Any]:
    """Variants whose first tensor lies at the beginning of some memory."""

    def inside(values: Tensor) -> Tensor:
        return memory.view(-1).view(values.dtype)[: values.numel()].view(values.shape).copy_(values)

    return {
        "alibi_slopes": at.ALiBi(inside(torch.rand(2))),
        "sinks": at.Sinks(inside(torch.rand(2))),
        "key_mask": at.KeyMask(inside(torch.ones(2, 8, dtype=torch.bool))),
        "qo_documents": at.DocumentMask(inside(torch.ones(2, 8, dtype=torch.int32)), torch.ones(2, 8).int()),
        "bias": at.additive_bias(inside(torch.rand(2, 2, 8, 8))),
    }


@pytest.mark.parametrize("result", ["out", "lse"])
@pytest.mark.parametrize("name", variants(torch.zeros(512)))
def test_tensors_of_a_variant_in_a_result_are_refused(name: str, result: str) -> None:
    q, k, v = rows()
    whole = torch.zeros(2048)
    results = {"out": whole[:512].view(2, 8, 2, 16), "lse": whole[1024 : 1024 + 32].view(2, 8, 2)}
    variant = variants(whole[:512] if result == "out" else whole[1024:1536])[name]
    with pytest.raises(ValueError, match=f"argument '{result}': expected memory of its own, got that of '{name}"):
        attention(q, k, v, **results, variant=variant)


def test_tensors_of_a_variant_beside_a_result_are_taken() -> None:
    q, k, v = rows()
    whole = torch.zeros(516)
    slopes, out = whole[512:514].copy_(torch.rand(2)), whole[:512].view(2, 8, 2, 16)
    assert torch.equal(
        attention(q, k, v, variant=at.ALiBi(slopes), out=out), attention(q, k, v, variant=at.ALiBi(slopes.clone()))
    )
