"""The function shaped like torch's on nested tensors, beside torch's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as peer

from dimorph.attention import attention
from dimorph.attention.torch import scaled_dot_product_attention


@pytest.fixture(autouse=True)
def fresh(warm_store: Path) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        yield


def nested(lengths: list[int], *sizes: int) -> Tensor:
    """[batch, heads, seq, head_dim], of which every sequence has a seq of its own."""
    return torch.nested.nested_tensor(
        [torch.randn(length, *sizes) for length in lengths], layout=torch.jagged
    ).transpose(1, 2)


def like(x: Tensor) -> Tensor:
    """Other values of the same lengths, which torch recognizes by their offsets."""
    return torch.randn_like(x)


def pair() -> tuple[Tensor, Tensor, Tensor]:
    key = nested([40, 3, 9], 4, 16)
    return nested([3, 70, 5], 4, 16), key, like(key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_lengths_of_their_own(dtype: torch.dtype, autocast: bool) -> None:
    q, k, v = (x.to(dtype) for x in pair())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, actual = (function(q, k, v, scale=0.3) for function in (peer, scaled_dot_product_attention))
    assert actual.is_nested and actual.shape == expected.shape == q.shape and actual.dtype == expected.dtype
    bound = 4e-6 if actual.dtype == torch.float32 else 4 * torch.finfo(actual.dtype).eps
    for ours, theirs in zip(actual.unbind(), expected.unbind(), strict=True):
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max().clamp(min=1.0)
    assert (actual + q).shape == q.shape  # to torch, the lengths are the same


def test_causal_with_the_same_lengths() -> None:
    """Torch has no kernel for it on the CPU."""
    q = nested([3, 40, 5], 4, 16)
    k, v = like(q), like(q)
    actual = scaled_dot_product_attention(q, k, v, is_causal=True)
    for ours, *inputs in zip(actual.unbind(), q.unbind(), k.unbind(), v.unbind(), strict=True):
        assert (ours - peer(*inputs, is_causal=True)).abs().max() <= 4e-6


def test_groups_of_heads() -> None:
    q, k = nested([3, 7], 4, 16), nested([9, 5], 2, 16)
    v = like(k)
    actual = scaled_dot_product_attention(q, k, v, enable_gqa=True)
    for ours, *inputs in zip(actual.unbind(), q.unbind(), k.unbind(), v.unbind(), strict=True):
        expected = peer(*(x[None] for x in inputs), enable_gqa=True)[0]
        assert (ours - expected).abs().max() <= 4e-6


REFUSED: dict[str, tuple[Callable[[Any], Any], str, type[Exception]]] = {
    "a mask": (
        lambda f: f(*pair(), torch.ones(1, 1).bool()),
        "argument 'attn_mask': expected none, as the tensors are nested",
        NotImplementedError,
    ),
    "causal with other lengths": (lambda f: f(*pair(), is_causal=True), "'is_causal'", NotImplementedError),
    "a dense tensor": (lambda f: f(pair()[0], pair()[1], torch.zeros(3, 4, 9, 16)), "argument 'value'", ValueError),
    "a nested value": (
        lambda f: f(torch.zeros(3, 4, 9, 16), torch.zeros(3, 4, 9, 16), pair()[2]),
        "argument 'query': expected a nested tensor",
        ValueError,
    ),
    "3 dimensions": (
        lambda f: f(*[torch.nested.as_nested_tensor([torch.zeros(3, 16)], layout=torch.jagged)] * 3),
        "argument 'query': expected",
        ValueError,
    ),
    "rows before heads": (lambda f: f(*[x.transpose(1, 2) for x in pair()]), "argument 'query': expected", ValueError),
    "other lengths of values": (
        lambda f: f(*pair()[:2], nested([40, 3, 9], 4, 16)),
        "argument 'value': expected size j[0-9]+ in dimension 2, got j",
        ValueError,
    ),
    "other heads": (
        lambda f: f(nested([3, 7], 4, 16), *[nested([3, 7], 2, 16)] * 2),
        "argument 'key': expected size 4 in dimension 1, got 2",
        ValueError,
    ),
    "the strided layout": (
        lambda f: f(*[torch.nested.nested_tensor([torch.randn(4, 3, 16), torch.randn(4, 5, 16)])] * 3),
        "argument 'query': expected a nested tensor .* of the jagged layout",
        ValueError,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    call, message, error = REFUSED[name]
    with pytest.raises(error, match=message):
        call(scaled_dot_product_attention)


@pytest.mark.parametrize("argument", ["q", "k", "v"])
def test_attention_itself_asks_for_values_and_offsets(argument: str) -> None:
    arrays = {name: torch.zeros(2, 8, 4, 16) for name in "qkv"}
    arrays[argument] = nested([3, 7], 4, 16).transpose(1, 2)
    with pytest.raises(ValueError, match=rf"argument '{argument}': expected a dense tensor, got a nested one"):
        attention(**arrays)
