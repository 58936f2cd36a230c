"""The variables that an author's source leaves in a shared object, read from its symbol table."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

# Of the ELF format, 64 bits: the file header, a section header, a symbol; types of sections and symbols.
_HEADER = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB = 2
_OBJECT, _FILE, _TLS = 1, 4, 6
# Sections of variables. Constants with relocations, such as tables of functions, lie in .data.rel.ro.
_VARIABLES = (".data", ".bss", ".tdata", ".tbss")
# Names of Dimorph's headers, the C++ library and the linker.
_OTHERS = re.compile(r"_ZZ?N?K?(7dimorph|St|S[absio]|\d+__)|_ZGV|DW\.ref|__|_[A-Z]+_$")
_PART = re.compile(r"(\d+)")


def variables(path: Path, source: str) -> list[str]:
    """Return the names of the variables of a translation unit, in order, constants left out.

    Of an object without a symbol table, as zig links it, none is known.

    Args:
        path: the shared object.
        source: the file name of the translation unit.
    """
    content = path.read_bytes()
    at, length, count, names_at = _HEADER.unpack_from(content)
    sections = [_SECTION.unpack_from(content, at + i * length) for i in range(count)]
    titles = sections[names_at][4]
    held = {i for i, section in enumerate(sections) if _text(content, titles + section[0]).startswith(_VARIABLES)}
    held -= {i for i in held if _text(content, titles + sections[i][0]).startswith(".data.rel.ro")}
    found: list[str] = []
    for _, kind, _, _, start, size, link, *_ in sections:
        if kind != _SYMTAB:
            continue
        file = ""
        for name, info, _, section, _, _ in _SYMBOL.iter_unpack(content[start : start + size]):
            text = _text(content, sections[link][4] + name)
            if info & 15 == _FILE:
                file = text
            # Behind those of all files stand the ones that are not local to a file.
            elif info & 15 in (_OBJECT, _TLS) and section in held and file in (source, "") and not _OTHERS.match(text):
                found.append(_plain(text))
    return list(dict.fromkeys(found))


def _text(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at)].decode("utf-8", "replace")


def _plain(symbol: str) -> str:
    """Return the last name in a mangled symbol, such as `count` in `_ZZ4nextvE5count`."""
    parts = list(_parts(symbol)) if symbol.startswith("_Z") else []
    return parts[-1] if parts else symbol.partition(".")[0]


def _parts(symbol: str) -> Iterator[str]:
    at = 0
    while found := _PART.search(symbol, at):
        at = found.end() + int(found[1])
        if part := symbol[found.end() : at]:
            yield part
