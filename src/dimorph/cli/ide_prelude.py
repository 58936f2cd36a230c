"""What stands before a file when a unit is compiled, so that an editor can show that file by itself.

A header may rely on what its includer included before it: the config header's constants, another header's types.
An editor opens it alone, so it is given those directives to read first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dimorph.plan.unit import INCLUDE, Unit
from dimorph.source.config_header import header_name, without_comments

_INCLUDE = re.compile(r'\s*#\s*include\s*(?:"(?P<quoted>[^"]+)"|<(?P<angled>[^>]+)>)')
_OPENS = re.compile(r"\s*#\s*if")
_CLOSES = re.compile(r"\s*#\s*endif\b")
_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")


def contexts(unit: Unit) -> dict[Path, str]:
    """The author's files that a unit reaches, each with the text that precedes its first inclusion.

    The text holds preprocessor directives, and of generated files every line. Declarations that an author's file
    makes between two includes are not in it. Dimorph's own core headers are left out: they stand alone.

    Returns:
        File -> text, in the order of inclusion; the text is empty where nothing precedes.
    """
    walk = _Walk(unit.include_dirs, {header_name(unit.kernel): unit.header})
    walk.follow(unit.text, None, [])
    return walk.found


class _Walk:
    def __init__(self, include_dirs: Sequence[Path], generated: Mapping[str, str]) -> None:
        self._dirs = include_dirs
        self._generated = generated
        self._followed: set[str] = set()
        self.found: dict[Path, str] = {}

    def follow(self, text: str, path: Path | None, before: list[str]) -> None:
        """Goes through a file (None: a generated text) as a compiler would that takes every branch."""
        before = list(before)
        for line in _lines(text, directives_only=path is not None):
            match = _INCLUDE.match(line)
            before.append(self._include(match, path, before) if match else line)

    def _include(self, match: re.Match[str], includer: Path | None, before: list[str]) -> str:
        """Records and follows what is included; a directive that finds the same from anywhere."""
        name = match["quoted"] or match["angled"]
        if name in self._generated:
            if name not in self._followed:
                self._followed.add(name)
                self.follow(self._generated[name], None, before)
            return match[0]
        near = (includer.parent,) if match["quoted"] and includer else ()
        for directory in (*near, *self._dirs):
            if (directory / name).is_file():
                file = (directory / name).resolve()
                if INCLUDE not in file.parents and file not in self.found:
                    self.found[file] = _closed(before)
                    self.follow(file.read_text("utf-8", "surrogateescape"), file, before)
                return f'#include "{file}"'
        return match[0]


def _lines(text: str, *, directives_only: bool) -> Iterator[str]:
    for line in without_comments(text).replace("\\\n", " ").splitlines():
        if _ONCE.match(line) or (directives_only and not line.lstrip().startswith("#")):
            continue
        yield line


def _closed(lines: Sequence[str]) -> str:
    """The lines, with every conditional that is still open closed."""
    opened = sum(bool(_OPENS.match(line)) for line in lines) - sum(bool(_CLOSES.match(line)) for line in lines)
    return "".join(f"{line}\n" for line in [*lines, *["#endif"] * opened])
