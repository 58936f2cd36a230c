"""Arrays on a GPU that use only the NVIDIA driver, so that sanitizers see no kernels but our own.

`PYTHONPATH=tests python -m support.gpu_arrays FAMILY` checks small problems of several variants with the kernels
of a family.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from support.attention_check import failures
from support.attention_configs import Array, Specialization
from support.emulated import patched_capsule, problems

SPECIALIZATIONS = (
    Specialization("bfloat16", (64, 64), ("Causal",)),
    Specialization("float16", (128, 128), ("Plain",)),
    Specialization("bfloat16", (128, 128), ("Causal", "Window", "SoftCap")),
    Specialization("float16", (192, 128), ("ALiBi", "Sinks")),
    Specialization("bfloat16", (256, 256), ("FlashSigmoid",)),
    Specialization("float16", (80, 48), ("Decay",)),
    Specialization("bfloat16", (72, 88), ("Causal",)),
    Specialization("float16", (8, 24), ("Plain",)),
)


class Driver:
    """The first GPU's primary context, current in this thread."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status != 0:
            raise RuntimeError(f"{name} failed with {status}")


class OnGpu:
    """A copy of an array on the GPU; without `filled`, uninitialised memory for such an array."""

    def __init__(self, driver: Driver, array: Array, *, filled: bool = True) -> None:
        self._driver = driver
        self._like = np.ascontiguousarray(array)
        self.shape, self.dtype = array.shape, array.dtype
        self._memory = ctypes.c_uint64()
        driver.call("cuMemAlloc_v2", ctypes.byref(self._memory), ctypes.c_size_t(max(self._like.nbytes, 16)))
        if filled and self._like.nbytes:
            size = ctypes.c_size_t(self._like.nbytes)
            driver.call("cuMemcpyHtoD_v2", self._memory, ctypes.c_void_p(self._like.ctypes.data), size)

    def __del__(self) -> None:
        self._driver.call("cuMemFree_v2", self._memory)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: object = None) -> object:
        return patched_capsule(self._like, 0, self._memory.value)

    def back(self) -> Array:
        result = np.empty_like(self._like)
        if result.nbytes:
            size = ctypes.c_size_t(result.nbytes)
            self._driver.call("cuMemcpyDtoH_v2", ctypes.c_void_p(result.ctypes.data), self._memory, size)
        return result


class Attend:
    """A replacement of `Attention` that takes and returns CPU arrays and computes on the GPU."""

    def __init__(self, driver: Driver, family: str) -> None:
        self._driver = driver
        self._attend = at.Attention(family=family)

    def __call__(self, q: Array, k: Array, v: Array, *, variant: dm.BoundVariant, **options: Any) -> Any:
        given = {name: options.pop(name, None) for name in ("out", "lse")}
        moved = {name: self._moved(value) for name, value in options.items()}
        out = self._place(given["out"], (*q.shape[:-1], v.shape[-1]), q.dtype)
        lse = self._place(given["lse"], q.shape[:-1], np.float32)
        size = at.workspace_size(q.shape, v.shape[-1])
        moved |= {"out": out, "workspace": OnGpu(self._driver, np.empty(size, np.float32), filled=False)}
        if options.get("return_lse"):
            moved["lse"] = lse
        bound = dm.BoundVariant(variant.variant, tuple(map(self._moved, variant.args)))
        self._attend(*map(self._moved, (q, k, v)), variant=bound, **moved)
        results = []
        for name, array in (("out", out), ("lse", lse))[: 2 if options.get("return_lse") else 1]:
            result = array.back()
            if given[name] is not None:
                given[name][...] = result
                result = given[name]
            results.append(result)
        return tuple(results) if options.get("return_lse") else results[0]

    def _place(self, given: Array | None, shape: tuple[int, ...], dtype: Any) -> OnGpu:
        empty = np.empty(shape, dtype) if given is None else given
        return OnGpu(self._driver, empty, filled=given is not None)

    def _moved(self, value: Any) -> Any:
        return OnGpu(self._driver, value) if isinstance(value, np.ndarray) else value


def main(family: str) -> int:
    attend = Attend(Driver(), family)
    count = failed = 0
    for specialization in SPECIALIZATIONS:
        configs = problems(specialization)
        found = failures(attend, configs)  # type: ignore[arg-type]
        print("\n".join([*found, f"{len(configs)} of {specialization}"]), flush=True)
        count, failed = count + len(configs), failed + len(found)
    print(f"{count} problems, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
