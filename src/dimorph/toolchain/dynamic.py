"""Shared objects as the dynamic loader sees them: their names, the libraries that they need, and where it looks."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

# Of the ELF format, 64 bits: the file header, a program header, an entry of the dynamic section; their tags.
_HEADER = struct.Struct("<4sBB26xQ14xHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS, _SONAME = 1, 5, 14


class Dynamic(NamedTuple):
    """The names in a dynamic section.

    Attributes:
        soname: the name by which other objects need it; empty: it has none.
        needed: the names of the libraries that it needs.
    """

    soname: str
    needed: tuple[str, ...]


def read(path: Path) -> Dynamic | None:
    """Return the names in the dynamic section of a file; None if it is no shared object of 64 bits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size or head[:6] != b"\x7fELF\2\1":
            return None
        # Libraries may be large, and the names are few.
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _names(content)


def _names(content: mmap.mmap) -> Dynamic | None:
    *_, at, length, count = _HEADER.unpack_from(content)
    try:
        segments = [_SEGMENT.unpack_from(content, at + i * length) for i in range(count)]
        tags: list[tuple[int, int]] = []
        for kind, _, offset, _, _, size, _, _ in segments:
            if kind == _DYNAMIC:
                tags = list(_ENTRY.iter_unpack(content[offset : offset + size - size % _ENTRY.size]))
        (address,) = [value for tag, value in tags if tag == _STRINGS][:1]
        ((start, base),) = [
            (offset, virtual)
            for kind, _, offset, virtual, _, size, _, _ in segments
            if kind == _LOAD and virtual <= address < virtual + size
        ]
    except (struct.error, ValueError):
        return None
    strings = start + address - base

    def text(value: int) -> str:
        return content[strings + value : content.find(b"\0", strings + value)].decode("utf-8", "surrogateescape")

    own = [text(value) for tag, value in tags if tag == _SONAME]
    return Dynamic(own[0] if own else "", tuple(text(value) for tag, value in tags if tag == _NEEDED))


def system_dirs() -> frozenset[str]:
    """Return the directories that the dynamic loader of every system searches."""
    wide = f"{os.uname().machine}-linux-gnu"
    every = (f"{top}/{name}" for top in ("/lib", "/usr/lib") for name in ("", wide))
    return frozenset(os.path.realpath(path) for path in (*every, "/lib64", "/usr/lib64"))


def is_systems(file: str, soname: str) -> bool:
    """Return True if the dynamic loader of every system finds this very library by its name."""
    path = os.path.realpath(file)
    return bool(soname) and any(os.path.realpath(f"{directory}/{soname}") == path for directory in system_dirs())
