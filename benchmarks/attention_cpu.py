"""Attention on the CPU beside torch's, checked against float64 in the same run.

python benchmarks/attention_cpu.py          # about three minutes, on a quiet machine; uses 2 threads
"""

from __future__ import annotations

import os

os.environ.setdefault("DIMORPH_NUM_THREADS", "2")

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Row, interleaved, seconds, write

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention import reference

THREADS = 2
SHAPE = {"batch": 1, "heads": 8, "seq": 2048}
EXAMPLE = Path(__file__).parents[1] / "examples" / "variant"
USER = dm.Variant("Decay", header="decay.h", params=(dm.scalar("rate"),), root=EXAMPLE)
RULES = reference.RULES | {"Decay": lambda x, b, i, j, rate: x - rate * np.abs(j - (i + x.shape[-1] - x.shape[-2]))}


def inputs(dim: int, seq: int = 2048) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, seq, 8, dim), dtype=np.float32) for _ in range(3)]


def check(variant: dm.Bound, dim: int) -> float:
    """The largest error relative to the largest output, on 512 positions."""
    q, k, v = inputs(dim, 512)
    expected = reference.attention(q, k, v, variant=variant, rules=RULES)[0]
    error = float(np.abs(at.attention(q, k, v, variant=variant) - expected).max() / np.abs(expected).max())
    if error > 2e-6:
        raise SystemExit(f"{variant.variant.name}, head_dim {dim}: relative error {error:.2e} is above 2e-6")
    return error


def gflops(dim: int, share: float, took: float) -> float:
    """GFLOP/s of both matrix products; `share` is the part of the logits that count."""
    return 4 * 8 * 2048 * 2048 * dim * share / took / 1e9


def plain_and_causal() -> list[Row]:
    rows = []
    for dim in (64, 128):
        q, k, v = inputs(dim)
        theirs = [torch.from_numpy(x).transpose(1, 2) for x in (q, k, v)]
        out = np.empty_like(q)
        for mask, variant, share in (("full", at.Plain(), 1.0), ("causal", at.Causal(), 0.5)):
            check(variant, dim)
            took = interleaved(
                {
                    "ours": lambda q=q, k=k, v=v, variant=variant, out=out: seconds(
                        lambda: at.attention(q, k, v, variant=variant, out=out)
                    ),
                    "torch": lambda theirs=theirs, mask=mask: seconds(
                        lambda: torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=mask == "causal")
                    ),
                },
                15,
            )
            rates = {name: gflops(dim, share, value) for name, value in took.items()}
            cell = {"dtype": "float32", **SHAPE, "head_dim": dim, "mask": mask}
            rows.append(Row("cpu/attention", cell, "GFLOP/s", rates["ours"], {"torch": rates["torch"]}))
    return rows


def variants() -> list[Row]:
    """Each against our own plain or causal speed, for the logits that count."""
    heads, seq, dim = 8, 2048, 128
    rng = np.random.default_rng(1)
    slopes = (2.0 ** -np.arange(1, heads + 1)).astype(np.float32)
    keep = np.tril(np.ones((1, seq, seq), bool))
    band = sum(min(i, 256) + 1 for i in range(seq)) / seq**2
    cells: dict[str, tuple[dm.Bound, float, str]] = {
        "window256": (at.compose(at.Causal, at.Window(256, 0)), band, "causal"),
        "softcap": (at.SoftCap(50.0), 1.0, "full"),
        "alibi": (at.ALiBi(slopes), 1.0, "full"),
        "sigmoid": (at.FlashSigmoid(dim**-0.5, -float(np.log(seq))), 1.0, "full"),
        "sinks": (at.Sinks(rng.standard_normal(heads).astype(np.float32)), 1.0, "full"),
        "custom_mask": (at.CustomMask(keep), 1.0, "full"),
        "compose(causal,window256,softcap)": (
            at.compose(at.Causal, at.Window(256, 0), at.SoftCap(50.0)),
            band,
            "causal",
        ),
        "user": (USER(0.01), 1.0, "full"),
    }
    q, k, v = inputs(dim)
    out = np.empty_like(q)

    def time_of(variant: dm.Bound) -> float:
        return seconds(lambda: at.attention(q, k, v, variant=variant, out=out))

    rows = []
    for name, (variant, share, base) in cells.items():
        if name != "custom_mask":
            check(variant, dim)
        own, own_share = (at.Plain(), 1.0) if base == "full" else (at.Causal(), 0.5)
        took = interleaved({"ours": lambda variant=variant: time_of(variant), base: lambda own=own: time_of(own)}, 11)
        rates = {"ours": gflops(dim, share, took["ours"]), base: gflops(dim, own_share, took[base])}
        cell = {"dtype": "float32", **SHAPE, "head_dim": dim, "variant": name}
        rows.append(Row("cpu/attention/variants", cell, "GFLOP/s", rates["ours"], {f"own {base}": rates[base]}))
    return rows


def cold() -> list[Row]:
    """From nothing in the store to the first result, beside the compiler's own time for the same case."""
    rows = []
    named = {
        "plain": at.Plain(),
        "causal+window+softcap": at.compose(at.Causal, at.Window(256, 0), at.SoftCap(50.0)),
        "user": USER(0.01),
    }
    for dim in (64, 128, 256):
        q, k, v = inputs(dim, 16)
        for name, variant in named.items():

            def first_call(q: Any = q, k: Any = k, v: Any = v, variant: dm.Bound = variant) -> float:
                with tempfile.TemporaryDirectory() as store:
                    config = replace(settings.current(), store=Path(store))
                    # As in a new process: nothing that was loaded before serves.
                    forget_loaded()
                    return seconds(lambda: at.Attention(policy="jit", settings=config)(q, k, v, variant=variant))

            took = interleaved({"ours": first_call, "raw_compiler": lambda d=dim, b=variant: compiler_time(d, b)}, 5)
            cell = {"dtype": "float32", "head_dim": dim, "variant": name}
            rows.append(Row("cpu/cold_jit/attention", cell, "s", took["ours"], {"raw_compiler": took["raw_compiler"]}))
    return rows


def forget_loaded() -> None:
    from dimorph import library

    library._loaded.clear()


def compiler_time(dim: int, variant: dm.Bound) -> float:
    """The compiler alone on the case, as `raw_compiler`."""
    from dimorph import plan
    from dimorph.attention.kernels import attention_cpu
    from dimorph.header import header_name
    from dimorph.resolve import target_levels
    from dimorph.toolchain import host, process

    config = settings.current()
    chosen = attention_cpu.instantiations(dtype="float32", head_dims=(dim, dim), variant=variant.variant)
    (unit,) = plan.case_units(chosen)
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


def main() -> None:
    torch.set_num_threads(THREADS)
    write("attention_cpu", [*plain_and_causal(), *variants(), *cold()])


if __name__ == "__main__":
    main()
