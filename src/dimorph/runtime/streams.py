"""CUDA streams of calls: the caller's current one, or one that is given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from dimorph.toolchain import nvidia_driver

_KDLCUDA = 2
_DEFAULT_STREAMS = 2  # the handles up to it stand for a context's own


def call(function: Callable[..., Any], args: tuple[Any, ...], stream: Any) -> Any:
    """Calls a function so that its kernels are launched on a stream.

    Args:
        function: it takes its stream from tvm-ffi.
        args: the call's arguments.
        stream: a raw handle, or an object with `__cuda_stream__` or `cuda_stream` (torch) or `ptr` (CuPy); None: the
            current one of the library that the arrays are of.

    Raises:
        ValueError: no argument is an array on a GPU.
        TypeError: `stream` is no stream.
    """
    import tvm_ffi

    if stream is None and not _any_cupy(args):
        return function(*args)  # tvm-ffi asks torch for its current stream itself
    # As plain tensors, of which tvm-ffi does not know whose they are: it takes the stream that is set here.
    plain = [_plain(arg) if hasattr(arg, "__dlpack__") else arg for arg in args]
    devices = [arg.device for arg in plain if isinstance(arg, tvm_ffi.Tensor)]
    device = next((device for device in devices if device.dlpack_device_type() == _KDLCUDA), None)
    if device is None:
        if stream is None:
            return function(*plain)
        raise ValueError(f"stream: expected an argument that is an array on a GPU, got none among {len(args)}")
    handle = _cupy().cuda.get_current_stream(device.index).ptr if stream is None else _handle(stream)
    with tvm_ffi.use_raw_stream(device, handle):
        return function(*plain)


def capturing() -> bool:
    """Whether a current stream of this thread is being captured into a CUDA graph: tvm-ffi's, torch's or CuPy's."""
    import tvm_ffi

    found = nvidia_driver.find()
    gpus = range(len(found.gpus)) if found else ()
    streams = [tvm_ffi.get_raw_stream(tvm_ffi.device("cuda", gpu)) for gpu in gpus]
    # tvm-ffi asks the others within its own calls alone.
    torch, cupy = sys.modules.get("torch"), _cupy()
    if torch is not None and torch.cuda.is_initialized():
        streams += [torch.cuda.current_stream(gpu).cuda_stream for gpu in range(torch.cuda.device_count())]
    if cupy is not None and (stream := cupy.cuda.get_current_stream().ptr) > _DEFAULT_STREAMS:
        streams.append(stream)
    return any(map(nvidia_driver.is_capturing, streams))


def _cupy() -> Any:
    # Whoever passes its arrays has imported it.
    return sys.modules.get("cupy")


def _any_cupy(args: tuple[Any, ...]) -> bool:
    cupy = _cupy()
    return cupy is not None and any(isinstance(arg, cupy.ndarray) for arg in args)


def _plain(array: Any) -> Any:
    import tvm_ffi

    if _any_cupy((array,)):
        # Without its own synchronisation with the default stream, which a capture would refuse.
        return tvm_ffi.from_dlpack(array.__dlpack__(stream=-1))
    return tvm_ffi.from_dlpack(array)


def _handle(stream: Any) -> int:
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):
        if isinstance(found := getattr(stream, name, None), int):
            return found
    raise TypeError(f"stream: expected a raw handle or a CUDA stream, got {type(stream).__name__}")
