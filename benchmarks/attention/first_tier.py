"""Compare device code of a first tier (`DIMORPH_ON_MISS=serve`) with the optimised code.

python benchmarks/attention/first_tier.py compile   # processor time of NVRTC; needs no GPU
python benchmarks/attention/first_tier.py gpu       # first results of new variants, bits, times of the kernels
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, python, write

from dimorph import attention as at
from dimorph import settings
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.plan.unit import device_unit
from dimorph.source.config_header import header_name
from dimorph.toolchain import archs, cuda

ARCHS = {"sm90": "sm_90a", "sm80": "sm_80"}
VARIANTS = {"causal": at.Causal, "causal+softcap": at.compose(at.Causal, at.SoftCap(30.0)).variant}
REPEATS = 5
# Prints one line of JSON: the seconds from the call to the result, the seconds until the optimised code serves, whether
# both give the same bits, and the milliseconds of a call before and after that.
FIRST = """
import json, sys, threading, time, torch
from dimorph import attention as at
family, name = sys.argv[1:]
made = {"causal": at.Causal, "causal+softcap": at.compose(at.Causal, at.SoftCap(30.0))}[name]
attend = at.Attention(family=family)
torch.manual_seed(0)
q, k, v = (torch.randn(1, 2048, 16, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3))
attend(q, k, v, variant=at.Plain)  # compilers are known, and the GPU is ready
def built():
    while any(one.name.startswith("build of ") for one in threading.enumerate()): time.sleep(0.001)
built()
torch.cuda.synchronize()
start = time.perf_counter()
first = attend(q, k, v, variant=made)
torch.cuda.synchronize()
took = time.perf_counter() - start
def milliseconds():
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(20): attend(q, k, v, variant=made)
    end.record(); torch.cuda.synchronize()
    return begin.elapsed_time(end) / 20
before = milliseconds()
built()
whole = time.perf_counter() - start
second = attend(q, k, v, variant=made)
same, far = torch.equal(first, second), float((first.float() - second.float()).abs().max())
tiers = [one.unit.first_tier for one in attend.resolutions() if one.unit.kind == "device"]
print(json.dumps({"took": took, "whole": whole, "same": same, "far": far, "before": before, "after": milliseconds(),
                  "tiers": tiers}))
"""


def compiled() -> Iterator[Row]:
    """Yield the processor time of NVRTC for each family and variant, beside that of the optimised code."""
    used = cuda.find(settings.current())
    for family, arch_name in ARCHS.items():
        for name, variant in VARIANTS.items():
            values = {"dtype": "bfloat16", "head_dims": (128, 128), "variant": variant}
            specialization = next(iter(GPU_FAMILIES[family].kernel.instantiations(**values)))
            arch = archs.by_name(arch_name)
            unit = device_unit(specialization, (arch,))
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory)
                (place / header_name(unit.kernel)).write_text(unit.header)
                (source := place / "device_unit.cu").write_text(unit.text)
                env, taken = used.environment(place), {True: [], False: []}
                for first_tier in [False, True] * REPEATS:
                    command = used.compile_command(
                        source,
                        place / "device.cubin",
                        target=arch,
                        include_dirs=(place, *unit.include_dirs),
                        memo_dir=place,
                        first_tier=first_tier,
                    )
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    subprocess.run(command, check=True, capture_output=True, env=env)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    taken[first_tier].append(spent)
            cell = {"family": family, "variant": name, "head_dim": 128, "what": "processor time of NVRTC"}
            yield Row("gpu/first_tier", cell, "s", min(taken[True]), {"optimised": min(taken[False])})


def first_results() -> Iterator[Row]:
    """Yield the seconds from a call to its result, in a process whose store lacks the variant, beside waiting."""
    for family in ARCHS:
        for name in VARIANTS:
            runs: dict[str, list[dict[str, float]]] = {"serve": [], "wait": []}
            for on_miss in ["wait", "serve"] * REPEATS:
                with tempfile.TemporaryDirectory() as store:
                    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DIMORPH_ON_MISS": on_miss}
                    line = python(FIRST, family, name, env={**env, "DIMORPH_STORE": store})
                    runs[on_miss].append(json.loads(line))
            served, waited = (
                {key: statistics.median(run[key] for run in runs[one]) for key in ("took", "whole", "before", "after")}
                for one in ("serve", "wait")
            )
            bits = {"same_bits": all(run["same"] for run in runs["serve"]), "far": max(r["far"] for r in runs["serve"])}
            cell: dict[str, object] = {"family": family, "variant": name, "head_dim": 128, **bits}
            yield Row(
                "gpu/first_tier", {**cell, "what": "first result"}, "s", served["took"], {"waits": waited["took"]}
            )
            yield Row("gpu/first_tier", {**cell, "what": "optimised"}, "s", served["whole"], {"waits": waited["took"]})
            yield Row(
                "gpu/first_tier", {**cell, "what": "a call"}, "ms", served["before"], {"optimised": served["after"]}
            )


def main() -> None:
    parts = {"compile": compiled, "gpu": first_results}
    for name in sys.argv[1:] or ["compile"]:
        rows = list(parts[name]())
        write("first_tier", rows)


if __name__ == "__main__":
    main()
