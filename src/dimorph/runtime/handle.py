"""The class `Handle`: a C++ object that a function of a kernel made and others use."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, NoReturn

from dimorph.runtime.tvm import tvm_ffi

# Offsets in bytes in the struct detail::HandleObject of handle.h.
_CLOSE = 24
_DESCRIBE = 32
_STATE = 40
_CLOSED = 1 << 31


class Handle:
    """A C++ object that a function of a kernel has made and other functions of that kernel use.

    The object is destroyed with the last reference to the handle, in whichever thread that goes, or by `close`. It
    belongs to the case that made it: a handle is an argument for functions of modules that use the very same case, and
    of no others. It cannot be copied, nor sent to another process; after a fork, both processes have one.
    """

    __slots__ = ()

    # Handles are made by tvm-ffi, which does not call it.
    def __init__(self) -> None:
        raise TypeError("dimorph.Handle: functions of kernels make handles; there is no other way")

    def close(self) -> None:
        """Destroy the object now, or at the end of the calls that use it; later calls with it raise ValueError."""
        _call(self, _CLOSE)

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return bool(ctypes.c_uint32.from_address(_address(self) + _STATE).value & _CLOSED)

    def __repr__(self) -> str:
        text = ctypes.create_string_buffer(224)
        _call(self, _DESCRIBE, text, ctypes.c_size_t(len(text)))
        return f"<dimorph.Handle {text.value.decode()}{', closed' if self.closed else ''}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"cannot pickle or copy {self!r}: its C++ object belongs to this process; "
            "send what it was made of, and make it there"
        )


@lru_cache(maxsize=1)
def register() -> None:
    """Let tvm-ffi know the type of handles, so that Python gets each as a `Handle`."""
    package, name = tvm_ffi(), b"dimorph.Handle"
    text = ctypes.c_char_p(name)
    # The struct TVMFFIByteArray: a pointer and a size. The type gets a dynamic number, at depth 1, without room for
    # children, under the type of all objects.
    key = (ctypes.c_size_t * 2)(ctypes.cast(text, ctypes.c_void_p).value or 0, len(name))
    package.LIB.TVMFFITypeGetOrAllocIndex(key, -1, 1, 0, 1, 64)
    made = type(package.Object)("Handle", (Handle, package.Object), {"__module__": "dimorph"})
    package.register_object(name.decode(), init=False)(made)


def _address(handle: Any) -> int:
    return int(handle.__chandle__())


def _call(handle: Handle, offset: int, *arguments: Any) -> None:
    """Call the C function that the C++ object of a handle has at an offset."""
    function = ctypes.c_size_t.from_address(_address(handle) + offset).value
    ctypes.CFUNCTYPE(None)(function)(ctypes.c_void_p(_address(handle)), *arguments)
