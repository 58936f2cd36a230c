"""The core's costs on a GPU: first call, store hit, host time of a call. Needs torch with CUDA, and nvcc for the peer.

python benchmarks/core/cuda.py            # about two minutes; --repeats 3 takes half of that
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.core.kernels import gpu_add, gpu_sum
from benchmarks.support.rows import ROOT, Row, interleaved, nanoseconds_each, python, write

TVM_SOURCE = """
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
__global__ void add_kernel(float* x, int64_t count, float value) {
  int64_t i = blockIdx.x * int64_t{256} + threadIdx.x;
  if (i < count) x[i] += value;
}
void gpu_add(tvm::ffi::TensorView x, double value) {
  cudaStream_t stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, x.device().device_id));
  add_kernel<<<(x.size(0) + 255) / 256, 256, 0, stream>>>(static_cast<float*>(x.data_ptr()), x.size(0), value);
}
"""

# Each prints the seconds from the call that loads to the first result: imports done, a context there, nothing cached.
START = """
import sys; sys.path.insert(0, sys.argv[1])
import time, torch, tvm_ffi, tempfile
x = torch.zeros(1000, device="cuda")
torch.cuda.synchronize()
"""
COLD = {
    "ours": START
    + """
from benchmarks.core.kernels import gpu_add
start = time.perf_counter()
gpu_add.load(dtype="float32").gpu_add(x, 1.0)
torch.cuda.synchronize()
print(time.perf_counter() - start)
assert bool((x == 1).all())
""",
    "tvm_ffi": START
    + f"""
import tvm_ffi.cpp
with tempfile.TemporaryDirectory() as directory:
    start = time.perf_counter()
    module = tvm_ffi.cpp.load_inline("adder", cuda_sources={TVM_SOURCE!r}, functions="gpu_add",
                                     build_directory=directory)
    module.gpu_add(x, 1.0)
    torch.cuda.synchronize()
    print(time.perf_counter() - start)
assert bool((x == 1).all())
""",
}


def cold(repeats: int) -> Row:
    def run(name: str) -> float:
        with tempfile.TemporaryDirectory() as empty:
            env = {**os.environ, "DIMORPH_STORE": f"{empty}/store", "CUDA_CACHE_PATH": f"{empty}/cuda"}
            return float(python(COLD[name], str(ROOT), env=env))

    found = interleaved({name: lambda name=name: run(name) for name in COLD}, repeats)
    ours = found.pop("ours")
    return device_row("gpu/cold_jit/function", {"function": "add a scalar to one float32 array"}, "s", ours, found)


def store_hit(repeats: int) -> Row:
    gpu_add.load(dtype="float32")
    found = interleaved({"ours": lambda: float(python(COLD["ours"], str(ROOT), env=os.environ))}, repeats)
    what = "new process, load() to first result, beyond imports and the context"
    return device_row("gpu/store_hit", {"what": what}, "s", found["ours"])


def calls() -> list[Row]:
    x = torch.zeros(1000, device="cuda")
    tensors = [torch.zeros(1000, device="cuda") for _ in range(4)]
    add, total = gpu_add.load(dtype="float32").gpu_add, gpu_sum.load(dtype="float32").gpu_sum
    two, out = torch.zeros(1000, device="cuda"), torch.zeros(1000, device="cuda")

    def each(call: object, *args: object) -> float:
        # Few enough that the queue of launches never fills up, which would time the GPU instead.
        torch.cuda.synchronize()
        time.sleep(0.01)
        return nanoseconds_each(call, *args, count=500)  # type: ignore[arg-type]

    found = interleaved(
        {
            "one": lambda: each(add, x, 1.0),
            "four": lambda: each(total, *tensors),
            "torch.add": lambda: each(lambda: torch.add(x, two, out=out)),
        },
        21,
    )
    return [
        device_row("gpu/call", {"args": "one float32 array, one scalar"}, "ns", found["one"]),
        device_row("gpu/call", {"args": "4 torch tensors, launch included"}, "ns", found["four"], found),
    ]


def device_row(bench: str, cell: dict[str, str], unit: str, ours: float, found: dict[str, float] | None = None) -> Row:
    peers = {name: value for name, value in (found or {}).items() if name in ("tvm_ffi", "torch.add")}
    return Row(bench, cell, unit, ours, peers, device=torch.cuda.get_device_name())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="cold starts of each kind")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        os.environ["DIMORPH_STORE"] = store
        write("cuda_core", [cold(args.repeats), store_hit(args.repeats), *calls()])


if __name__ == "__main__":
    main()
