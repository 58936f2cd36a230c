"""The CUDA stream of a call: the current stream of the caller's library, or the one that the call names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from dimorph.runtime.tvm import tvm_ffi
from dimorph.toolchain import nvidia_driver

_KDLCUDA = 2
_DEFAULT_STREAMS = 2  # handles up to 2 stand for the default streams of a context (legacy, per thread)


def call(function: Callable[..., Any], args: tuple[Any, ...], stream: Any) -> Any:
    """Call a function so that it launches its kernels on a stream.

    Args:
        function: a function that asks tvm-ffi for its stream.
        args: the arguments of the call.
        stream: a raw handle, or an object with `__cuda_stream__` or `cuda_stream` (torch) or `ptr` (CuPy); None: the
            current stream of the library that made the arrays.

    Raises:
        ValueError: `stream` is given, but no argument is an array on a GPU.
        TypeError: `stream` is not a stream.
    """
    if stream is None and not _any_cupy(args):
        return function(*args)  # tvm-ffi asks torch for its current stream itself
    # As tensors of tvm-ffi itself, for which it uses the stream that is set here instead of asking another library.
    plain = [_plain(arg) if hasattr(arg, "__dlpack__") else arg for arg in args]
    devices = [arg.device for arg in plain if isinstance(arg, tvm_ffi().Tensor)]
    device = next((device for device in devices if device.dlpack_device_type() == _KDLCUDA), None)
    if device is None:
        if stream is None:
            return function(*plain)
        raise ValueError(f"stream: expected an argument that is an array on a GPU, got none among {len(args)}")
    handle = _cupy().cuda.get_current_stream(device.index).ptr if stream is None else _handle(stream)
    with tvm_ffi().use_raw_stream(device, handle):
        return function(*plain)


def capturing() -> bool:
    """Return True if a current stream of tvm-ffi, torch or CuPy in this thread is being captured into a CUDA graph."""
    found = nvidia_driver.find()
    gpus = range(len(found.gpus)) if found else ()
    streams = [tvm_ffi().get_raw_stream(tvm_ffi().device("cuda", gpu)) for gpu in gpus]
    # tvm-ffi asks torch for its stream only during a call, so torch and CuPy are asked here.
    torch, cupy = sys.modules.get("torch"), _cupy()
    if torch is not None and torch.cuda.is_initialized():
        streams += [torch.cuda.current_stream(gpu).cuda_stream for gpu in range(torch.cuda.device_count())]
    if cupy is not None and (stream := cupy.cuda.get_current_stream().ptr) > _DEFAULT_STREAMS:
        streams.append(stream)
    return any(map(nvidia_driver.is_capturing, streams))


def _cupy() -> Any:
    # A caller that passes CuPy arrays has imported CuPy.
    return sys.modules.get("cupy")


def _any_cupy(args: tuple[Any, ...]) -> bool:
    cupy = _cupy()
    return cupy is not None and any(isinstance(arg, cupy.ndarray) for arg in args)


def _plain(array: Any) -> Any:
    if _any_cupy((array,)):
        # -1: no synchronisation with the default stream, which a capture would refuse.
        return tvm_ffi().from_dlpack(array.__dlpack__(stream=-1))
    return tvm_ffi().from_dlpack(array)


def _handle(stream: Any) -> int:
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):
        if isinstance(found := getattr(stream, name, None), int):
            return found
    raise TypeError(f"stream: expected a raw handle or a CUDA stream, got {type(stream).__name__}")
