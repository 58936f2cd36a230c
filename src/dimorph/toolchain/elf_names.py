"""Change the names of symbols that a shared object takes from others."""

from __future__ import annotations

import struct

_DYNSYM = 11
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size


def rename_undefined(content: bytes, prefix: bytes, replacement: bytes) -> bytes:
    """Return a 64-bit little-endian shared object whose undefined symbols have another prefix of the same length.

    Undefined symbols are in no hash table, so only the text of their names changes.

    Raises:
        ValueError: the lengths differ, or the content is no such object.
    """
    if len(prefix) != len(replacement):
        raise ValueError(f"expected a prefix of {len(prefix)} letters, got {replacement!r}")
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("expected a 64-bit little-endian shared object")
    (offset,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    sections = [_SECTION.unpack_from(content, offset + i * size) for i in range(count)]
    changed = bytearray(content)
    for section in sections:
        if section[1] != _DYNSYM:
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], _SYMBOL.size):
            name, _, _, defined_in, _, _ = _SYMBOL.unpack_from(content, at)
            start = strings + name
            if defined_in == 0 and content[start : start + len(prefix)] == prefix:
                changed[start : start + len(prefix)] = replacement
    return bytes(changed)
