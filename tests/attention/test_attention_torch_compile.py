"""Attention under torch.compile and torch.export: one graph, one operator, the same numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dimorph import attention as at
from dimorph.attention.torch import scaled_dot_product_attention
from support.torch_inputs import CU_K, CU_Q, SLOPES, Decay, close, rows

peer = torch.nn.functional.scaled_dot_product_attention
operator = torch.ops.dimorph.attention.default


@pytest.fixture(autouse=True)
def fresh(warm_store: Path) -> Iterator[None]:
    torch.manual_seed(1)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# torch.compile and torch.export.

MASK, BIAS = torch.rand(70, 90) < 0.5, torch.randn(1, 4, 70, 90)
COMPOSED = at.compose(at.Causal, at.SoftCap(3.0))
CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "plain": at.attention,
    "lse": lambda q, k, v: at.attention(q, k, v, variant=at.Causal, scale=0.2, return_lse=True),
    "made inside": lambda q, k, v: at.attention(q, k, v, variant=at.Window(20, 5)),
    "a user's": lambda q, k, v: at.attention(q, k, v, variant=Decay(rate=0.05)),
    "composed before": lambda q, k, v: at.attention(q, k, v, variant=COMPOSED),
    "composed inside": lambda q, k, v: at.attention(q, k, v, variant=at.compose(Decay(0.1), at.ALiBi(SLOPES))),
    "a bias": lambda q, k, v: at.attention(q, k, v, variant=at.additive_bias(BIAS)),
    "ragged": lambda q, k, v: at.attention(q[0], k[0], v[0], cu_seqlens_q=CU_Q, cu_seqlens_k=CU_K),
    "between others": lambda q, k, v: at.attention(q * 2, k, v.relu()).flatten(2) + 1,
    "sdpa": lambda q, k, v: scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True),
    "sdpa, mask": lambda q, k, v: scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=MASK),
}


@pytest.mark.parametrize(
    ("name", "backend"), [("between others", "inductor"), *((name, "aot_eager") for name in CALLS)]
)
def test_compiled_in_one_graph(name: str, backend: str) -> None:
    q, k, v = rows()
    compiled = torch.compile(CALLS[name], fullgraph=True, backend=backend)
    with torch.no_grad():
        expected, actual = CALLS[name](q, k, v), compiled(q, k, v)
    for one, other in zip(*((x,) if isinstance(x, Tensor) else x for x in (actual, expected)), strict=True):
        close(one, other)
        assert one.stride() == other.stride()


def counting() -> tuple[list[int], Callable[..., Any]]:
    graphs: list[int] = []

    def backend(module: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(1)
        return module

    return graphs, backend


def test_lengths_of_any_value_share_a_graph() -> None:
    graphs, backend = counting()

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Any:
        return at.attention(q, k, v, variant=at.additive_bias(bias))

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for queries, keys in ((70, 90), (40, 60), (90, 70)):
            given = (*rows(queries, keys), torch.randn(1, 4, queries, keys))
            close(compiled(*given), call(*given))
    assert len(graphs) == 1


def test_another_variant_is_another_graph() -> None:
    graphs, backend = counting()
    compiled = torch.compile(
        lambda q, k, v, variant: at.attention(q, k, v, variant=variant), fullgraph=True, backend=backend
    )
    q, k, v = rows()
    variants = (at.Plain, at.Causal, at.SoftCap(2.0), at.SoftCap(3.0), COMPOSED, at.compose(at.Causal, at.Window(9, 9)))
    for _ in range(2):
        for variant in variants:
            close(compiled(q, k, v, variant), at.attention(q, k, v, variant=variant))
    assert 1 < len(graphs) <= len(variants)


def test_a_stream_is_refused_when_compiled() -> None:
    q, k, v = rows()
    compiled = torch.compile(lambda: at.attention(q, k, v, stream=12345), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="argument 'stream': expected none in what is traced"):
        compiled()


def test_outputs_of_the_callers_are_written_when_compiled() -> None:
    q, k, v = rows()
    out, lse = torch.full((2, 70, 4, 32), torch.nan), torch.full((2, 70, 4), torch.nan)

    def call(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> Any:
        return at.attention(q, k, v, out=out, lse=lse) * 2

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    doubled = compiled(q, k, v, out, lse)
    expected = at.attention(q, k, v, return_lse=True)
    close(out, expected[0])
    close(lse, expected[1])
    close(doubled, 2 * expected[0])


def test_a_trace_makes_the_operator(tmp_path: Path) -> None:
    """Also where nothing has imported `dimorph.attention.torch`."""
    program = (
        "import sys, torch\n"
        "from dimorph import attention as at\n"
        "q = torch.randn(1, 9, 2, 32)\n"
        "compiled = torch.compile(lambda: at.attention(q, q, q, variant=at.Causal), fullgraph=True, backend='eager')\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, q):\n"
        "        return at.attention(q, q, q, variant=at.Causal)\n"
        "assert 'dimorph.attention.torch' not in sys.modules\n"
        "with torch.no_grad():\n"
        "    exported = torch.export.export(Model(), (q,)).module()\n"
        "    expected = at.attention(q, q, q, variant=at.Causal)\n"
        "    assert torch.equal(compiled(), expected) and torch.equal(exported(q), expected)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


def test_exported(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Any:
            return at.attention(q, k, v, variant=at.compose(at.Causal, at.SoftCap(3.0)))

    q, k, v = rows()
    torch.export.save(torch.export.export(Model(), (q, k, v)), tmp_path / "model.pt2")
    torch.save((q, k, v, Model()(q, k, v)), tmp_path / "values.pt")
    program = (
        "import torch, dimorph.attention.torch\n"
        "*given, expected = torch.load('values.pt')\n"
        "out = torch.export.load('model.pt2').module()(*given)\n"
        "assert torch.equal(out, expected)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
