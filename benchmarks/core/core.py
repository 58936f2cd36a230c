"""Measure the core on the CPU: first call, store hit, call, import, a large entry, and repeated builds ahead of time.

python benchmarks/core/core.py            # about two minutes; --no-torch leaves out torch's load_inline (20 s each)
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.core.kernels import add_scalar, empty, wide
from benchmarks.support.rows import ROOT, Row, interleaved, nanoseconds_each, python, seconds, write

from dimorph import settings
from dimorph.plan import unit as plan
from dimorph.resolve.build import Job, build
from dimorph.resolve.levels import target_levels
from dimorph.store.layers import user_store
from dimorph.toolchain import host

TVM_SOURCE = """
#include <tvm/ffi/container/tensor.h>
void add_scalar(tvm::ffi::TensorView x, double value) {
  float* data = static_cast<float*>(x.data_ptr());
  for (int64_t i = 0; i < x.size(0); ++i) data[i] += static_cast<float>(value);
}
"""
TORCH_SOURCE = """
#include <torch/extension.h>
void add_scalar(torch::Tensor x, double value) {
  float* data = x.data_ptr<float>();
  for (int64_t i = 0; i < x.size(0); ++i) data[i] += static_cast<float>(value);
}
"""

# Each program prints the seconds from the load to the first result, after imports and with empty caches.
COLD = {
    "ours": """
import sys; sys.path.insert(0, sys.argv[1])
import time, numpy, tvm_ffi
from benchmarks.core.kernels import add_scalar
x = numpy.zeros(1000, "float32")
start = time.perf_counter()
add_scalar.load(dtype="float32").add_scalar(x, 1.0)
print(time.perf_counter() - start)
assert (x == 1).all()
""",
    "tvm_ffi": f"""
import time, numpy, tvm_ffi.cpp, tempfile
x = numpy.zeros(1000, "float32")
with tempfile.TemporaryDirectory() as directory:
    start = time.perf_counter()
    module = tvm_ffi.cpp.load_inline("adder", cpp_sources={TVM_SOURCE!r}, functions="add_scalar",
                                     build_directory=directory)
    module.add_scalar(x, 1.0)
    print(time.perf_counter() - start)
assert (x == 1).all()
""",
    "torch_inline": f"""
import time, torch, torch.utils.cpp_extension, tempfile
x = torch.zeros(1000)
with tempfile.TemporaryDirectory() as directory:
    start = time.perf_counter()
    module = torch.utils.cpp_extension.load_inline("adder", cpp_sources={TORCH_SOURCE!r}, functions="add_scalar",
                                                   build_directory=directory)
    module.add_scalar(x, 1.0)
    print(time.perf_counter() - start)
assert bool((x == 1).all())
""",
}

HIT = """
import sys; sys.path.insert(0, sys.argv[1])
if len(sys.argv) > 2: sys.modules["ziglang"] = None  # as if that compiler were not installed
import numpy, time
from benchmarks.core.kernels import add_scalar
from dimorph.runtime.tvm import tvm_ffi
tvm_ffi()
started = []
sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.fork", "os.posix_spawn")
                 else None)
start = time.perf_counter()
add_scalar.load(dtype="float32")
print(time.perf_counter() - start)
assert not started and "torch" not in sys.modules, started
"""

# The same and a call, with everything that the process imports.
WHOLE = """
import time; start = time.perf_counter()
import sys; sys.path.insert(0, sys.argv[1])
import numpy
from benchmarks.core.kernels import add_scalar
add_scalar.load(dtype="float32").add_scalar(numpy.zeros(1, "float32"), 1.0)
print(time.perf_counter() - start)
assert "torch" not in sys.modules
"""

IMPORT = """
import time; start = time.perf_counter()
import dimorph
print(time.perf_counter() - start)
import sys; assert "torch" not in sys.modules and "numpy" not in sys.modules and "tvm_ffi" not in sys.modules
"""


def cold(with_torch: bool) -> Row:
    def run(name: str) -> float:
        with tempfile.TemporaryDirectory() as store:
            return float(python(COLD[name], str(ROOT), env={**os.environ, "DIMORPH_STORE": store}))

    found = interleaved({name: lambda name=name: run(name) for name in ("ours", "tvm_ffi")}, 5)
    if with_torch:
        found |= interleaved({"torch_inline": lambda: run("torch_inline")}, 1)
    ours = found.pop("ours")
    return Row("cpu/cold_jit/function", {"function": "add a scalar to one float32 array"}, "s", ours, found)


def store_hit() -> list[Row]:
    add_scalar.load(dtype="float32")
    env = dict(os.environ)
    without = {**env, "PATH": "/nonexistent"}
    without.pop("CXX", None)  # it names a compiler too
    found = interleaved(
        {
            "with": lambda: float(python(HIT, str(ROOT), env=env)),
            "without a compiler": lambda: float(python(HIT, str(ROOT), "no zig", env=without)),
            "whole": lambda: float(python(WHOLE, str(ROOT), env=env)),
            "import": lambda: float(python(IMPORT, env=env)),
        },
        11,
    )
    print(f"store hit with no compiler present: {found['without a compiler'] * 1e3:.2f} ms")
    what = "new process, load() to callable, beyond import tvm_ffi"
    return [
        Row("cpu/store_hit", {"what": what}, "s", found["with"]),
        Row("cpu/store_hit", {"what": "new process, first import to first result, with NumPy"}, "s", found["whole"]),
        Row("cpu/import", {"what": "import dimorph"}, "s", found["import"]),
    ]


def calls() -> list[Row]:
    x = np.zeros(1, "float32")
    add = add_scalar.load(dtype="float32").add_scalar
    specialized = empty.load(first=1, second=2, third=3).empty
    dispatching = empty.load().empty
    dispatching(1, 2, 3)
    found = interleaved(
        {
            "array and scalar": lambda: nanoseconds_each(add, x, 1.0),
            "specialized": lambda: nanoseconds_each(specialized, 1, 2, 3),
            "dispatching": lambda: nanoseconds_each(dispatching, 1, 2, 3),
        },
        21,
    )
    dispatch = {"args": "empty call, dispatching against specialized, 3 axes"}
    return [
        Row("cpu/call", {"args": "one float32 array, one scalar"}, "ns", found["array and scalar"]),
        Row("cpu/call", dispatch, "ns", found["dispatching"], {"jit": found["specialized"]}),
    ]


def large_entry() -> Row:
    config = settings.current()
    unit, target = plan.entry_unit(empty.instantiations()), target_levels(config)[0]
    store = user_store(config)

    def compile_it() -> float:
        shutil.rmtree(store.root, ignore_errors=True)
        return seconds(lambda: build([Job(unit, target, host.find(config))], config, store))

    combinations = empty.instantiations().slots
    cell = {"what": f"entry compile with {combinations} declared combinations"}
    return Row("cpu/entry_compile", cell, "s", interleaved({"ours": compile_it}, 5)["ours"])


def ahead() -> list[Row]:
    """Measure builds ahead of time: into an empty directory, without changes, and with one value added."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        values = list(range(48))
        first = seconds(lambda: wide.build(out, value=values))
        again = seconds(lambda: wide.build(out, value=values))
        unchanged = wide.build(out, value=values)
        added = wide.build(out, value=[*values, 100])
    assert unchanged.built == 0, unchanged
    assert added.built == 2, added  # the new case and the entry
    print(f"48 cases built ahead in {first:.1f} s; one value added: {added.built} compiles, {added.seconds:.2f} s")
    return [
        Row("cpu/ahead", {"what": "48 cases, nothing changed"}, "s", again),
        Row("cpu/ahead", {"what": "48 cases, one value added"}, "s", added.seconds),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-torch", action="store_true", help="leave out torch's load_inline")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        os.environ["DIMORPH_STORE"] = store
        started = time.perf_counter()
        rows = [cold(not args.no_torch), *store_hit(), *calls(), large_entry(), *ahead()]
        write("core", rows)
        print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
