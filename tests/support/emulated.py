"""The GPU kernels of `dimorph.attention` on the CPU, with an emulated CUDA toolkit and NVIDIA driver (support/emulator)
and arrays that claim to be on a GPU.

`python -m support.emulated DIRECTORY FILE OLD NEW` checks some problems with device code compiled under the flags of
DIMORPH_CXXFLAGS: first the unchanged sources, then with the text OLD of FILE replaced by NEW. It builds in DIRECTORY.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention.kernels import GPU_FAMILIES, Family, attention_sm80
from dimorph.plan.unit import INCLUDE
from dimorph.toolchain import nvidia_driver as driver
from support.attention_check import failures
from support.attention_configs import Array, Config, Shape, Specialization

HERE = Path(__file__).parent / "emulator"
CUDA = (12, 8)
GPUS = {"sm_80": (8, 0), "sm_90": (9, 0)}
SMALL = Specialization("bfloat16", (32, 32), ("Causal",))
APART = Specialization("bfloat16", (32, 32), ("FirstAndWindow",))
WITHOUT_SOFTMAX = Specialization("float16", (80, 48), ("FlashSigmoid",))
# Host code beside emulated device code only checks, describes and launches, and is what takes the longest to compile.
HOST_FLAGS = ("-O0",)
_KDLCUDA = 2
# Dtypes that NumPy does not export: one of the same size that it does, and DLPack's code.
_CODES = {"bfloat16": ("uint16", 4), "float8_e4m3fn": ("uint8", 10), "float8_e5m2": ("uint8", 12)}
# Offsets in bytes in DLPack's DLTensor {data, device type, device id, ndim, dtype ...}.
_DEVICE, _DTYPE = 8, 20

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def missing() -> str:
    """Return the reason why the emulator cannot run on this machine; empty if it can."""
    if platform.machine() != "x86_64":
        return f"the emulator switches between threads in x86-64 assembly, this is {platform.machine()}"
    return "" if shutil.which("g++") else "there is no g++ on PATH, which the emulator is compiled with"


@dataclass(frozen=True)
class Emulator:
    """The emulated CUDA toolkit and NVIDIA driver, built and loaded."""

    nvcc: Path
    driver: driver.Driver

    @classmethod
    def build(cls, directory: Path, flags: tuple[str, ...] = ("-O1", "-g1")) -> Emulator:
        """Build toolkit and driver in `directory`; device code is compiled with the same flags.

        Processes may share a directory: the first one builds, the others wait for it and load what it built.
        """
        directory.mkdir(parents=True, exist_ok=True)
        nvcc, library = directory / "bin/nvcc", directory / "driver.so"
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                cls._compile(directory, nvcc, library, flags)
        # RTLD_GLOBAL, because device code calls functions of this library.
        loaded = ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_GLOBAL)
        address = ctypes.cast(loaded.emulated_get_proc_address, ctypes.c_void_p).value
        return cls(nvcc, driver.Driver(CUDA, tuple(GPUS.values()), address or 0))

    @staticmethod
    def _compile(directory: Path, nvcc: Path, library: Path, flags: tuple[str, ...]) -> None:
        compiler = shutil.which("g++")
        assert compiler
        header, made = directory / "include/cuda.h", library.with_suffix(".tmp")
        for file in (nvcc, header):
            file.parent.mkdir(exist_ok=True)
        worker = shlex.join([sys.executable, "-I", "-S", str(HERE / "nvcc.py"), compiler, shlex.join(flags)])
        nvcc.write_text(f'#!/bin/sh\nexec {worker} "$@"\n')
        nvcc.chmod(0o755)
        header.write_text(f"#define CUDA_VERSION {CUDA[0]}0{CUDA[1]}0\n")
        command = [compiler, "-std=c++17", *flags, "-fPIC", "-shared", f"-I{INCLUDE}", "-o", str(made)]
        subprocess.run([*command, *map(str, sorted(HERE.glob("*.cc")))], check=True)
        made.rename(library)


def patched_capsule(array: Array, gpu: int, memory: int | None = None) -> object:
    """Return the DLPack capsule of an array, changed to claim a GPU and, if `memory` is given, that address."""
    plain_dtype, code = _CODES.get(array.dtype.name, ("", 0))
    plain: Any = array.view(plain_dtype) if plain_dtype else array
    capsule: object = plain.__dlpack__()
    tensor = _pointer(capsule, b"dltensor")
    if memory is not None:
        ctypes.c_uint64.from_address(tensor).value = memory
    ctypes.c_int32.from_address(tensor + _DEVICE).value = _KDLCUDA
    ctypes.c_int32.from_address(tensor + _DEVICE + 4).value = gpu
    if plain_dtype:
        ctypes.c_uint8.from_address(tensor + _DTYPE).value = code
    return capsule


class OnGpu:
    """An array that claims to be on a GPU."""

    def __init__(self, array: Array, gpu: int) -> None:
        self.array = array
        self.gpu = gpu
        self.shape = array.shape
        self.dtype = array.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return _KDLCUDA, self.gpu

    def __dlpack__(self, stream: object = None) -> object:
        return patched_capsule(self.array, self.gpu)


class Emulated:
    """A replacement of `Attention` that takes CPU arrays and computes with the emulated GPU kernels.

    Without `split`, the workspace is too small to split the keys, so that each block of queries processes all of them.
    """

    def __init__(self, emulator: Emulator, arch: str, store: Path, *, split: bool = True) -> None:
        self._split = split
        config = replace(settings.current(), nvcc=str(emulator.nvcc), arch=arch, store=store, cxxflags=HOST_FLAGS)
        family = "sm90" if arch.endswith("a") else "sm80"
        self.attend = at.Attention(policy="jit", settings=config, family=family)
        self._arch = arch
        self._gpu = [*GPUS].index(arch.rstrip("a"))

    def __call__(self, q: Array, k: Array, v: Array, *, variant: dm.BoundVariant, **options: Any) -> Any:
        out = options.get("out")
        written = out if out is not None and _fits(out) else np.full((*q.shape[:-1], v.shape[-1]), np.nan, q.dtype)
        options["out"] = written
        if options.get("return_lse") and options.get("lse") is None:
            options["lse"] = np.full(q.shape[:-1], np.nan, np.float32)
        size = at.workspace_size(q.shape, v.shape[-1]) if self._split else 1
        options["workspace"] = np.full(size, np.nan, np.float32)
        moved = {name: self._moved(value) for name, value in options.items()}
        bound = dm.BoundVariant(variant.variant, tuple(map(self._moved, variant.args)))
        self.attend(*(self._moved(x if _fits(x) else x.copy()) for x in (q, k, v)), variant=bound, **moved)
        if out is not None and out is not written:
            out[...] = written
        result = written if out is None else out
        return (result, options["lse"]) if options.get("return_lse") else result

    def _moved(self, value: Any) -> Any:
        return OnGpu(value, self._gpu) if isinstance(value, np.ndarray) else value


class EmulatedCache(Emulated):
    """The same for calls with a `KVCache`. Without `split`, the sm90 family is called by `plan` and `run`."""

    def __call__(self, q: Array, cache: at.KVCache, v: None = None, *, variant: dm.BoundVariant, **options: Any) -> Any:  # type: ignore[override]
        # The kernels write no rows behind those in use.
        out = np.zeros((*q.shape[:-1], cache.v.shape[-1]), q.dtype)
        lse = np.full(q.shape[:-1], -np.inf, np.float32)
        kv_heads = cache.k.shape[-3 if cache.layout == "HND" else -2]
        sequences = options["cu_seqlens_q"].shape[0] - 1 if "cu_seqlens_q" in options else None
        scheduled = self._arch.endswith("a")
        enough = scheduled or self._split
        invariant = options.get("batch_invariant", False)
        size = at.plan_size(q.shape, kv_heads, cache.v.shape[-1], sequences=sequences, batch_invariant=invariant)
        size = size if enough else 1
        workspace = np.full(size + 3, np.nan, np.float32)
        workspace = workspace[-workspace.ctypes.data // 4 % 4 :]  # from a multiple of 16 bytes on
        moved = {name: self._moved(value) for name, value in options.items()}
        moved |= {name: self._moved(x) for name, x in (("out", out), ("lse", lse), ("workspace", workspace))}
        bound = dm.BoundVariant(variant.variant, tuple(map(self._moved, variant.args)))
        arrays = {field.name: getattr(cache, field.name) for field in fields(cache)}
        fitting = {name: x.copy() if name in "kv" and not _fits(x) else x for name, x in arrays.items()}
        on_gpu = at.KVCache(**{name: self._moved(x) for name, x in fitting.items()})
        q_on_gpu = self._moved(q if _fits(q) else q.copy())
        if scheduled and not self._split:
            of_plan = "cu_seqlens_q", "seqlens_q", "batch_invariant"
            lengths = {name: moved.pop(name) for name in of_plan if name in moved}
            plan = self.attend.plan(q_on_gpu, on_gpu, variant=bound, workspace=moved.pop("workspace"), **lengths)
            self.attend.run(plan, q_on_gpu, on_gpu, **moved)
        else:
            self.attend(q_on_gpu, on_gpu, variant=bound, **moved)
        return out, lse


def _fits(array: Array) -> bool:
    """Return True if the kernels accept an array without a copy. NumPy exports no read-only (broadcast) arrays."""
    strides = array.strides[:-1]
    return (
        array.flags.writeable
        and array.ctypes.data % 16 == 0
        and all(stride >= 0 and stride % 16 == 0 for stride in strides)
    )


def problems(specialization: Specialization) -> list[Config]:
    """Return problems with lengths, heads, layouts and values that are difficult for a kernel."""
    shapes = {
        "few queries, packed, split": Shape((3,), (700,), 4, 2, ragged=False),
        "ragged, empty": Shape((5, 0, 130, 17), (100, 40, 0, 257), 6, 2, ragged=True),
        "ragged, split": Shape((1, 2), (300, 513), 2, 1, ragged=True),
        "more queries than keys": Shape((150, 150), (65, 65), 2, 2, ragged=False),
        "odd": Shape((49,), (129,), 3, 1, ragged=False),
    }
    configs = []
    for seed, (name, shape) in enumerate(shapes.items()):
        for nonfinite in ("", "nan in v", "inf in v") if name == "odd" else ("",):
            layouts = dict.fromkeys(("q", "k", "v", "out", "lse"), ("contiguous", "heads first", "packed")[seed % 3])
            scale = -0.1 if name == "more queries than keys" else None
            tail = (3, 2) if shape.ragged else (0, 0)
            configs.append(Config(seed, specialization, shape, scale, tail, layouts, True, "given", nonfinite))
    return configs


def long_problems() -> list[Config]:
    """Return problems with many tiles of keys, and with more blocks of work than the GPU of 9.0 has multiprocessors."""
    queries, keys = (tuple(i * step % most for i in range(140)) for step, most in ((37, 151), (29, 121)))
    shapes = (
        Shape((130,), (1500,), 2, 2, ragged=False),  # enough tiles to use every pipeline stage several times
        Shape(queries, keys, 1, 1, ragged=True),
        Shape((400,) * 46, (9,) * 46, 1, 1, ragged=False),  # an odd number of tiles for each sequence
    )
    return [plainly(specialization, shape) for specialization in (SMALL, APART, WITHOUT_SOFTMAX) for shape in shapes]


def two_groups() -> Config:
    """Return a problem with more heads than one group on a GPU of 8.0 contains, and fewer than two groups contain."""
    return plainly(SMALL, Shape((130,) * 230, (5,) * 230, 1, 1, ragged=False))


def plainly(specialization: Specialization, shape: Shape) -> Config:
    layouts = dict.fromkeys(("q", "k", "v", "out", "lse"), "contiguous")
    return Config(9, specialization, shape, None, (0, 0), layouts, True, "given", "")


def altered(directory: Path, kernel: dm.Kernel, file: str, old: str, new: str) -> dm.Kernel:
    """Return a copy of the kernel in which a text of one source is replaced."""
    root = directory / "csrc"
    shutil.copytree(kernel.root, root)
    text = (root / file).read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
    (root / file).write_text(text.replace(old, new))
    (directory / "include").symlink_to(kernel.root.parent / "include")
    return replace(kernel, root=root)


def main(directory: Path, *alteration: str) -> None:
    flags = settings.current().cxxflags
    emulator = Emulator.build(directory / "emulator", flags)
    driver.find = lambda: emulator.driver  # type: ignore[assignment]
    # Host code is not instrumented: other tests do that, and it would take the longest to compile.
    os.environ.pop("DIMORPH_CXXFLAGS")
    for kernel in (attention_sm80, altered(directory, attention_sm80, *alteration)):
        GPU_FAMILIES["sm80"] = Family(kernel)
        attend = Emulated(emulator, "sm_80", directory / "store")
        found = failures(attend, problems(SMALL))  # type: ignore[arg-type]
        print("\n".join(found))
        print(f"{len(found)} failed", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
