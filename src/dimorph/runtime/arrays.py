"""Convert arrays that tvm-ffi does not accept itself: read-only NumPy arrays, and those with a dtype of ml_dtypes.

The other way round, new tensors become arrays of the caller's library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from sys import modules
from typing import Any

from dimorph.runtime.tvm import tvm_ffi

# Offsets in bytes in the structs of DLPack: of the dtype in DLTensor {data, device, ndim, dtype ...}, and of the
# DLTensor in DLManagedTensorVersioned {version, context, deleter, flags, tensor}.
_DTYPE_IN_TENSOR = 20
_TENSOR_IN_VERSIONED = 32
_KDLUINT = 1
_KDLCPU = 1
# Dtypes of ml_dtypes, which NumPy does not export: the dtype of the same size that it does, and DLPack's code.
_UNKNOWN_TO_NUMPY = {"bfloat16": ("uint16", 4), "float8_e4m3fn": ("uint8", 10), "float8_e5m2": ("uint8", 12)}

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def exported(args: tuple[Any, ...], described: Callable[[int], str], read_only_mask: int) -> list[Any]:
    """Return the arguments of a call with every array as a tensor of tvm-ffi over the same memory.

    Args:
        args: the arguments of the call.
        described: returns the function and an argument, given by its index, as words for messages.
        read_only_mask: bit i is set if the function only reads argument i.

    Raises:
        ValueError: an argument that the function writes to is a read-only array.
        TypeError: DLPack cannot export an array, e.g. because of its dtype or its device.
    """
    return [_argument(arg, bool(read_only_mask >> i & 1), partial(described, i)) for i, arg in enumerate(args)]


def _argument(arg: Any, read_only: bool, described: Callable[[], str]) -> Any:
    if type(arg) in (list, tuple):
        return [_argument(item, read_only, partial(_item, described, index)) for index, item in enumerate(arg)]
    return _tensor(arg, read_only, described) if hasattr(arg, "__dlpack__") else arg


def _item(described: Callable[[], str], index: int) -> str:
    return f"{described()}: item {index}"


def refuse_unexportable(args: tuple[Any, ...], described: Callable[[int], str]) -> None:
    """Refuse the first argument that DLPack cannot export, after a call failed; return if there is none.

    Libraries raise any exception there: torch raises a RuntimeError, as a function may do that was called.

    Raises:
        TypeError: names the argument; see `exported`.
    """
    exported(args, described, -1)


def as_callers(result: Any, args: tuple[Any, ...]) -> Any:
    """Return a new tensor as an array of the library of the call's first array, over the same memory.

    It stays a tensor of tvm-ffi where no argument is an array, or the library has no arrays in host memory or of
    its dtype.
    """
    every = (one for arg in args for one in (arg if type(arg) in (list, tuple) else (arg,)))
    first = next((one for one in every if hasattr(one, "__dlpack__")), None)
    tensor = tvm_ffi().Tensor
    if first is None or isinstance(first, tensor) or not isinstance(result, tensor):  # torch's are made by tvm-ffi
        return result
    if hasattr(first, "__array_interface__"):
        return _numpy(result)
    library = modules.get(type(first).__module__.partition(".")[0])
    namespace: Any = first.__array_namespace__() if hasattr(first, "__array_namespace__") else library
    on_host = first.__dlpack_device__()[0] == _KDLCPU or getattr(library, "__name__", "") == "torch"
    return namespace.from_dlpack(result) if on_host and hasattr(namespace, "from_dlpack") else result


def _numpy(tensor: Any) -> Any:
    numpy, dtype = modules["numpy"], str(tensor.dtype)
    if dtype not in _UNKNOWN_TO_NUMPY:
        return numpy.from_dlpack(tensor)
    if "ml_dtypes" not in modules:  # NumPy itself has no such dtype
        return tensor
    return numpy.from_dlpack(_AsUnsigned(tensor)).view(getattr(modules["ml_dtypes"], dtype))


class _AsUnsigned:
    """A tensor that is exported as one of unsigned integers of the same size, which NumPy can import."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return _KDLCPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self._tensor.__dlpack__(max_version=(1, 0))
        _set_dtype(capsule, _KDLUINT)
        return capsule


def _set_dtype(capsule: Any, code: int) -> None:
    """Change the code of the dtype of a versioned DLPack capsule; the size stays."""
    address = _pointer(capsule, b"dltensor_versioned") + _TENSOR_IN_VERSIONED + _DTYPE_IN_TENSOR
    ctypes.c_uint8.from_address(address).value = code


def _tensor(array: Any, read_only: bool, described: Callable[[], str]) -> Any:
    is_numpy = hasattr(array, "__array_interface__")
    writable = array.flags.writeable if is_numpy else True
    plain_dtype, code = _UNKNOWN_TO_NUMPY.get(array.dtype.name, ("", 0)) if is_numpy else ("", 0)
    if not writable and not read_only:
        raise ValueError(f"{described()}: expected a writable array, got a read-only one")
    try:
        if writable and not plain_dtype:
            return tvm_ffi().from_dlpack(array)
        plain = array.view(plain_dtype) if plain_dtype else array
        capsule = plain.__dlpack__(max_version=(1, 0))
    except (BufferError, TypeError, RuntimeError) as error:
        dtype, device = getattr(array, "dtype", "?"), getattr(array, "device", "cpu")
        where = "" if str(device) == "cpu" else f" on {device}"
        reason = str(error).partition("\n")[0]  # torch appends a trace of its C++ code
        raise TypeError(
            f"{described()}: expected an array that DLPack can export, got dtype {dtype}{where}: {reason}"
        ) from error
    if plain_dtype:
        _set_dtype(capsule, code)
    return tvm_ffi().from_dlpack(capsule)
