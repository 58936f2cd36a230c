"""Tensors whose memory does not hold their values: torch's negative bit, in every argument of attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dimorph import attention as at
from dimorph.attention import Attention, attention


@pytest.fixture(autouse=True)
def prepared(warm_store: Path) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def imaginary(values: Tensor) -> Tensor:
    """The same values as the imaginary part of conjugates, with another sign in memory."""
    made = torch.complex(torch.zeros_like(values), -values).conj().imag
    assert made.is_neg() and torch.equal(made, values)
    return made


def negated(values: Tensor) -> Tensor:
    """The same for whole numbers, and for row-major tensors."""
    made = torch._neg_view(-values)
    assert made.is_neg() and torch.equal(made, values)
    return made


def rows() -> list[Tensor]:
    return [torch.randn(2, 8, 2, 16) for _ in range(3)]


CASES: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "a bias": lambda lazy: at.additive_bias(lazy(torch.linspace(-3, 3, 128).view(2, 1, 8, 8))),
    "slopes": lambda lazy: at.ALiBi(lazy(torch.tensor([0.5, 2.0]))),
    "lengths": lambda lazy: at.KeyPadding(lazy(torch.tensor([3, 5], dtype=torch.int32))),
    "in a composition": lambda lazy: at.compose(at.Causal, at.SoftCap(2.0), at.Sinks(lazy(torch.tensor([0.5, 2.0])))),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_of_variants(name: str) -> None:
    arrays = rows()
    expected = attention(*arrays, variant=CASES[name](lambda x: x))
    assert torch.equal(attention(*arrays, variant=CASES[name](negated)), expected)
    assert not torch.equal(attention(*arrays), expected)


def test_a_parameter_given_to_the_operator() -> None:
    arrays, slopes = rows(), torch.tensor([0.5, 2.0])
    attention(*arrays, variant=at.ALiBi(negated(slopes)))
    out, _ = torch.ops.dimorph.attention.default(*arrays, "ALiBi", [negated(slopes)], [], [])
    assert torch.equal(out, attention(*arrays, variant=at.ALiBi(slopes)))


@pytest.mark.parametrize("lazy", [imaginary, negated])
def test_results(lazy: Callable[[Tensor], Tensor]) -> None:
    arrays = rows()
    expected, expected_lse = attention(*arrays, return_lse=True)
    out, lse = lazy(torch.zeros(2, 8, 2, 16)), lazy(torch.zeros(2, 8, 2))
    for given in ({"out": out}, {"lse": lse}, {"out": out, "lse": lse}):
        out.fill_(7.0), lse.fill_(7.0)
        results = attention(*arrays, return_lse=True, **given)
        assert all(result is given.get(name, result) for name, result in zip(("out", "lse"), results, strict=True))
        assert torch.equal(results[0], expected) and torch.equal(results[1], expected_lse)


def test_offsets() -> None:
    arrays = [x.view(16, 2, 16) for x in rows()]
    offsets = torch.tensor([0, 5, 16], dtype=torch.int32)
    expected = attention(*arrays, cu_seqlens_q=offsets, cu_seqlens_k=offsets)
    for q, k in ((negated(offsets), offsets), (offsets, negated(offsets))):
        assert torch.equal(attention(*arrays, cu_seqlens_q=q, cu_seqlens_k=k), expected)


@pytest.mark.parametrize("argument", ["q", "k", "v", "out", "alibi_slopes"])
def test_beside_arrays_of_numpy_they_are_refused(argument: str) -> None:
    arrays: dict[str, Any] = dict(zip("qkv", rows(), strict=True), out=torch.zeros(2, 8, 2, 16))
    arrays["alibi_slopes"] = torch.tensor([0.5, 2.0])
    arrays = {name: negated(x) if name == argument else x.numpy() for name, x in arrays.items()}
    variant = at.ALiBi(arrays.pop("alibi_slopes"))
    with pytest.raises(TypeError, match=r"attention: argument '[qk]': expected a torch tensor, as torch has to"):
        attention(**arrays, variant=variant)


def test_an_attention_of_ones_own_refuses_them() -> None:
    arrays, own = rows(), Attention()
    for given in ({"out": imaginary(torch.zeros(2, 8, 2, 16))}, {"variant": at.ALiBi(negated(torch.ones(2)))}):
        with pytest.raises(NotImplementedError, match="expected plain tensors"):
            own(*arrays, **given)
