"""The limits of the machine, measured: bytes copied and read a second, and multiply-adds.

A rate is the best of several short runs, because what disturbs a run only lowers it. On a machine that others use too,
measure a limit in turns with the subject that is compared with it. `threads` is at most the number that the process
may use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import dimorph as dm

KERNEL = dm.Kernel(
    "limits",
    functions=["copy", "sums", "fma"],
    axes=[dm.dtype_axis("dtype", "DType", ["float32", "float64"])],
)
# Many times the last-level caches of today's CPUs.
BYTES = 2**29
# Vectors of 64 bytes that `fma` works on at a time.
VECTORS = 16


def copy_rate(threads: int, repeats: int = 5) -> float:
    """Return the bytes that `threads` threads read and write a second when they copy, past the caches."""
    source, target = _rows(threads), _rows(threads)
    return 2 * source.nbytes / _best(lambda: _module("float32").copy(source, target), repeats)


def read_rate(threads: int, repeats: int = 5) -> float:
    """Return the bytes that `threads` threads read a second from main memory."""
    source, out = _rows(threads), np.empty(threads, np.float32)
    return source.nbytes / _best(lambda: _module("float32").sums(source, out), repeats)


def fma_rate(dtype: str, threads: int, repeats: int = 5) -> float:
    """Return the operations of `threads` threads a second: two for each multiply-add of each element."""
    out, rounds = np.zeros((threads, 64), dtype), 2_000_000
    elements = threads * VECTORS * 64 // out.itemsize
    return 2 * elements * rounds / _best(lambda: _module(dtype).fma(out, rounds), repeats)


def gpu_copy_rate(torch: Any, repeats: int = 20) -> float:
    """Return the bytes that the current GPU reads and writes a second when torch copies 4 GiB."""
    source = torch.ones(2**30, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) * 1e-3)
    return 2 * int(source.nbytes) / min(times)


@cache
def _module(dtype: str) -> dm.Module:
    return KERNEL.load(dtype=dtype)


def _rows(threads: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ones, [threads, elements], at a multiple of 64 bytes, where whole vectors are stored."""
    room = np.ones(BYTES // 4 + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    elements = BYTES // 4 // threads // 64 * 64
    return room[start : start + threads * elements].reshape(threads, elements)


def _best(call: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of some calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    for threads in (1, 2):
        print(f"{threads} threads: copy {copy_rate(threads) / 1e9:.1f} GB/s, read {read_rate(threads) / 1e9:.1f} GB/s")
        for dtype in ("float32", "float64"):
            print(f"  multiply-adds of {dtype}: {fma_rate(dtype, threads) / 1e9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
