"""The interface to tvm-ffi, which is imported at first use."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dimorph.errors import SpecializationMismatch
from dimorph.runtime.tvm import tvm_ffi


class Wider(ctypes.Structure):
    """The struct detail::Wider of entry.h."""

    _fields_ = (("call", ctypes.c_void_p), ("instance", ctypes.c_void_p))


class PythonLock(ctypes.Structure):
    """The struct detail::PythonLock of entry.h."""

    _fields_ = (("held", ctypes.c_void_p), ("release", ctypes.c_void_p), ("take", ctypes.c_void_p))


# resolve(function, slot, axis, value) -> address
Resolve = Callable[[str, int, "str | None", "str | None"], int]


def resolver(resolve: Resolve) -> Any:
    """Wrap `resolve` as a tvm-ffi function for entries; its exceptions reach the caller of the entry unchanged."""

    def carried(function: str, slot: int, axis: str | None, value: str | None) -> int:
        try:
            return resolve(str(function), slot, axis and str(axis), value and str(value))
        except BaseException as error:
            raise _Carried(error) from error

    return tvm_ffi().convert(carried)


@lru_cache(maxsize=1)
def python_lock() -> PythonLock:
    """Return the functions of this interpreter with which C++ releases and takes its global lock."""
    names = ("PyGILState_Check", "PyEval_SaveThread", "PyEval_RestoreThread")
    return PythonLock(*(_address(getattr(ctypes.pythonapi, name)) for name in names))


def extern_function(address: int) -> Any:
    """Return the tvm-ffi function for the address of a C function with tvm-ffi's calling convention."""
    return tvm_ffi().Function.__from_extern_c__(address)


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


# tvm-ffi carries an exception across C++ as the name of its type and its text, which would lose attributes. So the
# text is a number, under which the exception itself is kept here.
_waiting: dict[str, BaseException] = {}
_numbers = itertools.count()


class _Carried(Exception):
    def __init__(self, error: BaseException) -> None:
        number = str(next(_numbers))
        _waiting[number] = error
        super().__init__(number)


class _Recalled(Exception):
    """The type that tvm-ffi constructs from a carried number; the constructor returns the original exception."""

    def __new__(cls, number: str) -> BaseException:  # type: ignore[misc]
        return _waiting.pop(number)


@lru_cache(maxsize=1)
def require() -> None:
    """Load libtvm_ffi, whose functions entries call, and register the exceptions of Dimorph with it."""
    register_error = tvm_ffi().register_error
    register_error("NotImplementedError", NotImplementedError)
    register_error("dimorph.SpecializationMismatch", SpecializationMismatch)
    # The first maps _Carried to the name, for the way into C++; the second the name to _Recalled, for the way back.
    register_error("dimorph.carried", _Carried)
    register_error("dimorph.carried", _Recalled)
