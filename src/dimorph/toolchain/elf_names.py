"""Names of symbols that a shared object takes from others."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dimorph.errors import LoadError

_DYNSYM = 11
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size


def undefined(content: bytes, prefix: bytes) -> set[str]:
    """Return the names with a prefix that a 64-bit little-endian shared object does not define.

    Raises:
        LoadError: the content is no such object.
    """
    return {content[at : content.index(b"\0", at)].decode() for at in _places(content, prefix)}


def rename_undefined(content: bytes, prefix: bytes, replacement: bytes) -> bytes:
    """Return the same object with these names under another prefix of the same length.

    Hash tables find defined symbols only, so nothing but the text of the names changes.

    Raises:
        LoadError: the content is no such object.
    """
    assert len(prefix) == len(replacement), replacement
    changed = bytearray(content)
    for at in _places(content, prefix):
        changed[at : at + len(prefix)] = replacement
    return bytes(changed)


def _places(content: bytes, prefix: bytes) -> Iterator[int]:
    """Yield where the names of undefined symbols with a prefix stand."""
    if content[:6] != b"\x7fELF\x02\x01":
        raise LoadError(f"expected a 64-bit little-endian shared object, got {content[:6]!r}")
    (offset,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    sections = [_SECTION.unpack_from(content, offset + i * size) for i in range(count)]
    for section in sections:
        if section[1] != _DYNSYM:
            continue
        names = sections[section[6]][4]
        for symbol in range(section[4], section[4] + section[5], _SYMBOL.size):
            name, _, _, defined_in, _, _ = _SYMBOL.unpack_from(content, symbol)
            if defined_in == 0 and content.startswith(prefix, names + name):
                yield names + name
