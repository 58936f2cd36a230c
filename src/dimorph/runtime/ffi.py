"""The meeting point with tvm-ffi, imported late because it imports torch where torch is installed."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dimorph.errors import SpecializationMismatch


class Wider(ctypes.Structure):
    """Mirrors detail::Wider of entry.h."""

    _fields_ = (("call", ctypes.c_void_p), ("instance", ctypes.c_void_p))


class PythonLock(ctypes.Structure):
    """Mirrors detail::PythonLock of entry.h."""

    _fields_ = (("held", ctypes.c_void_p), ("release", ctypes.c_void_p), ("take", ctypes.c_void_p))


# resolve(function, slot, axis, value) -> address
Resolve = Callable[[str, int, "str | None", "str | None"], int]


def resolver(resolve: Resolve) -> Any:
    """`resolve` as an entry can call it. It may raise; the call that it serves then raises the same."""
    import tvm_ffi

    def carried(function: str, slot: int, axis: str | None, value: str | None) -> int:
        try:
            return resolve(str(function), slot, axis and str(axis), value and str(value))
        except BaseException as error:
            raise _Carried(error) from error

    return tvm_ffi.convert(carried)


@lru_cache(maxsize=1)
def python_lock() -> PythonLock:
    """How C++ lets go of the lock of this interpreter."""
    names = ("PyGILState_Check", "PyEval_SaveThread", "PyEval_RestoreThread")
    return PythonLock(*(_address(getattr(ctypes.pythonapi, name)) for name in names))


def extern_function(address: int) -> Any:
    """A callable over an exported C function of tvm-ffi's calling convention."""
    import tvm_ffi

    return tvm_ffi.Function.__from_extern_c__(address)


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


# tvm-ffi carries an exception across C++ as its type's name and its text. Ours have attributes, so the text is the
# number under which the exception itself waits.
_waiting: dict[str, BaseException] = {}
_numbers = itertools.count()


class _Carried(Exception):
    def __init__(self, error: BaseException) -> None:
        number = str(next(_numbers))
        _waiting[number] = error
        super().__init__(number)


class _Recalled(Exception):
    """Stands where tvm-ffi wants the type of a carried exception; making one gives the exception itself."""

    def __new__(cls, number: str) -> BaseException:  # type: ignore[misc]
        return _waiting.pop(number)


@lru_cache(maxsize=1)
def require() -> None:
    """Loads libtvm_ffi, whose functions entries call, and tells it our exceptions."""
    from tvm_ffi import register_error

    register_error("NotImplementedError", NotImplementedError)
    register_error("dimorph.SpecializationMismatch", SpecializationMismatch)
    # Sent by type, recalled by name.
    register_error("dimorph.carried", _Carried)
    register_error("dimorph.carried", _Recalled)
