"""The interface to tvm-ffi, which is imported at first use."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dimorph.errors import AUTHORS, SpecializationMismatch
from dimorph.runtime.tvm import tvm_ffi


class Wider(ctypes.Structure):
    """The struct detail::Wider of entry.h."""

    _fields_ = (("call", ctypes.c_void_p), ("instance", ctypes.c_void_p))


class CaseFunction(ctypes.Structure):
    """The struct CaseFunction of abi.h."""

    _fields_ = (("tag", ctypes.c_uint64), ("signature", ctypes.c_char_p), ("invoke", ctypes.c_void_p))


class PythonLock(ctypes.Structure):
    """The struct detail::PythonLock of entry.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("held", "release", "take", "push", "pop"))


# resolve(function, slot, axis, value) -> address
Resolve = Callable[[str, int, "str | None", "str | None"], int]


_C_RESOLVE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_char_p)


class Resolver:
    """A C function that calls `resolve`, for entries; its exceptions reach the caller of the entry unchanged.

    It is no function of tvm-ffi, because a daemon thread that is inside one when the process ends would abort it.

    Attributes:
        address: the address of the C function.
        keeper: an object of tvm-ffi that keeps the function alive.
    """

    def __init__(self, resolve: Resolve) -> None:
        def carried(function: bytes, slot: int, axis: bytes | None, value: bytes | None) -> int:
            try:
                text = [None if given is None else given.decode() for given in (axis, value)]
                return resolve(function.decode(), slot, *text)
            except BaseException as error:
                if isinstance(error, AUTHORS):
                    error.with_traceback(None)
                number = next(_numbers)
                _waiting[str(number)] = error
                return -number

        function = _C_RESOLVE(carried)
        self.address = _address(function)
        self.keeper = tvm_ffi().convert(function)


@lru_cache(maxsize=1)
def python_lock() -> PythonLock:
    """Return the functions of this interpreter with which C++ releases and takes its global lock."""
    names = ("PyGILState_Check", "PyEval_SaveThread", "PyEval_RestoreThread")
    optional = ("_pthread_cleanup_push", "_pthread_cleanup_pop")
    python = ctypes.pythonapi
    cleanup = (_address(getattr(python, name)) if hasattr(python, name) else None for name in optional)
    return PythonLock(*(_address(getattr(python, name)) for name in names), *cleanup)


def extern_function(address: int) -> Any:
    """Return the tvm-ffi function for the address of a C function with tvm-ffi's calling convention."""
    return tvm_ffi().Function.__from_extern_c__(address)


def check_signals() -> int:
    """Return the address of the C function that runs the handlers of signals that Python has received.

    It takes Python's lock itself, and returns another number than 0 if a handler has raised an exception.
    """
    return _address(tvm_ffi().LIB.TVMFFIEnvCheckSignals)


def _address(function: Any) -> int:
    # `ctypes.cast` would make a reference cycle.
    address = ctypes.c_void_p.from_address(ctypes.addressof(function)).value
    assert address is not None
    return address


# tvm-ffi carries an exception across C++ as the name of its type and its text, which would lose attributes. So the
# text is a number, under which the exception itself is kept here.
_waiting: dict[str, BaseException] = {}
_numbers = itertools.count(1)


class _Recalled(Exception):
    """The type that tvm-ffi constructs from a carried number; the constructor returns the original exception."""

    def __new__(cls, number: str) -> BaseException:  # type: ignore[misc]
        return _waiting.pop(number)


@lru_cache(maxsize=1)
def provide() -> None:
    """Load libtvm_ffi alone, so that the functions that entries call are there, without importing its package."""
    found = find_spec("tvm_ffi")
    for location in (found.submodule_search_locations or ()) if found else ():
        if (library := Path(location) / "lib" / "libtvm_ffi.so").is_file():
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
            return
    require()


@lru_cache(maxsize=1)
def require() -> None:
    """Load libtvm_ffi, whose functions entries call, and register the exceptions of Dimorph with it."""
    register_error = tvm_ffi().register_error
    register_error("NotImplementedError", NotImplementedError)
    register_error("KeyboardInterrupt", KeyboardInterrupt)
    register_error("dimorph.SpecializationMismatch", SpecializationMismatch)
    register_error("dimorph.carried", _Recalled)
