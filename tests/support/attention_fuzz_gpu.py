"""The random calls of `attention_fuzz` on a GPU, or on the emulator of one.

    PYTHONPATH=tests python -m support.attention_fuzz_gpu cuda|DIRECTORY 40000 [FIRST]

The emulator, and kernels for it, are built in the directory, unless they are there. Half of the calls go through the
public function, half through the C interface of a dispatching kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.toolchain import nvidia_driver as driver
from support.attention_fuzz import DIM, count_results, judged, made, refusal
from support.emulated import GPUS, HOST_FLAGS, Emulator, OnGpu


class Gpu:
    """A family of kernels, called with what `put` makes of arrays; `fetch` makes an array of a result.

    Args:
        family: its name.
        config: the settings of its loads.
        put: returns an array on the GPU.
        fetch: returns an array of NumPy.
        which: picks the variants.
    """

    def __init__(
        self,
        family: str,
        config: dm.Settings,
        put: Callable[[Any], Any],
        fetch: Callable[[Any], Any],
        which: slice = slice(None),
    ) -> None:
        self._which = which
        self._kernel, self._settings = GPU_FAMILIES[family].kernel, config
        self._attend = at.Attention(policy="jit", settings=config, family=family)
        self._put, self._fetch = put, fetch
        self._modules: dict[str, Any] = {}

    def call(self, seed: int) -> str:
        """Make a call; return "right", "refused", or what is wrong with it."""
        arrays, bound, known = made(seed, "float16", on_gpu=True, which=self._which)
        given = {name: self._moved(x) for name, x in arrays.items()}
        args = tuple(map(self._moved, bound.args))
        workspace = self._moved(np.full((1, 5000)[seed // 2 % 2], np.nan, np.float32))
        try:
            if seed % 2:
                self._attend(**given, variant=dm.BoundVariant(bound.variant, args), scale=0.2, workspace=workspace)
            else:
                self._native(bound.variant)(
                    *(given[name] for name in ("q", "k", "v", "out")),
                    0.2,
                    bound.variant.name,
                    given["lse"],
                    workspace,
                    given["cu_seqlens_q"],
                    given["cu_seqlens_k"],
                    None,
                    None,
                    *args,
                )
        except Exception as error:  # of the GPU, too
            return refusal(error)
        return judged(arrays, bound, self._fetch(given["out"]), 4e-3) if known else "right"

    def _native(self, variant: dm.Variant) -> Callable[..., Any]:
        if variant.name not in self._modules:
            values = {"dtype": "float16", "head_dims": (DIM, DIM), "variant": variant}
            self._modules[variant.name] = self._kernel.load(settings=self._settings, policy="jit", **values)
        function: Callable[..., Any] = self._modules[variant.name].attention
        return function

    def _moved(self, value: Any) -> Any:
        return self._put(value) if isinstance(value, np.ndarray) else value


def on_emulator(arch: str, directory: Path) -> Gpu:
    """Return the kernels for an architecture, on the emulator."""
    emulator = Emulator.build(directory / "emulator")
    driver.find = lambda: emulator.driver  # type: ignore[assignment]
    store = directory / "warm-store"
    config = replace(settings.current(), nvcc=str(emulator.nvcc), arch=arch, store=store, cxxflags=HOST_FLAGS)
    ordinal = [*GPUS].index(arch.rstrip("a"))
    sm90 = arch.endswith("a")
    # Every other variant, the families in turns: both take the same arguments, and their compiles take nearly all time.
    which = slice(int(sm90), None, 2)
    return Gpu("sm90" if sm90 else "sm80", config, lambda x: OnGpu(x, ordinal), lambda x: x.array, which)


def on_cuda(family: str) -> Gpu:
    """Return the kernels of a family, on the first GPU with arrays of torch."""
    import torch

    def put(array: Any) -> Any:
        # Views with strides of 0 may have any size.
        one = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
        return torch.from_numpy(np.ascontiguousarray(one).reshape(one.shape)).cuda().expand(array.shape)

    return Gpu(family, settings.current(), put, lambda x: x.cpu().numpy())


def main(place: str, count: int, first: int = 0) -> None:
    for family, arch in (("sm80", "sm_80"), ("sm90", "sm_90a")):
        gpu = on_cuda(family) if place == "cuda" else on_emulator(arch, Path(place))
        print(f"{family}: {count} calls: {count_results(range(first, first + count), gpu.call)}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
