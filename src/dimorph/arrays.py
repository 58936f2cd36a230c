"""Arrays that tvm-ffi does not take by itself: read-only NumPy arrays, and bfloat16 ones (ml_dtypes)."""

from __future__ import annotations

import ctypes
from typing import Any

# Bytes before the dtype in DLPack's structs: DLTensor {data, device, ndim, dtype ...}, which a versioned struct
# holds after {version, context, deleter, flags}.
_DTYPE_IN_TENSOR = 20
_TENSOR_IN_VERSIONED = 32
_KDLBFLOAT = 4

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def exported(args: tuple[Any, ...], function: str, names: str, read_only_mask: int) -> list[Any]:
    """The arguments of a call, with what tvm-ffi refused turned into tensors over the same memory.

    Args:
        args: the call's arguments.
        function: its name, for messages.
        names: the parameters' names, comma separated.
        read_only_mask: bit i is set where the C++ side only reads argument i.

    Raises:
        ValueError: a read-only array is passed where the function writes.
        BufferError: an array that cannot be exported for another reason.
    """
    return [
        _tensor(arg, i, function, names, bool(read_only_mask >> i & 1)) if hasattr(arg, "__array_interface__") else arg
        for i, arg in enumerate(args)
    ]


def _tensor(array: Any, index: int, function: str, names: str, read_only: bool) -> Any:
    import tvm_ffi

    is_bfloat16 = array.dtype.name == "bfloat16"
    if array.flags.writeable and not is_bfloat16:
        return array
    if not array.flags.writeable and not read_only:
        known = [name.strip() for name in names.split(",")]
        name = f"'{known[index]}'" if index < len(known) and known[index] else str(index)
        raise ValueError(f"{function}: argument {name}: expected a writable array, got a read-only one")
    plain = array.view("uint16") if is_bfloat16 else array
    capsule = plain.__dlpack__(max_version=(1, 0))
    if is_bfloat16:
        address = _pointer(capsule, b"dltensor_versioned") + _TENSOR_IN_VERSIONED + _DTYPE_IN_TENSOR
        ctypes.c_uint8.from_address(address).value = _KDLBFLOAT
    return tvm_ffi.from_dlpack(capsule)
