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

    _fields_ = (("call", ctypes.c_void_p), ("handle", ctypes.c_void_p))


class EntryHost(ctypes.Structure):
    """Mirrors detail::EntryHost of entry.h."""

    _fields_ = (
        ("resolve", ctypes.c_void_p),
        ("gil_held", ctypes.c_void_p),
        ("gil_release", ctypes.c_void_p),
        ("gil_take", ctypes.c_void_p),
    )


Resolve = Callable[[int, str, int, "str | None", "str | None"], int]


@lru_cache(maxsize=1)
def entry_host(resolve: Resolve) -> EntryHost:
    """What an entry is given when it is loaded. `resolve` may raise; the call it serves then raises the same."""
    import tvm_ffi

    _register_errors()

    def carried(handle: int, function: str, slot: int, axis: str | None, value: str | None) -> int:
        try:
            return resolve(handle, str(function), slot, axis and str(axis), value and str(value))
        except BaseException as error:
            raise _Carried(error) from error

    resolver = tvm_ffi.convert(carried)
    host = EntryHost(resolver.__chandle__(), *(_address(getattr(ctypes.pythonapi, name)) for name in _GIL))
    host.keep = resolver  # the struct holds its bare address
    return host


_GIL = ("PyGILState_Check", "PyEval_SaveThread", "PyEval_RestoreThread")


def function(address: int, owner: object) -> Any:
    """A callable over a C function. `owner` lives as long as it does, and its id is the handle of every call."""
    import tvm_ffi

    made = tvm_ffi.Function.__from_extern_c__(address, keep_alive_object=owner)
    # The entry releases the GIL itself, around the case: that costs 40 ns, here it would cost 250.
    made.release_gil = False
    return made


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


def _recall(number: str) -> BaseException:
    return _waiting.pop(number)


def _register_errors() -> None:
    from tvm_ffi import register_error

    register_error("NotImplementedError", NotImplementedError)
    register_error("dimorph.SpecializationMismatch", SpecializationMismatch)
    # Sent by type, recalled by name.
    register_error("dimorph.carried", _Carried)
    register_error("dimorph.carried", _recall)  # type: ignore[arg-type]
