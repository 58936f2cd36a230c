"""Arrays of libraries that nobody knows, and of devices that are not there."""

from __future__ import annotations

import ctypes
from typing import Any

# Numbers of DLPack.
DEVICES = {"cpu": 1, "cuda": 2, "cuda_host": 3, "cuda_managed": 13}


class OnlyDLPack:
    """An array of an unknown library, which supports DLPack and nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def on_device(array: Any, device: str, number: int) -> Any:
    """Return an array that claims to be on a device; its memory is that of the NumPy array."""
    place = DEVICES[device], number
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

    class Claimed(OnlyDLPack):
        def __dlpack__(self, **_: Any) -> Any:
            capsule = self.array.__dlpack__()
            address = pointer(capsule, b"dltensor")
            (ctypes.c_int32 * 2).from_address(address + 8)[:] = place  # after the pointer to the data
            return capsule

        def __dlpack_device__(self) -> Any:
            return place

    return Claimed(array)
