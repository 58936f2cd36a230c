"""Convert arrays that tvm-ffi does not accept itself: read-only NumPy arrays, and bfloat16 ones (ml_dtypes)."""

from __future__ import annotations

import ctypes
from typing import Any

from dimorph.runtime.tvm import tvm_ffi

# Offsets in bytes in the structs of DLPack: of the dtype in DLTensor {data, device, ndim, dtype ...}, and of the
# DLTensor in DLManagedTensorVersioned {version, context, deleter, flags, tensor}.
_DTYPE_IN_TENSOR = 20
_TENSOR_IN_VERSIONED = 32
_KDLBFLOAT = 4

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def exported(args: tuple[Any, ...], function: str, names: str, read_only_mask: int) -> list[Any]:
    """Return the arguments of a call with every array as a tensor of tvm-ffi over the same memory.

    Args:
        args: the arguments of the call.
        function: the name of the called function, for messages.
        names: the names of its parameters, separated by commas.
        read_only_mask: bit i is set if the function only reads argument i.

    Raises:
        ValueError: an argument that the function writes to is a read-only array.
        TypeError: DLPack cannot export an array, e.g. because of its dtype.
    """
    known = [name.strip() for name in names.split(",")]

    def described(index: int) -> str:
        name = f"'{known[index]}'" if index < len(known) and known[index] else str(index)
        return f"{function}: argument {name}"

    return [
        _tensor(arg, described(i), bool(read_only_mask >> i & 1)) if hasattr(arg, "__dlpack__") else arg
        for i, arg in enumerate(args)
    ]


def _tensor(array: Any, argument: str, read_only: bool) -> Any:
    is_numpy = hasattr(array, "__array_interface__")
    writable = array.flags.writeable if is_numpy else True
    is_bfloat16 = is_numpy and array.dtype.name == "bfloat16"
    if not writable and not read_only:
        raise ValueError(f"{argument}: expected a writable array, got a read-only one")
    try:
        if writable and not is_bfloat16:
            return tvm_ffi().from_dlpack(array)
        plain = array.view("uint16") if is_bfloat16 else array
        capsule = plain.__dlpack__(max_version=(1, 0))
    except (BufferError, TypeError) as error:
        dtype = getattr(array, "dtype", "?")
        raise TypeError(f"{argument}: expected an array that DLPack can export, got dtype {dtype}: {error}") from error
    if is_bfloat16:
        address = _pointer(capsule, b"dltensor_versioned") + _TENSOR_IN_VERSIONED + _DTYPE_IN_TENSOR
        ctypes.c_uint8.from_address(address).value = _KDLBFLOAT
    return tvm_ffi().from_dlpack(capsule)
