"""The measurements of attention that need a GPU. Each part yields rows; results are checked before they are timed."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm_ffi  # noqa: F401 (imported here, so that the time of a first call excludes it)
from benchmarks.gpu import peers as gpu_peers
from benchmarks.gpu.check import CAUSAL, LOUD, PLAIN, Formula, check
from benchmarks.gpu.peers import FLASHINFER, TORCH, Call
from benchmarks.support.rows import ROOT, Row, interleaved, nanoseconds_each, python, seconds

import dimorph as dm
from dimorph import attention as at
from dimorph import settings

USER = dm.Variant("Decay", header="decay.h", params=(dm.scalar("rate"),), root=ROOT / "examples" / "variant")
HEADS = {64: 32, 128: 32, 256: 16}
OLDER = ("torch_flash2", "flashinfer_fa2")  # the peers of the same generation as the sm80 family
REPLAYED = 10  # calls in a CUDA graph
# The families that this GPU runs; `attention` chooses the first.
FAMILIES = ("sm90", "sm80") if torch.cuda.get_device_capability() == (9, 0) else ("sm80",)
ATTEND = {family: at.Attention(family=family) for family in FAMILIES}


def inputs(batch: int, seq: int, heads: int, dim: int) -> list[Any]:
    torch.manual_seed(0)
    return [torch.randn(batch, seq, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3)]


def milliseconds(call: Call, count: int = 3) -> float:
    """Return the milliseconds that a call takes on the GPU."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / count


def compare(calls: Mapping[str, Call], repeats: int = 9) -> dict[str, float]:
    for call in calls.values():
        call()
        call()
    return interleaved({name: lambda call=call: milliseconds(call) for name, call in calls.items()}, repeats)


def ours(family: str, q: Any, k: Any, v: Any, variant: Any, formula: Formula) -> Call:
    """Return a call that reuses its output, after a check of its result and of a small problem with large logits."""
    attend, few = ATTEND[family], inputs(2, 333, *q.shape[2:])
    few[0] *= LOUD
    check(formula, *few, attend(*few, variant=variant))
    out = torch.empty_like(q)
    check(formula, q, k, v, attend(q, k, v, variant=variant, out=out))
    return lambda: attend(q, k, v, variant=variant, out=out)


def bench(name: str, family: str) -> str:
    """Return the name of the bench for a family's rows: for all but the best family it ends with the family."""
    return name if family == FAMILIES[0] else f"{name}/{family}_family"


def prefill(peers: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each family: for the best with all peers, for an older one with the peers of its generation."""
    for dim in (128, 64, 256):
        for seq in (1024, 4096, 16384):
            for mask, variant, formula, share in (("full", at.Plain, PLAIN, 1.0), ("causal", at.Causal, CAUSAL, 0.5)):
                batch, heads = 16384 // seq, HEADS[dim]
                problem = inputs(batch, seq, heads, dim)
                makers = {
                    name: lambda q, k, v, name=name, make=make, formula=formula: make(name, q, k, v, formula)
                    for names, make in ((TORCH, gpu_peers.torch_backend), (FLASHINFER, gpu_peers.flashinfer_batch))
                    for name in names
                    if name in peers
                }
                calls = {family: ours(family, *problem, variant, formula) for family in FAMILIES}
                took = compare(calls | gpu_peers.usable(makers, formula, problem, f"prefill {dim} {seq} {mask}"))
                work = 4 * batch * seq * seq * heads * dim * share / 1e9
                rates = {name: work / value for name, value in took.items()}
                mine = {family: rates.pop(family) for family in FAMILIES}
                cell = {"dtype": "bfloat16", "head_dim": dim, "heads": heads, "seq": seq, "batch": batch, "mask": mask}
                for family in FAMILIES:
                    beside = rates if family == FAMILIES[0] else {name: rates[name] for name in OLDER if name in rates}
                    yield Row(bench("gpu/prefill", family), cell, "TFLOP/s", mine[family], beside)


def soft_cap(cap: float) -> Callable[..., Any]:
    return lambda x, b, h, i, j: cap * torch.tanh(x / cap)


def causal_window(left: int) -> Callable[..., Any]:
    return lambda b, h, i, j: (j <= i) & (j >= i - left)


def variant_cells(dim: int, heads: int) -> dict[str, tuple[int, dm.BoundVariant, Formula, float]]:
    """Return name -> sequence length, our variant, its formula, and the fraction of the logits that its mask leaves."""
    # The slopes of FlashInfer's own ALiBi option.
    slopes = torch.tensor(2.0 ** (-8 * np.arange(1, heads + 1) / heads), dtype=torch.float32, device="cuda")
    sinks = torch.randn(heads, generator=torch.Generator().manual_seed(0)).cuda()
    bias = -float(np.log(8192))

    def share(seq: int, window: int) -> float:
        return sum(min(i, window) + 1 for i in range(seq)) / seq**2

    return {
        "sigmoid": (
            8192,
            at.FlashSigmoid(dim**-0.5, bias),
            Formula(lambda x, b, h, i, j: torch.sigmoid(x * dim**-0.5 + bias), softmax=False, flashinfer=None),
            1.0,
        ),
        "softcap30": (16384, at.SoftCap(30.0), Formula(soft_cap(30.0), flashinfer={"logits_soft_cap": 30.0}), 1.0),
        "causal+window1024": (
            16384,
            at.compose(at.Causal, at.Window(1024, 0)),
            Formula(keep=causal_window(1024), flashinfer={"causal": True, "window_left": 1024}),
            share(16384, 1024),
        ),
        "alibi+causal": (
            16384,
            at.compose(at.ALiBi(slopes), at.Causal),
            Formula(
                lambda x, b, h, i, j: x - slopes[h] * (i - j).abs(),
                CAUSAL.keep,
                flashinfer={"causal": True, "pos_encoding_mode": "ALIBI"},
            ),
            0.5,
        ),
        "causal+sinks": (
            16384,
            at.compose(at.Causal, at.Sinks(sinks)),
            Formula(keep=CAUSAL.keep, sinks=sinks, flashinfer=None),
            0.5,
        ),
        "user: uses all indices": (
            16384,
            USER(0.01),
            Formula(lambda x, b, h, i, j: x - 0.01 * (i - j).abs(), flashinfer=None),
            1.0,
        ),
        "causal+softcap50+window4096": (
            16384,
            at.compose(at.Causal, at.SoftCap(50.0), at.Window(4096, 0)),
            Formula(
                soft_cap(50.0),
                causal_window(4096),
                flashinfer={"causal": True, "logits_soft_cap": 50.0, "window_left": 4096},
            ),
            share(16384, 4096),
        ),
    }


def variant_makers(name: str, bound: dm.BoundVariant, formula: Formula) -> dict[str, gpu_peers.Maker]:
    """Return the peers that can compute a variant: FlexAttention with a softmax, FlashInfer by option or source."""
    makers: dict[str, gpu_peers.Maker] = {}
    if formula.softmax and formula.sinks is None:
        makers["flex"] = lambda q, k, v: gpu_peers.flex(q, k, v, formula)
    for peer in FLASHINFER:
        if name == "sigmoid":
            makers[peer] = lambda q, k, v, peer=peer: gpu_peers.flashinfer_sigmoid(peer, q, k, v, *bound.args)
        # fa3 ignores the option for ALiBi.
        elif formula.flashinfer and (peer, name) != ("flashinfer_fa3", "alibi+causal"):
            makers[peer] = lambda q, k, v, peer=peer: gpu_peers.flashinfer_batch(peer, q, k, v, formula)
    return makers


def variants(peers: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each variant, beside our own plain or causal attention and the peers that have the variant.

    Rates count the logits that the mask leaves.
    """
    dim, heads = 128, 32
    for name, (seq, bound, formula, share) in variant_cells(dim, heads).items():
        base, own, own_share = ("causal", at.Causal, 0.5) if "causal" in name else ("plain", at.Plain, 1.0)
        problem = inputs(1, seq, heads, dim)
        makers = {peer: make for peer, make in variant_makers(name, bound, formula).items() if peer in peers}
        calls = {}
        for family in FAMILIES:
            calls[family] = ours(family, *problem, bound, formula)
            calls[f"own {family}"] = ours(family, *problem, own, CAUSAL if base == "causal" else PLAIN)
        took = compare(calls | gpu_peers.usable(makers, formula, problem, name))
        work = 4 * seq * seq * heads * dim / 1e9
        cell = {"dtype": "bfloat16", "head_dim": dim, "heads": heads, "seq": seq, "batch": 1, "variant": name}
        mine = {family: work * share / took.pop(family) for family in FAMILIES}
        owns = {family: work * own_share / took.pop(f"own {family}") for family in FAMILIES}
        rates = {subject: work * share / value for subject, value in took.items()}
        for family in FAMILIES:
            beside = {f"own {base}": owns[family], **rates}
            yield Row(bench("gpu/prefill/variants", family), cell, "TFLOP/s", mine[family], beside)


def small(peers: Sequence[str]) -> Iterator[Row]:
    """Yield rows for few queries with many keys, and for a ragged batch of short sequences."""
    flashinfer = [name for name in FLASHINFER if name in peers]
    shared = {"dtype": "bfloat16", "head_dim": 128, "heads_q": 32, "heads_kv": 8}

    torch.manual_seed(0)
    q = torch.randn(1, 128, 32, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 4096, 8, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    mask = torch.ones(128, 4096, dtype=torch.bool, device="cuda").tril(4096 - 128)

    def torch_masked(q: Any, k: Any, v: Any) -> Call:
        theirs = [x.transpose(1, 2) for x in (q, k, v)]
        attend = torch.nn.functional.scaled_dot_product_attention
        return lambda: attend(*theirs, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    makers: dict[str, gpu_peers.Maker] = {"torch masked": torch_masked}
    makers |= {
        name: lambda q, k, v, name=name: gpu_peers.flashinfer_batch(name, q, k, v, CAUSAL) for name in flashinfer
    }
    calls: dict[str, Call] = {}
    for family, attend in ATTEND.items():
        check(CAUSAL, q, k, v, attend(q, k, v, variant=at.Causal))
        calls[family] = lambda attend=attend: attend(q, k, v, variant=at.Causal)
    yield from small_rows(
        shared | {"batch": 1, "q": 128, "kv": 4096, "mask": "causal"},
        compare(replayed(calls | gpu_peers.usable(makers, CAUSAL, (q, k, v), "small"))),
    )

    lengths = np.random.default_rng(0).integers(1, 701, 32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    offsets = torch.tensor(starts, dtype=torch.int32, device="cuda")
    flat = [torch.randn(starts[-1], heads, 128, device="cuda", dtype=torch.bfloat16) for heads in (32, 8, 8)]

    longest = int(lengths.max())
    ends = {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets, "max_seqlen_q": longest, "max_seqlen_k": longest}

    def checked(call: Call, slack: float) -> Call:
        out = call()
        for start, end in pairwise(starts):
            check(CAUSAL, *(x[None, start:end] for x in flat), out[None, start:end], slack)
        return call

    calls = {
        family: checked(lambda attend=attend: attend(*flat, variant=at.Causal, **ends), 1.0)
        for family, attend in ATTEND.items()
    }
    for name in flashinfer:
        make = lambda name=name: gpu_peers.flashinfer_ragged(name, flat, (offsets, offsets), CAUSAL)  # noqa: E731
        found = gpu_peers.attempt(name, "ragged", lambda make=make: checked(make(), gpu_peers.SLACK))
        calls |= {name: found} if found else {}
    what = "32 sequences, lengths numpy default_rng(0).integers(1, 701, 32)"
    yield from small_rows(shared | {"ragged": what, "mask": "causal"}, compare(replayed(calls)))


def small_rows(cell: dict[str, Any], took: dict[str, float]) -> Iterator[Row]:
    times = {name: value * 1e3 / REPLAYED for name, value in took.items()}
    mine = {family: times.pop(family) for family in FAMILIES}
    for family in FAMILIES:
        yield Row(bench("gpu/prefill/small", family), cell, "us", mine[family], times)


def replayed(calls: Mapping[str, Call]) -> dict[str, Call]:
    """Return each call as a CUDA graph of REPLAYED calls, so that times exclude the host's part of a call."""

    def captured(call: Call) -> Call:
        call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(REPLAYED):
                call()
        return graph.replay

    made = {name: gpu_peers.attempt(name, "graphs", lambda call=call: captured(call)) for name, call in calls.items()}
    return {name: call for name, call in made.items() if call}


def call(peers: Sequence[str]) -> Iterator[Row]:
    q, k, v = inputs(1, 64, 2, 64)
    out, v_sum, workspace = torch.empty_like(q), torch.empty_like(q), torch.empty(10_000_000, device="cuda")
    theirs = [x.transpose(1, 2) for x in (q, k, v)]
    one, long = q[:, :1], [x.repeat(1, 64, 1, 1) for x in (k, v)]  # a decoding step, whose keys are split

    def host_us(call: Call) -> float:
        torch.cuda.synchronize()
        return nanoseconds_each(call, count=500) / 1e3

    with torch.no_grad():
        subjects = {
            "ours": lambda: at.attention(q, k, v, out=out, workspace=workspace),
            "out made": lambda: at.attention(q, k, v),
            "out and workspace made": lambda: at.attention(one, *long),
            "torch": lambda: torch.nn.functional.scaled_dot_product_attention(*theirs),
            "torch.add": lambda: torch.add(q, k, out=v_sum),
        }
        took = interleaved({name: lambda call=call: host_us(call) for name, call in subjects.items()}, 5)
    check(PLAIN, q, k, v, out)
    check(PLAIN, q, k, v, at.attention(q, k, v))
    check(PLAIN, one, *long, at.attention(one, *long))
    for name, what in (("ours", "out given"), ("out made", "out made"), ("out and workspace made",) * 2):
        cell = {"args": f"attention, arguments checked, {what}"}
        yield Row("gpu/call", cell, "us", took[name], {peer: took[peer] for peer in ("torch", "torch.add")})


NAMED: dict[str, Callable[[], tuple[dm.BoundVariant, Formula]]] = {
    "plain": lambda: (at.Plain(), PLAIN),
    "causal": lambda: (at.Causal(), CAUSAL),
    "sigmoid": lambda: (
        at.FlashSigmoid(0.1, -5.0),
        Formula(lambda x, b, h, i, j: torch.sigmoid(x * 0.1 - 5.0), softmax=False),
    ),
    "user": lambda: (USER(0.01), Formula(lambda x, b, h, i, j: x - 0.01 * (i - j).abs())),
}


def first_call(name: str, dim: int, family: str, store: str) -> float:
    """Return the seconds from a first call to its result, with the given store, after the creation of a GPU context."""
    problem = inputs(1, 256, 4, dim)
    variant, formula = NAMED[name]()
    attend = at.Attention(family=family, policy="jit", settings=replace(settings.current(), store=Path(store)))
    found = []
    torch.cuda.synchronize()

    def once() -> None:
        found.append(attend(*problem, variant=variant))
        torch.cuda.synchronize()

    took = seconds(once)
    check(formula, *problem, found[0])
    return took


def first_calls(dim: int, family: str, times: int = 3) -> dict[str, float]:
    """Return the median seconds of a first call for each variant, each time with an empty store."""

    def from_nothing(name: str) -> float:
        with tempfile.TemporaryDirectory() as empty:
            return first_call(name, dim, family, empty)

    return {name: statistics.median(from_nothing(name) for _ in range(times)) for name in NAMED}


def in_new_process(expression: str, cache: str) -> Any:
    start = f"import json, sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.gpu import cells"
    code = f"{start}\nprint(json.dumps({expression}))"
    return json.loads(python(code, env={**os.environ, "CUDA_CACHE_PATH": cache}).splitlines()[-1])


def cold(peers: Sequence[str]) -> Iterator[Row]:
    """Yield times of a first call in a new process: with empty caches, and with a store that holds its artifacts."""
    for dim in (128, 64, 256):
        for family in FAMILIES:
            with tempfile.TemporaryDirectory() as cache:
                took = in_new_process(f"cells.first_calls({dim}, {family!r})", cache)
            peer = {"sm90": "flashinfer_fa3", "sm80": "flashinfer_fa2"}[family]
            theirs = {}
            if peer in peers and dim == 128:  # it takes a minute, and about the same for other head_dims
                # With FlashInfer's own full and causal masks, which it compiles together.
                value = gpu_peers.attempt(
                    peer, f"cold {dim}", lambda p=peer, d=dim: gpu_peers.flashinfer_first_call(p, d)
                )
                theirs = {peer: value} if value else {}
            for name in NAMED:
                cell = {"dtype": "bfloat16", "head_dim": dim, "family": family, "variant": name}
                yield Row("gpu/cold_jit/attention", cell, "s", took[name], theirs)
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as store:
            hit = f"cells.first_call('causal', 128, {family!r}, {store!r})"
            in_new_process(hit, store)
            took = statistics.median(in_new_process(hit, store) for _ in range(3))
        what = "new process, first call of attention to its result, beyond imports and the context"
        cell = {"what": what, "head_dim": 128, "variant": "causal", "family": family}
        yield Row("gpu/store_hit", cell, "s", took)


PARTS = {"prefill": prefill, "variants": variants, "small": small, "call": call, "cold": cold}
