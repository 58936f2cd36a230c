"""The NVIDIA driver of this machine: its version, its GPUs and its functions, found without a CUDA context."""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

from dimorph.errors import LoadError

Version = tuple[int, int]
Capability = tuple[int, int]

_LIBRARY = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NO_DEVICE = 100
_CAPTURE_NONE = 0


class Driver(NamedTuple):
    """An NVIDIA driver that works.

    Attributes:
        version: the CUDA version that it supports, (major, minor).
        gpus: the compute capability of each visible GPU, in the order of their ordinals.
        get_proc_address: the address of cuGetProcAddress_v2; 0 if the driver is older than 12.0.
    """

    version: Version
    gpus: tuple[Capability, ...]
    get_proc_address: int


@functools.lru_cache(maxsize=1)
def find() -> Driver | None:
    """Return the NVIDIA driver; None if there is no driver or no GPU. Initialises it without creating a context.

    Raises:
        LoadError: there is a driver, but it does not work.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    status = library.cuInit(0)
    if status == _NO_DEVICE:
        return None
    _check(library, status, "cuInit")
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(library, library.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    _check(library, library.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    gpus = tuple(
        (_attribute(library, _CAPABILITY_MAJOR, ordinal), _attribute(library, _CAPABILITY_MINOR, ordinal))
        for ordinal in range(count.value)
    )
    lookup = getattr(library, "cuGetProcAddress_v2", None)
    address = ctypes.cast(lookup, ctypes.c_void_p).value if lookup else None
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus, address or 0) if gpus else None


def gpus() -> tuple[Capability, ...]:
    """Return the compute capability, (major, minor), of each GPU that this process sees, in the order of ordinals.

    Creates no context.

    Raises:
        LoadError: there is a driver, but it does not work.
    """
    found = find()
    return found.gpus if found else ()


def is_capturing(stream: int) -> bool:
    """Return True if the work of a stream is being captured into a CUDA graph.

    Args:
        stream: a raw stream handle; the default stream, 0, is never captured.

    Raises:
        LoadError: the NVIDIA driver does not work.
    """
    if stream == 0 or find() is None:
        return False
    status = ctypes.c_int(_CAPTURE_NONE)
    library = ctypes.CDLL(_LIBRARY)
    _check(library, library.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status)), "cuStreamIsCapturing")
    return status.value != _CAPTURE_NONE


def _attribute(library: ctypes.CDLL, attribute: int, ordinal: int) -> int:
    value = ctypes.c_int()
    status = library.cuDeviceGetAttribute(ctypes.byref(value), attribute, ordinal)
    _check(library, status, "cuDeviceGetAttribute")
    return value.value


def _check(library: ctypes.CDLL, status: int, function: str) -> None:
    if status != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        said = (text.value or b"no such error").decode()
        raise LoadError(f"the NVIDIA driver: {function} failed with {status}: {said}")
