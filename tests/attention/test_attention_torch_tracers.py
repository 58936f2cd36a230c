"""Attention under torch's tracers, modes and transforms, and with tensors that hold no values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import scaled_dot_product_attention as expected
from torch.utils._python_dispatch import TorchDispatchMode

from dimorph.attention import Attention, Causal, KeyPadding, additive_bias, attention
from dimorph.attention.torch import scaled_dot_product_attention as ours

BOUND = 4e-6


@pytest.fixture(autouse=True)
def prepared(warm_store: Path) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def tensors(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = shape or (2, 2, 8, 16)
    return torch.randn(shape), torch.randn(shape), torch.randn(shape)


@pytest.mark.parametrize(
    "call", [lambda q, k, v: ours(q, k, v, scale=0.5), lambda q, k, v: ours(q, k, v, is_causal=True)]
)
def test_make_fx_records_the_call(call: Callable[..., torch.Tensor]) -> None:
    graph = make_fx(call)(*tensors())
    assert torch.ops.dimorph.attention.default in [node.target for node in graph.graph.nodes]
    others = tensors()
    assert (graph(*others) - call(*others)).abs().max() <= BOUND


@pytest.mark.parametrize("variant", [Causal, KeyPadding(torch.full((2,), 5, dtype=torch.int32))])
def test_jit_trace_is_refused(variant: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"attention: not supported by torch\.jit\.trace"):
        torch.jit.trace(lambda q, k, v: attention(q, k, v, variant=variant), tensors())


def test_a_mode_sees_the_call() -> None:
    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    q, k, v = tensors()
    with Recorder():
        out = ours(q, k, v)
    assert torch.ops.dimorph.attention.default in seen
    assert (out - expected(q, k, v)).abs().max() <= BOUND


def test_vmap() -> None:
    q, k, v = tensors(3, 2, 2, 8, 16)
    bias = torch.randn(3, 8, 8)
    assert (torch.vmap(ours)(q, k, v) - expected(q, k, v)).abs().max() <= BOUND
    actual = torch.vmap(ours, in_dims=(0, None, 0, 0))(q, k[0], v, bias)
    for i in range(3):
        assert (actual[i] - expected(q[i], k[0], v[i], bias[i])).abs().max() <= BOUND
    shared = torch.vmap(ours, in_dims=(None, None, None, 0))(q[0], k[0], v[0], bias)
    assert (shared[2] - expected(q[0], k[0], v[0], bias[2])).abs().max() <= BOUND
    out, lse = torch.vmap(lambda *qkv: attention(*qkv, return_lse=True), in_dims=1, out_dims=1)(q, k, v)
    assert out.shape == q.shape and lse.shape == q.shape[:-1]
    assert torch.equal(out[:, 1], attention(q[:, 1], k[:, 1], v[:, 1]))


def test_functionalize() -> None:
    q, k, v = tensors()
    assert (torch.func.functionalize(ours)(q, k, v) - expected(q, k, v)).abs().max() <= BOUND


@pytest.mark.parametrize("where", ["meta", "fake"])
def test_tensors_without_values(where: str) -> None:
    q, k, v = tensors()
    mode = FakeTensorMode()
    q, k, v = (x.to("meta") if where == "meta" else mode.from_tensor(x) for x in (q, k, v))
    out, lse = attention(q, k, v[..., :16], return_lse=True)
    assert (out.shape, out.dtype, type(out)) == (q.shape, q.dtype, type(q)) and lse.shape == q.shape[:-1]
    assert out.device == q.device
    other = tensors()[1]
    with pytest.raises((ValueError, AssertionError), match=r"'k'.*device|convert all Tensors to FakeTensors"):
        attention(q, other, v)


def test_a_fake_tensor_beside_a_real_one_is_refused() -> None:
    q, k, v = tensors()
    with pytest.raises(AssertionError, match="convert all Tensors to FakeTensors"):
        attention(q, FakeTensorMode().from_tensor(k), v)


@pytest.mark.parametrize("name", ["q", "k", "v", "bias"])
def test_tangents_are_refused(name: str) -> None:
    arrays = dict(zip("qkv", tensors(), strict=True), bias=torch.randn(1, 1, 2, 2))
    with forward_ad.dual_level():
        bias = arrays.pop("bias")
        assert attention(**arrays, variant=additive_bias(bias)).shape == (2, 2, 8, 16)  # none has a tangent
        arrays["bias"] = bias
        arrays[name] = forward_ad.make_dual(arrays[name], torch.ones_like(arrays[name]))
        bias = arrays.pop("bias")
        with pytest.raises(RuntimeError, match=f"argument '{name}': expected a tensor without a tangent"):
            attention(**arrays, variant=additive_bias(bias))


def test_transforms_with_derivatives_are_refused() -> None:
    q, k, v = tensors()
    with pytest.raises(RuntimeError, match="argument 'q': expected a tensor without a tangent"):
        torch.func.jvp(lambda x: ours(x, k, v), (q,), (q,))
    with torch.enable_grad(), pytest.raises(RuntimeError, match=r"argument 'v': .* no backward pass"):
        torch.func.grad(lambda x: ours(q, k, x).sum())(v)


@pytest.mark.parametrize("index", range(4))
def test_negative_bits_are_resolved(index: int) -> None:
    arrays = [*tensors(), torch.randn(8, 8)]
    arrays[index] = torch._neg_view(arrays[index])
    q, k, v, bias = arrays
    assert arrays[index].is_neg()
    assert (ours(q, k, v, bias) - expected(q, k, v, bias)).abs().max() <= BOUND


@pytest.mark.parametrize("part", ["real", "imag"])
def test_parts_of_conjugates(part: str) -> None:
    q, k, v = (getattr(torch.complex(x, x * x).conj(), part) for x in tensors())
    assert (ours(q, k, v) - expected(q, k, v)).abs().max() <= BOUND


def test_an_attention_of_ones_own_says_what_to_call() -> None:
    own = Attention()
    q, k, v = tensors()
    assert torch.equal(own(q, k, v), attention(q, k, v))
    for call in (lambda: own(q.to("meta"), k, v), lambda: make_fx(own)(q, k, v)):
        with pytest.raises(NotImplementedError, match=r"only `dimorph\.attention\.attention` can be called"):
            call()
