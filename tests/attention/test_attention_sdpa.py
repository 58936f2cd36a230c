"""The function shaped like torch's beside torch's own: a table of shapes, masks, dtypes and views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as peer

from dimorph.attention.torch import scaled_dot_product_attention
from support.sdpa_shapes import SHAPES

HALF, BRAIN = torch.float16, torch.bfloat16


@pytest.fixture(autouse=True)
def fresh(warm_store: Path) -> Iterator[None]:
    torch.manual_seed(1)
    with torch.no_grad():
        yield


def made(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Tensors for query, key and value; the last shape serves again for those that lack one."""
    return [torch.randn(shapes[min(i, len(shapes) - 1)]) for i in range(3)]


def assert_equal(*args: Any, **options: Any) -> None:
    """Compare with torch, whose results in 16 bit are rounded from float32 as ours are, though by other ways."""
    expected, actual = (function(*args, **options) for function in (peer, scaled_dot_product_attention))
    assert (actual.shape, actual.dtype, actual.device) == (expected.shape, expected.dtype, expected.device)
    bound = 4e-6 if actual.dtype == torch.float32 else 4 * torch.finfo(actual.dtype).eps
    if actual.numel():
        assert (actual - expected).abs().max() <= bound * expected.abs().max().clamp(min=1.0)


def assert_refused(call: Callable[[Any], Any], message: str, error: type[Exception] = ValueError) -> None:
    """Torch refuses it, too."""
    with pytest.raises(Exception):  # noqa: B017
        call(peer)
    with pytest.raises(error, match=message):
        call(scaled_dot_product_attention)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("is_causal", [False, True])
def test_shapes(name: str, is_causal: bool) -> None:
    q, k, v = made(*SHAPES[name])
    assert_equal(q, k, v, is_causal=is_causal)
    assert_equal(k, q, torch.randn(*q.shape[:-1], 32 if v.shape[-1] else 0), is_causal=is_causal)


GROUPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "4 dimensions": ((2, 4, 7, 32), (2, 2, 9, 32)),
    "3": ((4, 7, 32), (2, 9, 32)),
    "5": ((2, 3, 4, 7, 32), (2, 3, 2, 9, 32)),
    "a shared batch": ((2, 4, 7, 32), (1, 2, 9, 32)),
    "keys and values of other groups": ((2, 4, 7, 32), (2, 1, 9, 32), (2, 2, 9, 32)),
    "heads without groups": ((2, 4, 7, 32), (2, 4, 9, 32)),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_heads(name: str) -> None:
    q, k, v = made(*GROUPS[name])
    assert_equal(q, k, v, enable_gqa=True)
    assert_equal(q, k, v, torch.randn(*q.shape[:-1], 9), enable_gqa=True)


MASKS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "2 dimensions": ((7, 32), (7, 9)),
    "2, shared by queries": ((7, 32), (1, 9)),
    "2, shared by keys": ((7, 32), (7, 1)),
    "3 dimensions": ((4, 7, 32), (4, 7, 9)),
    "3, of 2": ((4, 7, 32), (7, 9)),
    "3, shared by queries": ((4, 7, 32), (4, 1, 9)),
    "4, of a sequence": ((2, 4, 7, 32), (2, 1, 1, 9)),
    "4, of nothing": ((2, 4, 7, 32), (1, 1)),
    "4, of keys and heads": ((2, 4, 7, 32), (4, 1, 9)),
    "5 dimensions": ((2, 3, 4, 7, 32), (2, 3, 4, 7, 9)),
    "5, of the first": ((2, 3, 4, 7, 32), (2, 1, 1, 1, 9)),
    "5, of the second": ((2, 3, 4, 7, 32), (3, 1, 7, 9)),
    "5, of heads": ((2, 3, 4, 7, 32), (4, 7, 9)),
    "5, of nothing": ((2, 3, 4, 7, 32), (1, 1, 1, 7, 9)),
    "5, of keys": ((2, 3, 4, 7, 32), (1, 9)),
}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "sliced": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "every other": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x.narrow(0, 0, 1).expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str, layout: str) -> None:
    shape, given = MASKS[name]
    q, k, v = made(shape, (*shape[:-2], 9, 32))
    mask = LAYOUTS[layout](torch.randn(given))
    keep = LAYOUTS[layout](torch.rand(given) < 0.6)
    assert_equal(q, k, v, mask)
    assert_equal(q, k, v, keep)
    for dtype in (HALF, BRAIN):
        assert_equal(*(x.to(dtype) for x in (q, k, v)), LAYOUTS[layout](mask.to(dtype)))
        assert_equal(*(x.to(dtype) for x in (q, k, v)), mask)


@pytest.mark.parametrize("shape", [(7, 32), (2, 4, 7, 32)])
def test_rows_without_a_key_are_zero(shape: tuple[int, ...]) -> None:
    """As with torch's fused kernels and with its definition; torch before 2.5 gave NaN."""
    q, k, v = made(shape, (*shape[:-2], 9, 32))
    keep = torch.ones(7, 9, dtype=torch.bool)
    keep[3] = False
    for mask in (keep, torch.zeros(7, 9).masked_fill(~keep, -torch.inf)):
        assert_equal(q, k, v, mask)
        assert not scaled_dot_product_attention(q, k, v, mask)[..., 3, :].any()


@pytest.mark.parametrize("layout", ["transposed", "sliced", "every other", "expanded"])
@pytest.mark.parametrize("shape", [(7, 32), (4, 7, 32), (2, 4, 7, 32), (2, 3, 4, 7, 32)], ids=str)
def test_layouts_of_query_key_and_value(shape: tuple[int, ...], layout: str) -> None:
    q, k, v = (LAYOUTS[layout](x) for x in made(shape, (*shape[:-2], 9, 32)))
    assert_equal(q, k, v)
    assert_equal(q, k, v, is_causal=True)


@pytest.mark.parametrize("scale", [None, 0.0, 0.3, -1.0, 2])
def test_scales(scale: float | None) -> None:
    assert_equal(*made((2, 4, 7, 32)), scale=scale)


@pytest.mark.parametrize("dtype", [BRAIN, HALF])
@pytest.mark.parametrize("given", ["float32", "mixed", "float64"])
def test_autocast(given: str, dtype: torch.dtype) -> None:
    q, k, v = made((2, 4, 7, 32), (2, 4, 9, 32))
    mask = torch.randn(7, 9)
    if given == "mixed":
        q, k = q.half(), k.bfloat16()
    with torch.autocast("cpu", dtype):
        if given == "float64":  # stays what it is, so that nothing fits it
            assert_refused(lambda function: function(q.double(), k, v), "argument 'q'|the dtype of 'q'", TypeError)
            return
        assert_equal(q, k, v)
        assert_equal(q, k, v, mask)
        assert_equal(q, k, v, mask > 0)
        assert_equal(*(x[0, 0] for x in (q, k, v)), is_causal=True)
        with torch.autocast("cpu", enabled=False):
            assert_equal(*(x.float() for x in (q, k, v)))


def test_autocast_in_a_graph() -> None:
    q, k, v = made((2, 4, 7, 32))
    traced = torch.compile(scaled_dot_product_attention, fullgraph=True, backend="eager")
    torch.compiler.reset()
    with torch.autocast("cpu", BRAIN):
        assert torch.equal(traced(q, k, v), scaled_dot_product_attention(q, k, v))
    assert traced(q, k, v).dtype == torch.float32
    torch.compiler.reset()


QKV = ((2, 4, 7, 32), (2, 4, 9, 32), (2, 4, 9, 32))


@pytest.mark.parametrize(
    ("change", "message", "error"),
    [
        ({"query": (32,)}, r"argument 'query': expected \[..., seq, head_dim\], got shape \(32,\)", ValueError),
        ({"key": (2, 2, 9, 32)}, "argument 'key': expected 4 heads or 1, as 'enable_gqa' is False, got 2", ValueError),
        ({"value": (3, 9, 32)}, "argument 'value': expected 4 heads or 1, as 'enable_gqa' is False, got 3", ValueError),
        ({"key": (3, 4, 9, 32)}, r"expected broadcastable batches, got \(2,\), \(3,\), \(2,\)", ValueError),
        ({"key": (2, 4, 9, 16)}, "argument 'k': expected size 32 in dimension 3", ValueError),
        ({"attn_mask": (6, 9)}, r"broadcastable to \(2, 4, 7, 9\), got \(6, 9\)", ValueError),
        ({"attn_mask": (1, 2, 4, 7, 9)}, r"broadcastable to \(2, 4, 7, 9\), got \(1, 2", ValueError),
    ],
)
def test_shapes_that_torch_refuses(change: dict[str, tuple[int, ...]], message: str, error: type[Exception]) -> None:
    shapes = dict(zip(("query", "key", "value"), QKV, strict=True)) | change
    assert_refused(lambda function: function(**{n: torch.zeros(s) for n, s in shapes.items()}), message, error)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((3, 3), "'q': expected a number of heads that is a multiple of the 3 of 'k', got 4"),
        ((8, 8), "'key': expected a number of heads that divides the 4 of 'query', got 8"),
        ((2, 3), "'value': expected a number of heads that divides the 4 of 'query', got 3"),
    ],
)
def test_groups_that_torch_refuses(heads: tuple[int, int], message: str) -> None:
    tensors = made(QKV[0], *((2, number, 9, 32) for number in heads))
    assert_refused(lambda function: function(*tensors, enable_gqa=True), message)


@pytest.mark.parametrize(
    ("index", "change", "message", "error"),
    [
        (1, lambda x: x.bfloat16(), "argument 'k': expected the dtype of 'q', float32, got bfloat16", TypeError),
        (2, lambda x: x.half(), "argument 'v': expected the dtype of 'q', float32, got float16", TypeError),
        (3, lambda x: x.int(), "attention mask: expected dtype bool or a floating one, got torch.int32", TypeError),
    ],
)
def test_what_does_not_belong_together(index: int, change: Any, message: str, error: type[Exception]) -> None:
    tensors = [*made(*QKV), torch.ones(7, 9)]
    tensors[index] = change(tensors[index])
    assert_refused(lambda function: function(*tensors), message, error)


# Torch computes something here.
@pytest.mark.parametrize(
    ("call", "message", "error"),
    [
        (lambda f, q, k, v: f(q, k, v, torch.ones(7, 9), is_causal=True), "expected one of them, got both", ValueError),
        (lambda f, q, k, v: f(q, k, v, dropout_p=0.5), "argument 'dropout_p': expected 0", NotImplementedError),
        (lambda f, q, k, v: f(q, k, torch.cat([v, v], 2)), "argument 'v': expected size 9 in dim", ValueError),
    ],
)
def test_what_is_refused_here_alone(call: Any, message: str, error: type[Exception]) -> None:
    tensors = made(*QKV)
    call(peer, *tensors)
    with pytest.raises(error, match=message):
        call(scaled_dot_product_attention, *tensors)


@pytest.mark.parametrize("shapes", [((7, 32), (2, 1, 9, 32)), ((7, 32), (9, 32))])
def test_groups_are_taken_without_heads(shapes: tuple[tuple[int, ...], ...]) -> None:
    tensors = made(*shapes)
    with pytest.raises(IndexError):
        peer(*tensors, enable_gqa=True)
    expected = peer(*tensors)
    assert (scaled_dot_product_attention(*tensors, enable_gqa=True) - expected).abs().max() <= 4e-6


# Torch refuses it, though its documents allow masks of any broadcastable shape.
@pytest.mark.parametrize("shape", [(9,), ()])
def test_masks_of_fewer_dimensions_are_taken(shape: tuple[int, ...]) -> None:
    tensors, mask = made(*QKV), torch.randn(shape)
    with pytest.raises(IndexError):
        peer(*tensors, mask)
    expected = peer(*tensors, mask.expand(7, 9))
    assert (scaled_dot_product_attention(*tensors, mask) - expected).abs().max() <= 4e-6


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("query", None),
        ("key", [[1.0]]),
        ("value", np.zeros((2, 4, 7, 32), np.float32)),
        ("attn_mask", [[1]]),
        ("attn_mask", np.ones((7, 7), bool)),
        ("is_causal", "False"),
        ("is_causal", None),
        ("is_causal", torch.tensor(True)),
    ],
)
def test_arguments_of_another_kind_are_named(argument: str, wrong: Any) -> None:
    given = dict(zip(("query", "key", "value"), made((2, 4, 7, 32)), strict=True)) | {argument: wrong}
    with pytest.raises(TypeError, match=f"scaled_dot_product_attention: argument '{argument}': expected"):
        scaled_dot_product_attention(**given)
