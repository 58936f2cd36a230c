"""The class `Handle`: a C++ object that a function of a kernel made and others use."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, NoReturn

from dimorph.runtime.tvm import tvm_ffi


class _CaseText(ctypes.Structure):
    """The struct detail::CaseText of handle.h."""

    _fields_ = (("kernel", ctypes.c_char_p), ("values", ctypes.c_char_p))


class _Type(ctypes.Structure):
    """The struct detail::HandleType of handle.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("made_by", ctypes.CFUNCTYPE(ctypes.POINTER(_CaseText))),
        ("destroy", ctypes.c_void_p),
    )


class _Object(ctypes.Structure):
    """The struct detail::HandleObject of handle.h."""

    _fields_ = (
        ("header", ctypes.c_uint64 * 3),
        ("type", ctypes.POINTER(_Type)),
        ("close", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("value", ctypes.c_void_p),
        ("place", ctypes.c_size_t),
        ("state", ctypes.c_uint32),
    )


_CLOSED = 1 << 31


@lru_cache(maxsize=1)
def handle_class() -> type[Any]:
    """Return the class `dimorph.Handle`, made at the first call, because it is a type of tvm-ffi."""
    package = tvm_ffi()
    name = b"dimorph.Handle"

    class ByteArray(ctypes.Structure):
        _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))

    # A type of dynamic index, of depth 1, with no room for children, under the type of all objects.
    package.LIB.TVMFFITypeGetOrAllocIndex(ctypes.byref(ByteArray(name, len(name))), -1, 1, 0, 1, 64)

    class Handle(package.Object):  # type: ignore[misc, name-defined]
        """A C++ object that a function of a kernel has made and other functions of that kernel use.

        The object is destroyed with the last reference to the handle, in whichever thread that goes, or by `close`. It
        belongs to the case that made it: a handle is an argument for functions of modules that use the very same case,
        and of no others. It cannot be copied, nor sent to another process; after a fork, both processes have one.
        """

        __slots__ = ()

        def close(self) -> None:
            """Destroy the object now, or at the end of the calls that use it; later calls with it raise ValueError."""
            _object(self).close(self.__chandle__())

        @property
        def closed(self) -> bool:
            """True after `close`."""
            return bool(_object(self).state & _CLOSED)

        def __repr__(self) -> str:
            kind = _object(self).type.contents
            made_by = kind.made_by().contents
            kernel, values, name = (text.decode() for text in (made_by.kernel, made_by.values, kind.name))
            return f"<dimorph.Handle {kernel}({values}): {name}{', closed' if self.closed else ''}>"

        def __reduce_ex__(self, protocol: object) -> NoReturn:
            raise TypeError(
                f"cannot pickle or copy {self!r}: its C++ object belongs to this process; "
                "send what it was made of, and make it there"
            )

    Handle.__module__, Handle.__qualname__ = "dimorph", "Handle"
    return package.register_object(name.decode())(Handle)  # type: ignore[no-any-return]


def _object(handle: Any) -> _Object:
    return _Object.from_address(handle.__chandle__())
