"""Attention in torch: the function shaped like torch's, the operator, and what has no gradient."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from dimorph.attention.torch import register_variant, scaled_dot_product_attention
from support.torch_inputs import CU_K, CU_Q, SLOPES, Decay, close, inputs, rows

peer = torch.nn.functional.scaled_dot_product_attention
operator = torch.ops.dimorph.attention.default


@pytest.fixture(autouse=True)
def fresh(warm_store: Path) -> Iterator[None]:
    torch.manual_seed(1)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# The function shaped like torch's.


@pytest.mark.parametrize("lengths", [(70, 70), (70, 90), (90, 70), (1, 90), (9, 5)])
@pytest.mark.parametrize("causal", [False, True])
def test_is_causal_is_aligned_as_torch_has_it(causal: bool, lengths: tuple[int, int]) -> None:
    q, k, v = inputs(*lengths)
    close(scaled_dot_product_attention(q, k, v, is_causal=causal), peer(q, k, v, is_causal=causal))


MASKS = [(90,), (70, 90), (2, 1, 1, 90), (2, 1, 70, 90), (1, 4, 70, 90), (2, 4, 70, 90), (4, 1, 90), (2, 1, 70, 1)]


@pytest.mark.parametrize("shape", MASKS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_are_broadcast(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    q, k, v = inputs()
    mask = torch.rand(shape) < 0.5 if dtype == torch.bool else torch.randn(shape)
    if shape == (2, 1, 70, 1):
        mask = torch.ones_like(mask)
    full = mask.expand(2, 4, 70, 90)
    expected = peer(q, k, v, full)
    close(scaled_dot_product_attention(q, k, v, mask), expected)
    close(scaled_dot_product_attention(q, k, v, full), expected)
    close(scaled_dot_product_attention(q, k, v, full.contiguous()), expected)


def test_a_query_that_sees_no_key_is_zero() -> None:
    q, k, v = inputs()
    keep = torch.rand((2, 1, 70, 90)) < 0.5
    keep[0, :, 3] = False
    for mask in (keep, torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)):
        out = scaled_dot_product_attention(q, k, v, mask)
        assert not out[0, :, 3].any()
        keep[0, :, 3, 0] = True  # so that torch has a number there too, which is not compared
        expected = peer(q, k, v, keep)
        keep[0, :, 3, 0] = False
        out[0, :, 3] = expected[0, :, 3]
        close(out, expected)


def test_groups_of_heads_and_a_scale() -> None:
    q, k, v = inputs(heads=(4, 2))
    close(scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True), peer(q, k, v, scale=0.3, enable_gqa=True))


def test_bfloat16_and_a_float_mask_of_its_own_dtype() -> None:
    q, k, v = (x.bfloat16() for x in inputs())
    mask = torch.randn(70, 90).bfloat16()
    out = scaled_dot_product_attention(q, k, v, mask)
    expected = peer(*(x.float() for x in (q, k, v)), mask.float())
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().max() <= 2 * torch.finfo(torch.bfloat16).eps * expected.abs().max()


def test_a_new_output_is_contiguous() -> None:
    """Whatever the strides of the query and the head dim of the value."""
    q, k, v = rows()
    wide = torch.randn(2, 90, 4, 48)
    for query in (q, q.contiguous(), q.transpose(1, 2).contiguous().transpose(1, 2), torch.stack([q, q], 2)[:, :, 1]):
        for value in (v, wide):
            out, lse = at.attention(query, k, value, return_lse=True)
            assert out.shape == (2, 70, 4, value.shape[-1])
            assert out.is_contiguous()
            assert lse.is_contiguous()


def test_a_tensor_is_copied_only_where_its_last_dimension_is_not_contiguous(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = torch.randn(2, 70, 3, 4, 32).permute(2, 0, 3, 1, 4)
    seen: list[Tensor] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, **others: Any) -> Tensor:
        seen.extend((q, k, v))
        return attention(q, k, v, **others)  # type: ignore[no-any-return]

    attention = at.attention
    monkeypatch.setattr(at, "attention", spy)
    q, k, v = packed
    close(scaled_dot_product_attention(q, k, v), peer(q, k, v))
    assert [x.data_ptr() for x in seen] == [x.data_ptr() for x in (q, k, v)]
    strided = torch.randn(2, 4, 32, 70).transpose(2, 3)
    close(scaled_dot_product_attention(strided, k, v), peer(strided, k, v))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dropout_p": 0.1}, NotImplementedError, "argument 'dropout_p': expected 0, got 0.1"),
        ({"is_causal": True, "attn_mask": torch.ones(70, 90)}, ValueError, "'is_causal': expected one of them, got"),
        ({"key": torch.zeros(2, 2, 90, 32)}, ValueError, "argument 'key': expected 4 heads or 1, as 'enable_gqa'"),
        (
            {"attn_mask": torch.ones(71, 90)},
            ValueError,
            "expected a shape broadcastable to .2, 4, 70, 90., got .71, 90",
        ),
        ({"attn_mask": torch.ones(1, 1, 1, 70, 90)}, ValueError, "expected a shape broadcastable to"),
        ({"attn_mask": torch.ones(70, 90, dtype=torch.int32)}, TypeError, "expected dtype bool or a floating one"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = dict(zip(("query", "key", "value"), inputs(), strict=True))
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(**(good | change))


# The variants that its masks need, against their definitions in float64; `queries`: single rows, blocks of queries.


@pytest.mark.parametrize("queries", [9, 70])
@pytest.mark.parametrize("shape", [(2, 4), (2, 1), (1, 4), (1, 1)], ids=str)
def test_broadcast_mask(shape: tuple[int, int], queries: int) -> None:
    q, k, v = (x.numpy() for x in rows(queries, 90))
    mask = torch.rand((*shape, queries, 90)).numpy() < 0.5
    mask[..., 3, :] = False
    against_reference(q, k, v, at.broadcast_mask(mask))


@pytest.mark.parametrize("queries", [9, 70])
def test_key_mask(queries: int) -> None:
    q, k, v = (x.numpy() for x in rows(queries, 90))
    mask = torch.rand(2, 90).numpy() < 0.5
    against_reference(q, k, v, at.KeyMask(mask))
    against_reference(q, k, v, at.compose(at.Causal, at.KeyMask(mask)))
    flat = mask.reshape(-1)
    q, k, v = (x.reshape(-1, 4, 32) for x in (q, k, v))
    offsets = {f"cu_seqlens_{name}": np.array([0, n, 2 * n], np.int32) for name, n in (("q", queries), ("k", 90))}
    ragged = at.attention(q, k, v, variant=at.KeyMask(flat), **offsets)
    dense = (x.reshape(2, -1, 4, 32) for x in (q, k, v))
    assert np.array_equal(ragged.reshape(2, -1, 4, 32), at.attention(*dense, variant=at.KeyMask(mask)))


def against_reference(q: Any, k: Any, v: Any, variant: dm.BoundVariant) -> None:
    out, lse = at.attention(q, k, v, variant=variant, return_lse=True)
    expected, expected_lse = reference.attention(q, k, v, variant=variant)
    assert np.abs(out - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max())
    assert np.array_equal(np.isneginf(lse), np.isneginf(expected_lse))
    seen = np.isfinite(expected_lse)
    assert np.abs(lse[seen] - expected_lse[seen]).max() <= 4e-6


def test_a_mask_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"broadcast_mask: argument 'mask': expected 4 dimensions, got shape \(7, 9\)"):
        at.broadcast_mask(np.ones((7, 9), bool))


# The operator.

CASES: dict[str, tuple[str, list[Any], list[int], list[float], dm.Variant | dm.BoundVariant]] = {
    "plain": ("Plain", [], [], [], at.Plain),
    "integers": ("Window", [], [20, 5], [], at.Window(20, 5)),
    "a tensor": ("ALiBi", [SLOPES], [], [], at.ALiBi(SLOPES)),
    "an optional": (
        "CustomMask",
        [torch.ones(2, 70, 90).bool(), None],
        [],
        [],
        at.CustomMask(torch.ones(2, 70, 90).bool()),
    ),
    "composed": ("Causal+SoftCap+ALiBi", [SLOPES], [], [3.0], at.compose(at.Causal, at.SoftCap(3.0), at.ALiBi(SLOPES))),
    "a user's": ("Decay", [], [], [0.05], Decay(0.05)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_operator_is_what_torch_expects(name: str) -> None:
    register_variant(Decay)
    q, k, v = rows()
    *travelling, variant = CASES[name]
    for return_lse in (False, True):
        torch.library.opcheck(operator, (q, k, v, *travelling), {"scale": 0.2, "return_lse": return_lse})
    out, lse = operator(q, k, v, *travelling, scale=0.2, return_lse=True)
    expected, expected_lse = at.attention(q, k, v, variant=variant, scale=0.2, return_lse=True)
    assert torch.equal(out, expected) and torch.equal(lse, expected_lse)


def test_the_operator_on_ragged_tensors() -> None:
    q, k, v = (x[0].contiguous() for x in rows())
    offsets = {"cu_seqlens_q": CU_Q, "cu_seqlens_k": CU_K}
    torch.library.opcheck(operator, (q, k, v, "Causal", [], [], []), offsets | {"return_lse": True})
    out, lse = operator(q, k, v, "Causal", [], [], [], **offsets, return_lse=True)
    expected = at.attention(q, k, v, variant=at.Causal, **offsets, return_lse=True)
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])


def test_names_that_mean_nothing_or_two_things_are_refused() -> None:
    q, k, v = rows()
    with pytest.raises(ValueError, match=r"expected a known one \(ALiBi, .*got 'Unheard'; .*register_variant"):
        operator(q, k, v, "Causal+Unheard", [], [], [])
    for header in ("one.h", "other.h"):
        register_variant(dm.Variant("Twofold", header=header))
    with pytest.raises(ValueError, match="expected a name of one variant, 'Twofold' is of two"):
        operator(q, k, v, "Twofold", [], [], [])
    with pytest.raises(ValueError, match=r"expected parameters \(\) of 'Causal', got 2 more"):
        operator(q, k, v, "Causal", [], [7], [9.0])


# No gradients.


def refused(call: Callable[[], object], name: str) -> None:
    with pytest.raises(Exception, match=f"argument '{name}': expected a tensor that requires no grad, as there is no"):
        call()


def test_what_requires_grad_is_refused_where_a_gradient_would_be_lost() -> None:
    q, k, v = rows()
    wanted, slopes = q.clone().requires_grad_(), SLOPES.clone().requires_grad_()
    compiled = torch.compile(at.attention, fullgraph=True, backend="aot_eager")
    refused(lambda: at.attention(wanted, k, v), "q")
    refused(lambda: at.attention(q, k, wanted), "v")
    refused(lambda: at.attention(q, k, v, variant=at.ALiBi(slopes)), "alibi_slopes")
    refused(lambda: operator(q, k, v, "ALiBi", [slopes], [], []), "alibi_slopes")
    refused(lambda: operator(q, wanted, v, "Plain", [], [], []), "k")
    refused(lambda: compiled(wanted, k, v), "q")
    refused(lambda: scaled_dot_product_attention(*(x.transpose(1, 2) for x in (wanted, k, v))), "q")
    expected = at.attention(q, k, v)
    with torch.no_grad():
        for call in (at.attention, compiled):
            result = call(wanted, k, v)
            assert not result.requires_grad
            close(result, expected)


def test_the_library_is_imported_without_torch() -> None:
    program = "import sys, dimorph.attention; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
