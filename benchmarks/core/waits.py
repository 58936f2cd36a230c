"""Measure what a newcomer waits for: first calls, with the compiler on PATH and with zig, and the jobs of `./dev`.

python benchmarks/core/waits.py [calls] [zig] [demo] [test]   # default: calls, a minute; zig: minutes
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, python, seconds, write

# Each prints the seconds from the load to the first result, after imports.
SKELETON = """
import sys; sys.path.insert(0, sys.argv[1])
import time, numpy, tvm_ffi
from skeleton import affine
x = numpy.ones((4, int(sys.argv[2])), "float32")
y = numpy.empty_like(x)
start = time.perf_counter()
affine.load(dtype="float32", head_dim=x.shape[1]).affine(x, y, 2.0)
print(time.perf_counter() - start)
"""
ATTENTION = """
import time, numpy, tvm_ffi
from dimorph.attention import attention, Causal
q, k, v = (numpy.ones((1, 64, 4, 64), "float32") for _ in range(3))
start = time.perf_counter()
attention(q, k, v, variant=Causal)
print(time.perf_counter() - start)
"""


def _first(code: str, store: Path, *args: str, **variables: str) -> float:
    """Return the seconds of a first call in a new process."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DIMORPH_STORE": str(store), **variables}
    return float(python(code, str(ROOT / "examples" / "skeleton"), *args, env=env))


def _rows(what: str, measure: Callable[[], float]) -> list[Row]:
    """Return the time of a wait, and the processor time of its processes, which a busy machine changes less."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = measure()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        Row("cpu/waits", {"what": what}, "s", took),
        Row("cpu/waits", {"what": f"{what}, processor time with imports"}, "s", busy),
    ]


def calls() -> list[Row]:
    """First calls with an empty store, and with one that has the artifacts."""
    programs = {"the skeleton": (SKELETON, "80"), "attention, float32, causal": (ATTENTION,)}
    rows = []
    for name, (code, *args) in programs.items():
        with tempfile.TemporaryDirectory() as directory:
            call = partial(_first, code, Path(directory, "store"), *args)
            rows += _rows(f"first call of {name}, empty store", call)
            rows += _rows(f"first call of {name}, built before", call)
    return rows


def zig() -> list[Row]:
    """The first build of a store with zig, which builds its C++ library, and the next one."""
    settings = {"DIMORPH_CXX": "zig", "DIMORPH_LOG": "off", "DIMORPH_COMPILE_TIMEOUT": "1800"}
    with tempfile.TemporaryDirectory() as directory:
        call = partial(_first, SKELETON, Path(directory, "store"), **settings)
        return [
            *_rows("first build of a store with zig", partial(call, "80")),
            *_rows("next build with zig", partial(call, "88")),
        ]


def _jobs(job: str) -> list[Row]:
    """Run a job of `./dev` twice in a new clone: the first time it installs its packages."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["git", "clone", "-q", str(ROOT), directory], check=True)

        def run() -> float:
            return seconds(lambda: subprocess.run([sys.executable, "dev", job], cwd=directory, check=True))

        return [*_rows(f"./dev {job} in a new clone", run), *_rows(f"./dev {job} again", run)]


def demo() -> list[Row]:
    """The demo in a new clone."""
    return _jobs("demo")


def test() -> list[Row]:
    """All tests in a new clone."""
    return _jobs("test")


PARTS: dict[str, Callable[[], list[Row]]] = {"calls": calls, "zig": zig, "demo": demo, "test": test}


def main() -> None:
    parts = sys.argv[1:] or ["calls"]
    if unknown := [part for part in parts if part not in PARTS]:
        sys.exit(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    started = time.perf_counter()
    write("waits", [row for part in parts for row in PARTS[part]()])
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
