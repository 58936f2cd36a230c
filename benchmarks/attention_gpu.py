"""Attention on a GPU beside torch's backends and, where it is installed, FlashInfer; checked in the same run.

python benchmarks/attention_gpu.py [prefill] [variants] [small] [call] [cold]     # all: about three minutes

Rates count the logits that a mask leaves. Subjects take turns; each sample is a few calls between two events.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Row, interleaved, nanoseconds_each, seconds, write
from torch.nn.attention import SDPBackend, sdpa_kernel

import dimorph as dm
from dimorph import attention as at
from dimorph import settings

EXAMPLE = Path(__file__).parents[1] / "examples" / "variant"
USER = dm.Variant("Decay", header="decay.h", params=(dm.scalar("rate"),), root=EXAMPLE)
HEADS = {64: 32, 128: 32, 256: 16}
Call = Callable[[], Any]


def inputs(batch: int, seq: int, heads: int, dim: int) -> list[Any]:
    torch.manual_seed(0)
    return [torch.randn(batch, seq, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3)]


def milliseconds(call: Call, count: int = 3) -> float:
    """A call's time on the GPU."""
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


def torch_backends(q: Any, k: Any, v: Any, causal: bool) -> dict[str, Call]:
    def with_backend(backend: Any) -> Call:
        theirs = [x.transpose(1, 2) for x in (q, k, v)]

        def call() -> Any:
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal)

        return call

    return {
        "torch_flash2": with_backend(SDPBackend.FLASH_ATTENTION),
        "cudnn": with_backend(SDPBackend.CUDNN_ATTENTION),
    }


def flashinfer_fa2(q: Any, k: Any, v: Any, causal: bool) -> dict[str, Call]:
    """FlashInfer's second generation on a batch of equal sequences; nothing where it is not installed."""
    try:
        import flashinfer
    except ImportError:
        return {}
    batch, seq, heads, dim = q.shape
    offsets = torch.arange(batch + 1, device="cuda", dtype=torch.int32) * seq
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
        torch.empty(256 << 20, dtype=torch.uint8, device="cuda"), backend="fa2"
    )
    wrapper.plan(offsets, offsets, heads, heads, dim, causal=causal, q_data_type=q.dtype)
    flat = [x.reshape(-1, heads, dim) for x in (q, k, v)]
    return {"flashinfer_fa2": lambda: wrapper.run(*flat)}


def check(out: Any, reference: Any, what: str) -> None:
    """Against an independent computation; both are rounded to bfloat16."""
    error = float((out.float() - reference.float()).abs().max() / reference.float().abs().max())
    if error > 0.01:
        raise SystemExit(f"{what}: relative error {error:.3g}")


def prefill() -> list[Row]:
    rows = []
    for dim in (128, 64, 256):
        for seq in (1024, 4096, 16384):
            for mask in ("full", "causal"):
                batch, heads, causal = 16384 // seq, HEADS[dim], mask == "causal"
                q, k, v = inputs(batch, seq, heads, dim)
                out, variant = torch.empty_like(q), at.Causal if causal else at.Plain
                calls: dict[str, Call] = {
                    "ours": lambda q=q, k=k, v=v, out=out, variant=variant: at.attention(
                        q, k, v, variant=variant, out=out
                    ),
                    **torch_backends(q, k, v, causal),
                }
                if dim != 256 and seq != 4096:
                    calls |= flashinfer_fa2(q, k, v, causal)
                took = compare(calls)
                check(out, calls["torch_flash2"]().transpose(1, 2), f"prefill {dim} {seq} {mask}")
                work = 4 * batch * seq * seq * heads * dim * (0.5 if causal else 1.0) / 1e9
                rates = {name: work / value for name, value in took.items()}
                cell = {"dtype": "bfloat16", "head_dim": dim, "heads": heads, "seq": seq, "batch": batch, "mask": mask}
                rows.append(Row("gpu/prefill/sm80_family", cell, "TFLOP/s", rates.pop("ours"), rates))
    return rows


def variants() -> list[Row]:
    """Each beside our own plain or causal speed, for the logits that a mask leaves."""
    dim, heads = 128, 32
    slopes = torch.tensor(2.0 ** (-8 * np.arange(1, heads + 1) / heads), dtype=torch.float32, device="cuda")

    def share(seq: int, window: int) -> float:
        return sum(min(i, window) + 1 for i in range(seq)) / seq**2

    full, causal = at.Plain(), at.Causal()
    cells: list[tuple[str, int, dm.Bound, float, dm.Bound]] = [
        ("sigmoid", 8192, at.FlashSigmoid(dim**-0.5, -float(np.log(8192))), 1.0, full),
        ("softcap30", 16384, at.SoftCap(30.0), 1.0, full),
        ("causal+window1024", 16384, at.compose(at.Causal, at.Window(1024, 0)), share(16384, 1024), causal),
        ("alibi+causal", 16384, at.compose(at.ALiBi(slopes), at.Causal), 0.5, causal),
        ("user: uses all indices", 16384, USER(0.01), 1.0, full),
        (
            "causal+softcap50+window4096",
            16384,
            at.compose(at.Causal, at.SoftCap(50.0), at.Window(4096, 0)),
            share(16384, 4096),
            causal,
        ),
    ]
    rows = []
    for name, seq, variant, part, base in cells:
        small = [x.cpu().float().numpy() for x in inputs(1, 384, 4, dim)]
        if "alibi" not in name:  # its slopes are for all heads
            on_cpu = at.attention(*small, variant=variant)
            on_gpu = at.attention(*inputs(1, 384, 4, dim), variant=variant)
            check(on_gpu, torch.from_numpy(on_cpu).cuda(), name)
        q, k, v = inputs(1, seq, heads, dim)
        out = torch.empty_like(q)
        took = compare(
            {
                "ours": lambda v_=variant, q=q, k=k, v=v, out=out: at.attention(q, k, v, variant=v_, out=out),
                "own": lambda v_=base, q=q, k=k, v=v, out=out: at.attention(q, k, v, variant=v_, out=out),
            }
        )
        work = 4 * seq * seq * heads * dim / 1e9
        own = work * (1.0 if base is full else 0.5) / took["own"]
        cell = {"dtype": "bfloat16", "head_dim": dim, "heads": heads, "seq": seq, "batch": 1, "variant": name}
        peers = {"own plain" if base is full else "own causal": own}
        rows.append(
            Row("gpu/prefill/variants", cell | {"family": "sm80"}, "TFLOP/s", work * part / took["ours"], peers)
        )
    return rows


def small() -> list[Row]:
    torch.manual_seed(0)
    q = torch.randn(1, 128, 32, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 4096, 8, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    mask = torch.ones(128, 4096, dtype=torch.bool, device="cuda").tril(4096 - 128)
    theirs = [x.transpose(1, 2) for x in (q, k, v)]

    def torch_masked() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(*theirs, attn_mask=mask, enable_gqa=True)

    check(at.attention(q, k, v, variant=at.Causal), torch_masked().transpose(1, 2), "small")
    took = compare({"ours": lambda: at.attention(q, k, v, variant=at.Causal), "torch masked": torch_masked})
    cell = {"dtype": "bfloat16", "head_dim": 128, "heads_q": 32, "heads_kv": 8, "batch": 1, "q": 128, "kv": 4096}
    times = {name: value * 1e3 for name, value in took.items()}
    return [Row("gpu/prefill/small", cell | {"mask": "causal", "family": "sm80"}, "us", times.pop("ours"), times)]


def call() -> list[Row]:
    q, k, v = inputs(1, 64, 2, 64)
    out, workspace = torch.empty_like(q), torch.empty(10_000_000, device="cuda")
    theirs = [x.transpose(1, 2) for x in (q, k, v)]

    def host_us(one: Call) -> float:
        samples = []
        for _ in range(5):
            torch.cuda.synchronize()
            samples.append(nanoseconds_each(one, count=500) / 1e3)
        return statistics.median(samples)

    with torch.no_grad():
        took = {
            "ours": host_us(lambda: at.attention(q, k, v, out=out, workspace=workspace)),
            "torch": host_us(lambda: torch.nn.functional.scaled_dot_product_attention(*theirs)),
        }
    cell = {"args": "attention, arguments checked, out given"}
    return [Row("gpu/call", cell, "us", took.pop("ours"), took)]


def cold() -> list[Row]:
    """From nothing in the store to the first result."""
    from dimorph import library

    rows = []
    named = {"plain": at.Plain(), "causal": at.Causal(), "sigmoid": at.FlashSigmoid(0.1, -5.0), "user": USER(0.01)}
    for dim in (64, 128, 256):
        q, k, v = inputs(1, 256, 4, dim)
        for name, variant in named.items():

            def first_call(q: Any = q, k: Any = k, v: Any = v, variant: dm.Bound = variant) -> float:
                with tempfile.TemporaryDirectory() as store:
                    attend = at.Attention(policy="jit", settings=replace(settings.current(), store=Path(store)))
                    library._loaded.clear()  # as in a new process: nothing that was loaded before serves

                    def once() -> None:
                        attend(q, k, v, variant=variant)
                        torch.cuda.synchronize()

                    return seconds(once)

            took = statistics.median(first_call() for _ in range(3))
            cell = {"dtype": "bfloat16", "head_dim": dim, "family": "sm80", "variant": name}
            rows.append(Row("gpu/cold_jit/attention", cell, "s", took))
    return rows


PARTS = {"prefill": prefill, "variants": variants, "small": small, "call": call, "cold": cold}


def main() -> None:
    rows = [row for name in sys.argv[1:] or PARTS for row in PARTS[name]()]
    for row in rows:
        row.device = torch.cuda.get_device_name()
    write("attention_gpu", rows)


if __name__ == "__main__":
    main()
