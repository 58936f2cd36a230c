"""Calls over caches that torch has to see: in compiled graphs, exported programs, modes and transforms."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from dimorph import attention as at
from dimorph.attention import KVCache, appending, merging, operation, torch_cache_operators
from dimorph.attention.request import CachedCall
from support.torch_inputs import CU_Q, Decay

for module in (operation, appending, merging):
    module.define_operator()
ops = torch.ops.dimorph
HEADS, KV_HEADS, DIM, PAGES, PAGE = 4, 2, 32, 24, 16
LENGTHS = torch.tensor([5, 100, 33], dtype=torch.int32)
FLOAT8 = torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def fresh(warm_store: Path) -> Iterator[None]:
    torch.manual_seed(1)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def paged(dtype: torch.dtype = torch.float32, **options: Any) -> KVCache:
    pool = torch.randn(PAGES, 2, PAGE, KV_HEADS, DIM).to(dtype)
    if options.get("layout") == "HND":
        pool = pool.transpose(2, 3)
    table = torch.randperm(PAGES)[:21].view(3, 7).to(torch.int32)
    return KVCache(pool[:, 0], pool[:, 1], block_table=table, seqlens=LENGTHS, **options)


def indexed() -> KVCache:
    """As `paged`, with the pages of sequences in one list."""
    cache = paged()
    pages = [cache.block_table[b, : -(-int(length) // PAGE)] for b, length in enumerate(LENGTHS)]
    ends = torch.tensor([0, *(len(x) for x in pages)]).cumsum(0).to(torch.int32)
    last = (LENGTHS - 1) % PAGE + 1
    return KVCache(cache.k, cache.v, indptr=ends, indices=torch.cat(pages), last_page_len=last.to(torch.int32))


def ragged() -> KVCache:
    room = torch.tensor([0, 100, 200, 300], dtype=torch.int32)
    return KVCache(*torch.randn(2, 300, KV_HEADS, DIM), cu_seqlens=room, seqlens=LENGTHS)


def copy(cache: KVCache) -> KVCache:
    return dataclasses.replace(cache, k=cache.k.clone(), v=cache.v.clone())


def queries(*shape: int, heads: int = HEADS) -> Tensor:
    return torch.randn(*shape, heads, DIM)


def same(actual: Any, expected: Any) -> None:
    for one, other in zip(*([x] if isinstance(x, Tensor) else x for x in (actual, expected)), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert torch.equal(one.view(torch.int32), other.view(torch.int32))


def targets(module: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if str(node.target).startswith("dimorph")]


# torch.compile and torch.export.


def decode(q: Tensor, k: Tensor, v: Tensor, layers: list[tuple[Tensor, Tensor]], table: Tensor, lengths: Tensor) -> Any:
    caches = [KVCache(*pools, block_table=table, seqlens=lengths) for pools in layers]
    prefix = KVCache(layers[0][0][:1], layers[0][1][:1])
    schedule = at.plan(q, caches[0], variant=at.Causal)
    for cache in caches:
        at.append(cache, k, v, lengths[:, None] - 1)
        out, lse = at.run(schedule, q, cache, return_lse=True)
        first, first_lse = at.attention(q.flatten(0, 1)[None], prefix, return_lse=True)
        outs, lses = [out, first.view_as(out)], [lse, first_lse.view_as(lse)]
        q, lse = at.merge_states(outs, lses)
        k, v = q[:, :, :KV_HEADS].relu(), v + k
    return q, lse


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_decoding_step_is_one_graph(backend: str) -> None:
    caches = [paged() for _ in range(3)]
    q, (k, v) = queries(3, 1), torch.randn(2, 3, 1, KV_HEADS, DIM)
    compiled = torch.compile(decode, fullgraph=True, backend=backend)
    for lengths in (LENGTHS, LENGTHS + 1):
        copies = [copy(cache) for cache in caches]
        table = caches[0].block_table
        actual = compiled(q, k, v, [(cache.k, cache.v) for cache in caches], table, lengths)
        same(actual, decode(q, k, v, [(cache.k, cache.v) for cache in copies], table, lengths))
        for one, other in zip(caches, copies, strict=True):
            same([one.k, one.v], [other.k, other.v])


def written(rows: Tensor, cache: KVCache) -> Tensor:
    at.append(cache, rows, rows, LENGTHS[:, None] - 1)
    return torch.clone(cache.k.view(torch.int8))


CALLS: dict[str, Callable[[], tuple[Callable[..., Any], Tensor, KVCache]]] = {
    "lengths": lambda: (at.attention, queries(3, 2), paged()),
    "indexed": lambda: (at.attention, queries(3, 40), indexed()),
    "HND": lambda: (at.attention, queries(3, 1), paged(layout="HND")),
    "float8": lambda: (at.attention, queries(3, 1), paged(FLOAT8, k_scale=0.5, v_scale=torch.tensor([2.0, 0.25]))),
    "a write in float8": lambda: (
        written,
        queries(3, 1, heads=KV_HEADS),
        copy(paged(FLOAT8, k_scale=0.5, v_scale=torch.tensor([2.0, 0.25]))),
    ),
    "ragged": lambda: (
        lambda q, cache: at.attention(q, cache, cu_seqlens_q=CU_Q, return_lse=True),
        queries(75),  # with rows behind the last sequence
        ragged(),
    ),
    "a user's": lambda: (lambda q, cache: at.attention(q, cache, variant=Decay(rate=0.05)), queries(3, 2), paged()),
    "lengths of queries": lambda: (
        lambda q, cache: at.attention(q, cache, seqlens_q=torch.tensor([2, 0, 1], dtype=torch.int32), scale=0.3),
        queries(3, 2),
        paged(),
    ),
    "results given": lambda: (
        lambda q, cache: at.attention(q, cache, out=(out := torch.ones_like(q)), lse=q.new_ones(3, 2, HEADS)) + out,
        queries(3, 2),
        paged(),
    ),
    "two steps": lambda: (lambda q, cache: at.run(at.plan(q, cache), q, cache), queries(3, 2), paged()),
    "batch invariant": lambda: (
        lambda q, cache: at.run(at.plan(q, cache, batch_invariant=True), q, cache),
        queries(3, 40),  # whose bits are other ones without it
        paged(),
    ),
    "a shared prefix": lambda: (
        lambda q, cache: at.attend_shared(q, KVCache(cache.k[:1], cache.v[:1]), cache, variant=at.Causal),
        queries(3, 2),
        paged(),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_one_graph_with_the_same_numbers(name: str) -> None:
    call, q, cache = CALLS[name]()
    actual, expected = torch.compile(call, fullgraph=True, backend="aot_eager")(q, cache), call(q, cache)
    same(actual, expected)
    assert isinstance(actual, tuple) or actual.stride() == expected.stride()


def test_a_plan_from_outside_serves_in_a_graph_and_one_of_a_graph_outside() -> None:
    q, cache = queries(3, 1), paged()
    compiled = torch.compile(at.run, fullgraph=True, backend="aot_eager")
    expected = at.attention(q, cache)
    same(compiled(at.plan(q, cache), q, cache), expected)
    planned = torch.compile(at.plan, fullgraph=True, backend="aot_eager")(q, cache)
    same(at.run(planned, q, cache), expected)


@pytest.mark.parametrize("parts", [2, 9])
def test_states_are_joined_in_a_graph(parts: int) -> None:
    outs, lses = torch.randn(parts, 3, HEADS, DIM), torch.randn(parts, 3, HEADS)
    compiled = torch.compile(at.merge_states, fullgraph=True, backend="aot_eager")
    same(compiled(outs, lses), at.merge_states(outs, lses))
    same(compiled(list(outs), list(lses)), at.merge_states(outs, lses))
    out, lse = torch.empty(3, HEADS, DIM), torch.empty(3, HEADS)
    compiled(list(outs), list(lses), out=out, lse=lse)
    same([out, lse], at.merge_states(outs, lses))


def test_lengths_and_sizes_of_any_value_share_a_graph() -> None:
    graphs: list[int] = []

    def backend(module: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(1)
        return module

    def call(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Any:
        cache = KVCache(k, v, seqlens=lengths)
        at.append(cache, q[:, :, :KV_HEADS], q[:, :, :KV_HEADS], torch.zeros_like(q[:, :, 0, 0], dtype=torch.int32))
        return at.run(at.plan(q, cache), q, cache)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=backend)
    for batch, room in ((3, 120), (5, 130)):
        q, (k, v) = queries(batch, 1), torch.randn(2, batch, room, KV_HEADS, DIM)
        lengths = torch.randint(1, room, (batch,), dtype=torch.int32)
        same(compiled(q, k.clone(), v.clone(), lengths), call(q, k, v, lengths))
    assert len(graphs) == 1


STEPS = {
    "plan": "lambda: at.run(at.plan(q, cache), q, cache)",
    "attention": "lambda: at.attention(q, cache)",
    "append": "lambda: at.append(cache, q, q, lengths[:, None])",
    "merge_states": "lambda: at.merge_states([q, q], [q[..., 0], q[..., 0]])[0]",
}


def test_a_trace_makes_the_operators(tmp_path: Path) -> None:
    """Each in a process in which nothing else has: a fork of one that has only imported."""
    program = (
        "import os, sys, torch, torch._dynamo\n"
        "from dimorph import attention as at\n"
        "q, lengths = torch.randn(3, 1, 2, 32), torch.tensor([5, 10, 0], dtype=torch.int32)\n"
        "cache = at.KVCache(*torch.randn(2, 3, 20, 2, 32), seqlens=lengths)\n"
        "def check(step):\n"
        f"    assert not any(hasattr(torch.ops.dimorph, name) for name in {list(STEPS)})\n"
        "    actual, expected = torch.compile(step, fullgraph=True, backend='eager')(), step()\n"
        "    assert expected is actual is None or torch.equal(actual, expected)\n"
        "failed = []\n"
        f"for name, step in {{{', '.join(f'{name!r}: {step}' for name, step in STEPS.items())}}}.items():\n"
        "    if (child := os.fork()) == 0:\n"
        "        check(step)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(child, 0)[1]:\n"
        "        failed.append(name)\n"
        "sys.exit(f'failed: {failed}' if failed else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


class Layer(torch.nn.Module):
    def __init__(self, cache: KVCache) -> None:
        super().__init__()
        self.register_buffer("k", cache.k)
        self.register_buffer("v", cache.v)

    def forward(self, q: Tensor, new: Tensor, table: Tensor, lengths: Tensor) -> Any:
        cache = KVCache(self.k, self.v, block_table=table, seqlens=lengths)
        at.append(cache, new, new, lengths[:, None] - 1)
        return at.run(at.plan(q, cache), q, cache)


def test_a_graph_copies_no_pool() -> None:
    cache = paged()
    given = queries(3, 1), queries(3, 1, heads=KV_HEADS), cache.block_table, LENGTHS
    compiled: Any = torch.compile(Layer(copy(cache)), fullgraph=True)
    _, (code,) = run_and_get_code(compiled, *given)
    made = re.findall(r"= empty_strided_cpu\(\(([0-9, ]+)\)", code)
    sizes = [math.prod(map(int, re.findall(r"\d+", shape))) for shape in made]
    assert sizes and max(sizes) < cache.k.numel()


def test_an_exported_program_computes_and_writes_the_same() -> None:
    cache = paged()
    layer, other = Layer(copy(cache)), Layer(copy(cache))
    given = queries(3, 1), queries(3, 1, heads=KV_HEADS), cache.block_table, LENGTHS
    program = torch.export.export(layer, given).module()
    same(program(*given), other(*given))
    buffers = dict(program.named_buffers())
    same([buffers["k"], buffers["v"]], list(other.buffers()))
    assert not torch.equal(buffers["k"], cache.k)


def test_another_process_loads_an_exported_program(tmp_path: Path) -> None:
    cache = paged()
    layer = Layer(copy(cache))
    given = queries(3, 1), queries(3, 1, heads=KV_HEADS), cache.block_table, LENGTHS
    torch.export.save(torch.export.export(layer, given), tmp_path / "model.pt2")
    torch.save((given, layer(*given)), tmp_path / "values.pt")
    program = (
        "import torch, dimorph.attention.torch\n"
        "given, expected = torch.load('values.pt')\n"
        "assert torch.equal(torch.export.load('model.pt2').module()(*given), expected)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


# The operators.


def arguments(cache: KVCache, q: Tensor, **options: Any) -> tuple[Any, ...]:
    lengths = options.get("cu_seqlens_q"), None, None, None
    call = CachedCall(q, cache, options.get("variant", at.Causal), None, *lengths, None, True, None, None, None)
    return torch_cache_operators._checked("attention", operation._shared._functions, call)


# The first one compares arguments before and after, which torch cannot do in float8.
OPCHECKS = "test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"
CASES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "paged": lambda: arguments(paged(), queries(3, 2)),
    "float8": lambda: arguments(paged(FLOAT8, k_scale=0.5, v_scale=torch.tensor([2.0, 0.25])), queries(3, 1)),
    "ragged": lambda: arguments(ragged(), queries(70), cu_seqlens_q=CU_Q, variant=at.SoftCap(3.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_opcheck_of_calls(case: str) -> None:
    given = CASES[case]()
    utils = OPCHECKS[1:] if case == "float8" else OPCHECKS
    torch.library.opcheck(ops.attention_cached.default, given, test_utils=utils)
    torch.library.opcheck(ops.attention_plan.default, (torch.empty(0), *given), test_utils=utils)
    for workspace in (None, torch.empty(0)):
        torch.library.opcheck(ops.attention_run.default, (workspace, *given), test_utils=utils)


def test_opcheck_of_writes_and_states() -> None:
    new = queries(3, 1, heads=KV_HEADS)
    given = *torch_cache_operators._flat(copy(paged())), new, new.clone(), LENGTHS[:, None] - 1, None
    torch.library.opcheck(ops.attention_append.default, given)
    states = [queries(3), queries(3)], [torch.randn(3, HEADS), torch.randn(3, HEADS)], False
    torch.library.opcheck(ops.attention_merge_states.default, states)


def test_fake_tensors_of_a_gpu_take_the_same_way() -> None:
    # Calls of torch's own need a torch with CUDA.
    def call(q: Tensor, k: Tensor, v: Tensor, new_k: Tensor, new_v: Tensor, lengths: Tensor, places: Tensor) -> Any:
        cache = KVCache(k, v, seqlens=lengths)
        at.append(cache, new_k, new_v, places)
        schedule = at.plan(q, cache)
        first = at.run(schedule, q, cache, return_lse=True)
        return (*at.merge_states(*([x, x] for x in first)), schedule.workspace)

    with FakeTensorMode():
        bfloat16: Any = {"dtype": torch.bfloat16, "device": "cuda"}
        keys = [torch.empty(3, rows, 2, dim, **bfloat16) for rows in (256, 1) for dim in (64, 128)]
        lengths = [torch.empty(shape, dtype=torch.int32, device="cuda") for shape in ((3,), (3, 1))]
        given = torch.empty(3, 1, 8, 64, **bfloat16), *keys, *lengths
        out, lse, workspace = call(*given)
        graph = make_fx(call)(*given)
    assert (out.shape, out.dtype, out.device.type) == ((3, 1, 8, 128), torch.bfloat16, "cuda")
    assert (lse.shape, lse.dtype) == ((3, 1, 8), torch.float32)
    assert workspace.shape == (at.plan_size((3, 1, 8, 64), 2, 128),)
    steps = ["append", "plan", "run", "merge_states"]
    assert targets(graph) == [f"dimorph.attention_{step}.default" for step in steps]


# What is refused.


@pytest.mark.parametrize("index", range(3))
def test_gradients_and_tangents_are_refused(index: int) -> None:
    cache = paged()
    q, new, out = queries(3, 1), queries(3, 1, heads=KV_HEADS), queries(3, 1)

    def call(x: Tensor) -> Any:
        if index == 0:
            return at.attention(x, cache).sum()
        if index == 1:
            at.append(cache, x, x, LENGTHS[:, None] - 1)
            return cache.k.sum()
        return at.merge_states([x, out], [x[..., 0], out[..., 0]])[0].sum()

    given = (q, new, out)[index]
    with pytest.raises(RuntimeError, match=r"expected a tensor that requires no grad|expected tensors that require no"):
        torch.func.grad(call)(given)
    with pytest.raises(RuntimeError, match="expected a tensor without a tangent"):
        torch.func.jvp(call, (given,), (given,))
    with pytest.raises(NotImplementedError, match=r"attention_\w+: not supported under torch\.vmap"):
        torch.func.vmap(call)(given[None])


def test_other_refusals_are_clear() -> None:
    q, cache, own = queries(3, 1), paged(), at.Attention()
    with pytest.raises(NotImplementedError, match=r"attention: not supported by torch\.jit\.trace"):
        torch.jit.trace(lambda q: at.attention(q, cache), q)  # type: ignore[no-untyped-call]
    with pytest.raises(NotImplementedError, match=r"only `attention`, `plan` and `run` of `dimorph\.attention`"):
        make_fx(lambda q: own(q, cache))(q)
    with pytest.raises(NotImplementedError, match=r"only `attention`, `plan` and `run` of `dimorph\.attention`"):
        make_fx(lambda q: own.plan(q, cache).workspace)(q)
    mixed = dataclasses.replace(cache, seqlens=LENGTHS.numpy())
    with pytest.raises(TypeError, match=r"attention: argument 'cache\.seqlens': expected a torch tensor"):
        make_fx(lambda q: at.attention(q, mixed))(q)
    with pytest.raises(ValueError, match="append: argument 'stream': expected none in what is traced"):
        make_fx(lambda x: at.append(cache, x, x, LENGTHS[:, None] - 1, stream=1))(queries(3, 1, heads=KV_HEADS))
    with pytest.raises(ValueError, match=r"attention: argument 'cache\.k': expected the device of 'q', meta, got cpu"):
        make_fx(lambda q: at.attention(q, dataclasses.replace(cache, v=cache.v.to("meta"))))(q.to("meta"))


def test_negative_bits_are_resolved() -> None:
    q, cache, new = queries(3, 1), paged(), queries(3, 1, heads=KV_HEADS)
    expected = at.attention(torch._neg_view(q).clone(), cache)
    same(at.attention(torch._neg_view(q), cache), expected)
    other = copy(cache)
    at.append(cache, torch._neg_view(new), new, LENGTHS[:, None] - 1)
    at.append(other, -new, new, LENGTHS[:, None] - 1)
    same([cache.k, cache.v], [other.k, other.v])
