"""What a C++ source mentions, found in its text: included files and a function's parameter names.

The scan ignores `#if`, so it finds every file that any compile could reach, and needs no compiler.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dimorph.errors import DeclarationError
from dimorph.header import without_comments

_INCLUDE = re.compile(
    r"(?:^[ \t]*(?:#|%:)[ \t]*(?:include|include_next|import|embed)|\b__has_(?:include|include_next|embed)[ \t]*\()[ \t]*"
    r'(?:"(?P<quoted>[^"\n]+)"|<(?P<angled>[^>\n]+)>|(?P<computed>[^"<\s][^\n]*))',
    re.MULTILINE,
)


@dataclass(frozen=True)
class SourceFile:
    """A project file that a compile can reach: its name in keys, where it is, and its content's SHA-256."""

    logical: str
    path: Path
    sha256: str


class Scanner:
    """Reads every project file that a compile of some sources can reach.

    Args:
        include_dirs: searched in order, as the compiler does. A header found in none of them is the system's.
        generated: texts of generated headers, by name; they come first.
    """

    def __init__(self, include_dirs: Sequence[Path], generated: Mapping[str, str]) -> None:
        self._dirs = tuple(include_dirs)
        self._generated = generated
        self._found: dict[str, SourceFile] = {}

    def scan(self, names: Sequence[str]) -> tuple[SourceFile, ...]:
        """The files reachable from `names` (found on the include path), each once, in the order of their names.

        Raises:
            DeclarationError: a source is not there, or a project file includes a name that a macro computes.
        """
        for name in names:
            if not self._include(name, None):
                searched = ", ".join(map(str, self._dirs))
                raise DeclarationError(f"source {name!r} is not in any of: {searched}")
        for text in self._generated.values():
            self._follow(text, None, "the generated header")
        return tuple(self._found[logical] for logical in sorted(self._found))

    def _include(self, name: str, includer: SourceFile | None) -> bool:
        for logical, path in self._places(name, includer):
            if logical in self._found:
                return True
            try:
                content = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            file = SourceFile(logical, path, hashlib.sha256(content).hexdigest())
            self._found[logical] = file
            self._follow_found(content, file)
            return True
        return False

    def _places(self, name: str, includer: SourceFile | None) -> Iterator[tuple[str, Path]]:
        """Where the compiler would look, in its order. A file that appears at an earlier place changes the scan."""
        if includer is not None:
            root, _, inner = includer.logical.partition(":")
            yield f"{root}:{_join(posixpath.dirname(inner), name)}", includer.path.parent / name
        for index, directory in enumerate(self._dirs):
            yield f"{index}:{_join('', name)}", directory / name

    def _follow_found(self, content: bytes, file: SourceFile) -> None:
        for quoted, included, computed in _mentions(content):
            if computed:
                raise DeclarationError(
                    f"{file.path}: `#include {included}` is computed by a macro; keys need the names of all headers, "
                    "so write the file's name"
                )
            self._include(included, file if quoted else None)

    def _follow(self, text: str, file: SourceFile | None, where: str) -> None:
        for _, included, computed in _mentions(text.encode()):
            if computed:
                raise DeclarationError(f"{where}: `#include {included}` is computed by a macro")
            if included not in self._generated:
                self._include(included, file)


def _join(directory: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(directory, name))


@lru_cache(maxsize=1024)
def _mentions(content: bytes) -> tuple[tuple[bool, str, bool], ...]:
    """(quoted, name, computed) of each include in a text. Cached by the text itself, so it cannot be stale.

    The text is read with and without its comments: whatever hides an include from one reading shows in the other.
    """
    raw = content.decode("utf-8", "surrogateescape")
    stripped = without_comments(raw)
    found: dict[tuple[bool, str, bool], None] = {}
    for text in (stripped, raw):
        for match in _INCLUDE.finditer(text):
            if name := match["quoted"] or match["angled"]:
                found[bool(match["quoted"]), name, False] = None
            elif text is stripped:
                found[False, match["computed"].strip(), True] = None
    return tuple(found)


def parameter_list(text: str, function: str) -> str | None:
    """The names of a function's parameters as its definition in `text` spells them, comma separated; None: not found.

    For messages alone, so a definition that it cannot read costs a name in a message and nothing else.
    """
    match = re.search(
        rf"\b{function}\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*(?:noexcept\s*)?\{{", without_comments(text)
    )
    if match is None:
        return None
    names = []
    for part in _split(match[1]):
        found = re.search(r"([A-Za-z_]\w*)\s*$", part.partition("=")[0])
        if found is None or " " not in part.strip():
            return None
        names.append(found[1])
    return ",".join(names)


def _split(parameters: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, letter in enumerate(parameters):
        depth += (letter in "<(") - (letter in ">)")
        if letter == "," and depth == 0:
            yield parameters[start:at]
            start = at + 1
    if parameters[start:].strip():
        yield parameters[start:]
