"""Measure attention on the CPU against torch's; results are checked against float64 in the same run.

python benchmarks/attention/cpu.py [PART ...]   # all: six minutes; uses 2 threads

Parts: attention, variants, decode, invariance, cold.
"""

from __future__ import annotations

import os

os.environ.setdefault("DIMORPH_NUM_THREADS", "2")

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.core.kernels import read_all
from benchmarks.support.rows import ROOT, Row, interleaved, seconds, write

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention import reference

THREADS = 2
SHAPE = {"batch": 1, "heads": 8, "seq": 2048}
EXAMPLE = ROOT / "examples" / "variant"
USER = dm.Variant("Decay", header="decay.h", params=(dm.scalar("rate"),), root=EXAMPLE)
RULES = reference.RULES | {"Decay": lambda x, b, i, j, rate: x - rate * np.abs(j - (i + x.shape[-1] - x.shape[-2]))}


DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PAGE = 16  # keys
LLC_BYTES = 32 * 2**20  # the last-level cache of the machine that the rows in results/ were measured on


def inputs(dim: int, dtype: str, seq: int = 2048) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, seq, 8, dim), dtype=np.float32).astype(DTYPES[dtype]) for _ in range(3)]


def as_torch(array: Any) -> torch.Tensor:
    """Return an array as a torch tensor [batch, heads, seq, head_dim] over the same memory."""
    bits = torch.from_numpy(array.view(np.uint16) if array.dtype == DTYPES["bfloat16"] else array)
    return (bits.view(torch.bfloat16) if array.dtype == DTYPES["bfloat16"] else bits).transpose(1, 2)


def check(variant: dm.BoundVariant, dim: int, dtype: str) -> None:
    """Check a variant against float64 on 512 positions; the bound is relative to the largest output."""
    q, k, v = inputs(dim, dtype, 512)
    expected = reference.attention(*(x.astype(np.float32) for x in (q, k, v)), variant=variant, rules=RULES)[0]
    actual = at.attention(q, k, v, variant=variant).astype(np.float64)
    error = float(np.abs(actual - expected).max() / np.abs(expected).max())
    # bfloat16: half a unit in the last place for the rounding of the output, and the same for that of the weights.
    bound = 2e-6 if dtype == "float32" else float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps)
    if error > bound:
        raise SystemExit(f"{variant.variant.name}, {dtype}, head_dim {dim}: relative error {error:.2e} above {bound}")


def gflops(dim: int, share: float, took: float) -> float:
    """Return the GFLOP/s of both matrix products; `share` is the fraction of the logits that the mask leaves."""
    return 4 * 8 * 2048 * 2048 * dim * share / took / 1e9


def rested(call: Callable[[], object]) -> float:
    """Return the seconds of one call, after a pause in which the threads of the previous subject stop spinning."""
    time.sleep(0.1)
    return seconds(call)


def plain_and_causal(dtype: str) -> list[Row]:
    rows = []
    for dim in (64, 128):
        q, k, v = inputs(dim, dtype)
        theirs = [as_torch(x) for x in (q, k, v)]
        out = np.empty_like(q)
        for mask, variant, share in (("full", at.Plain(), 1.0), ("causal", at.Causal(), 0.5)):
            check(variant, dim, dtype)
            took = interleaved(
                {
                    "ours": lambda q=q, k=k, v=v, variant=variant, out=out: rested(
                        lambda: at.attention(q, k, v, variant=variant, out=out)
                    ),
                    "torch": lambda theirs=theirs, mask=mask: rested(
                        lambda: torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=mask == "causal")
                    ),
                },
                25,
            )
            rates = {name: gflops(dim, share, value) for name, value in took.items()}
            cell = {"dtype": dtype, **SHAPE, "head_dim": dim, "mask": mask}
            rows.append(Row("cpu/attention", cell, "GFLOP/s", rates["ours"], {"torch": rates["torch"]}))
    return rows


def variants(dtype: str) -> list[Row]:
    """Measure each variant against our own plain or causal attention; rates count the logits that the mask leaves."""
    heads, seq, dim = 8, 2048, 128
    rng = np.random.default_rng(1)
    slopes = (2.0 ** -np.arange(1, heads + 1)).astype(np.float32)
    keep = np.tril(np.ones((1, seq, seq), bool))
    band = sum(min(i, 256) + 1 for i in range(seq)) / seq**2
    window = at.Window(256, 0)
    cells: dict[str, tuple[dm.BoundVariant, float, str]] = {
        "window256": (at.compose(at.Causal, window), band, "causal"),
        "softcap": (at.SoftCap(50.0), 1.0, "full"),
        "alibi": (at.ALiBi(slopes), 1.0, "full"),
        "sigmoid": (at.FlashSigmoid(dim**-0.5, -float(np.log(seq))), 1.0, "full"),
        "sinks": (at.Sinks(rng.standard_normal(heads).astype(np.float32)), 1.0, "full"),
        "custom_mask": (at.CustomMask(keep), 1.0, "full"),
        "compose(causal,window256,softcap)": (at.compose(at.Causal, window, at.SoftCap(50.0)), band, "causal"),
        "user": (USER(0.01), 1.0, "full"),
        "packed_mask": (at.PackedMask(np.packbits(keep, bitorder="little")), 1.0, "full"),
        "bias": (at.additive_bias(rng.standard_normal((1, 1, seq, seq), dtype=np.float32)), 1.0, "full"),
    }
    q, k, v = inputs(dim, dtype)
    out = np.empty_like(q)

    def time_of(variant: dm.BoundVariant) -> float:
        return seconds(lambda: at.attention(q, k, v, variant=variant, out=out))

    rows = []
    for name, (variant, share, base) in cells.items():
        if name not in ("custom_mask", "packed_mask", "bias"):  # their parameters are for 2048 positions
            check(variant, dim, dtype)
        own, own_share = (at.Plain(), 1.0) if base == "full" else (at.Causal(), 0.5)
        took = interleaved({"ours": lambda variant=variant: time_of(variant), base: lambda own=own: time_of(own)}, 15)
        rates = {"ours": gflops(dim, share, took["ours"]), base: gflops(dim, own_share, took[base])}
        cell = {"dtype": dtype, **SHAPE, "head_dim": dim, "variant": name}
        rows.append(Row("cpu/attention/variants", cell, "GFLOP/s", rates["ours"], {f"own {base}": rates[base]}))
    return rows


def decode(dtype: str) -> list[Row]:
    """Measure one query against keys and values larger than all CPU caches, beside a loop that only reads memory."""
    keys, heads, kv_heads, dim = 8192, 32, 8, 128
    rng = np.random.default_rng(2)
    q = rng.standard_normal((1, 1, heads, dim), dtype=np.float32).astype(DTYPES[dtype])
    one = rng.standard_normal((2, 1, keys, kv_heads, dim), dtype=np.float32).astype(DTYPES[dtype])  # keys and values
    caches = [one.copy() for _ in range(-(-8 * LLC_BYTES // one.nbytes))]
    out = np.empty_like(q)
    at.attention(q, *one, out=out)
    widened = [np.repeat(x.astype(np.float32), heads // kv_heads, axis=2) for x in one]
    expected = reference.attention(q.astype(np.float32), *widened, variant=at.Plain())[0]
    error = float(np.abs(out.astype(np.float64) - expected).max() / np.abs(expected).max())
    if error > (2e-6 if dtype == "float32" else float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps)):
        raise SystemExit(f"decode, {dtype}: relative error {error:.2e}")
    paged = [in_pages(cache) for cache in caches]
    if not np.array_equal(at.attention(q, paged[0]), out):
        raise SystemExit(f"decode, {dtype}: keys in pages give other bits")
    small = one.astype(ml_dtypes.float8_e4m3fn)
    stored = [at.KVCache(*small.copy(), k_scale=1.0, v_scale=1.0) for _ in caches]
    theirs = [(as_torch(k), as_torch(v)) for k, v in caches]
    flat = [cache.reshape(-1) for cache in caches]
    query, read = as_torch(q), read_all.load().read_all

    def over_all(call: Callable[[int], object]) -> float:
        """Return the mean seconds of a call in three rounds over `caches`; a round before them wakes the threads."""
        time.sleep(0.1)
        rounds = [i for _ in range(4) for i in range(len(caches))]
        for i in rounds[: len(caches)]:
            call(i)
        return seconds(lambda: [call(i) for i in rounds[len(caches) :]]) / (3 * len(caches))

    took = interleaved(
        {
            "ours": lambda: over_all(lambda i: at.attention(q, *caches[i], out=out)),
            "paged": lambda: over_all(lambda i: at.attention(q, paged[i], out=out)),
            "float8": lambda: over_all(lambda i: at.attention(q, stored[i], out=out)),
            "read limit": lambda: over_all(lambda i: read(flat[i])),
            "torch": lambda: over_all(
                lambda i: torch.nn.functional.scaled_dot_product_attention(query, *theirs[i], enable_gqa=True)
            ),
        },
        5,
    )
    float8 = took.pop("float8")
    rates = {name: one.nbytes / value / 1e9 for name, value in took.items()}
    cell = {"dtype": dtype, "batch": 1, "heads": heads, "kv_heads": kv_heads, "keys": keys, "head_dim": dim}
    pages = {"own dense": rates["ours"], "read limit": rates["read limit"]}
    row = Row("cpu/decode/paged", cell | {"page": PAGE}, "GB/s", rates.pop("paged"), pages)
    wide = {f"own {dtype}": took["ours"] * 1e6}
    small_row = Row("cpu/decode/fp8", cell | {"stored": str(small.dtype)}, "us", float8 * 1e6, wide)
    return [Row("cpu/decode", cell, "GB/s", rates.pop("ours"), rates), row, small_row]


def invariance(dtype: str) -> list[Row]:
    """Measure `batch_invariant=True` beside the same calls without it: a causal prefill, and decode."""
    rng = np.random.default_rng(4)
    rows = []
    for queries, keys in ((2048, 2048), (512, 8192), (1, 8192)):
        q, k, v = (
            rng.standard_normal((1, n, heads, 128), dtype=np.float32).astype(DTYPES[dtype])
            for n, heads in ((queries, 8), (keys, 2), (keys, 2))
        )
        out = np.empty_like(q)
        repeats = 1 if queries > 1 else 20

        def call(option: bool, args: Any = (q, k, v), out: Any = out, repeats: int = repeats) -> float:
            def calls() -> None:
                for _ in range(repeats):
                    at.attention(*args, variant=at.Causal, out=out, batch_invariant=option)

            return rested(calls) / repeats

        took = interleaved(
            {"invariant": lambda call=call: call(True), "own ordinary": lambda call=call: call(False)}, 9
        )
        cell = {"dtype": dtype, "batch": 1, "heads": "8/2", "queries": queries, "keys": keys, "head_dim": 128}
        times = {name: value * 1e6 for name, value in took.items()}
        rows.append(Row("cpu/invariance", cell, "us", times.pop("invariant"), times))
    return rows


def in_pages(one: Any) -> at.KVCache:
    """Return a cache of the keys and values [2, batch, keys, kv_heads, head_dim] in pages in random order."""
    count = one.shape[2] // PAGE
    table = np.random.default_rng(3).permutation(count).astype(np.int32)[None]
    pools = np.empty((2, count, PAGE, *one.shape[3:]), one.dtype)
    pools[:, table[0]] = one[:, 0].reshape(2, count, PAGE, *one.shape[3:])
    return at.KVCache(*pools, block_table=table, seqlens=np.full(1, one.shape[2], np.int32))


def cold(dtype: str) -> list[Row]:
    """Measure a first call with an empty store, beside the time of the bare compiler for the same case."""
    rows = []
    named = {
        "plain": at.Plain(),
        "causal+window+softcap": at.compose(at.Causal, at.Window(256, 0), at.SoftCap(50.0)),
        "user": USER(0.01),
    }
    for dim in (64, 128, 256):
        q, k, v = inputs(dim, dtype, 64)
        for name, variant in named.items():

            def first_call(q: Any = q, k: Any = k, v: Any = v, variant: dm.BoundVariant = variant) -> float:
                with tempfile.TemporaryDirectory() as store:
                    config = replace(settings.current(), store=Path(store))
                    # As in a new process, where nothing is loaded yet.
                    forget_loaded()
                    return seconds(lambda: at.Attention(policy="jit", settings=config)(q, k, v, variant=variant))

            took = interleaved(
                {"ours": first_call, "raw_compiler": lambda d=dim, b=variant: compiler_time(dtype, d, b)}, 5
            )
            cell = {"dtype": dtype, "head_dim": dim, "variant": name}
            rows.append(Row("cpu/cold_jit/attention", cell, "s", took["ours"], {"raw_compiler": took["raw_compiler"]}))
    return rows


def forget_loaded() -> None:
    from dimorph.runtime import library

    library._loaded.clear()


def compiler_time(dtype: str, dim: int, variant: dm.BoundVariant) -> float:
    """Return the seconds that the compiler alone takes for the case: the row's peer `raw_compiler`."""
    from dimorph.attention.kernels import attention_cpu
    from dimorph.plan import unit as plan
    from dimorph.resolve.levels import target_levels
    from dimorph.source.config_header import header_name
    from dimorph.toolchain import host, process

    config = settings.current()
    chosen = attention_cpu.instantiations(dtype=dtype, head_dims=(dim, dim), few_queries=False, variant=variant.variant)
    unit = plan.case_unit(next(iter(chosen)))
    toolchain = host.find(config)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / header_name(unit.kernel)).write_text(unit.header)
        source = work / "case_unit.cc"
        source.write_text(unit.text)
        command = toolchain.compile_command(
            source,
            work / "case.so",
            target=target_levels(config)[0],
            include_dirs=(work, *unit.include_dirs),
            system_include_dirs=plan.system_include_dirs(),
        )
        done = process.run(command, timeout=60, cwd=work, env=toolchain.environment(work))
        if done.exit_code:
            raise SystemExit(done.output)
        return done.seconds


PARTS = {"attention": plain_and_causal, "variants": variants, "decode": decode, "invariance": invariance, "cold": cold}


def main() -> None:
    torch.set_num_threads(THREADS)
    wanted = sys.argv[1:] or list(PARTS)
    write("attention_cpu", [row for name in wanted for dtype in DTYPES for row in PARTS[name](dtype)])


if __name__ == "__main__":
    main()
