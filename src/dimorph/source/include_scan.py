"""The files that a C++ source can include, found in its text.

The scan ignores `#if`, so it finds every file that any compile could reach, and needs no compiler.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dimorph import _lazy
from dimorph.errors import DeclarationError
from dimorph.source.cpp_text import without_comments

_DIRECTIVE = (
    r"(?:%s(?:\#|%%:)[ \t]*(?P<how>include_next|include|import|embed)\b"
    r"|\b(?<!define[ ])__has_(?:include_next|include|embed)[ \t]*\()[ \t]*"
    r'(?:"(?P<quoted>[^"\n]+)"|<(?P<angled>[^>\n]+)>|(?P<computed>[^"<\s][^\n]*))'
)
_INCLUDE = re.compile(_DIRECTIVE % r"^[ \t]*", re.MULTILINE)
# Anywhere in a line: for text whose comments were not understood.
_INCLUDE_LIKE = re.compile(_DIRECTIVE % "", re.MULTILINE)
_WORDS = ("include", "import", "embed")
_SPLICE = re.compile(r"\\[ \t]*\r?\n")


# What a path that is no file says; anything else is a failure to read.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class SourceFile(NamedTuple):
    """A project file that a compile can reach: its name in keys, where it is, and its content's SHA-256."""

    logical: str
    path: str
    sha256: str


class Content(NamedTuple):
    """What a file holds: its SHA-256, and what it includes."""

    sha256: str
    mentions: tuple[Mention, ...]


# A file, however its directory is spelled: the directory's device and inode (None: there is no such directory) and the
# file's name.
Place = tuple[tuple[int, int] | None, str]


class Files:
    """Files that scans which belong together have read, each once: all see the same of a file that is being changed."""

    def __init__(self) -> None:
        self._contents: dict[Place, Content | None] = {}
        self._directories: dict[str, tuple[int, int] | None] = {}

    def read(self, path: str) -> tuple[Place, Content | None]:
        """What is there; None: no file."""
        # Paths are text: a store hit in a new process is mostly this, and objects for them took half of its time.
        directory, _, name = path.rpartition("/")
        place = (self._directory(directory), name)
        if place not in self._contents:
            self._contents[place] = _content(path)
        return place, self._contents[place]

    def _directory(self, path: str) -> tuple[int, int] | None:
        if path not in self._directories:
            try:
                status = os.stat(path)  # noqa: PTH116 (as above)
                self._directories[path] = (status.st_dev, status.st_ino)
            except OSError:
                self._directories[path] = None
        return self._directories[path]


def _directory_of(path: str) -> str:
    """With the slash behind it."""
    return path[: path.rfind("/") + 1]


def _content(path: str) -> Content | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (see Files)
            content = file.readall()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    return Content(_lazy.hashlib.sha256(content).hexdigest(), _mentions(content))


class Scanner:
    """Finds every project file that a compile of some sources can reach.

    Args:
        include_dirs: searched in order, as the compiler does. A header found in none of them is the system's.
        generated: texts of generated headers, by name; they come first.
        files: those that scans together with this one have read.
    """

    def __init__(self, include_dirs: Sequence[Path], generated: Mapping[str, str], files: Files | None = None) -> None:
        self._dirs = tuple(map(str, include_dirs))
        self._generated = generated
        self._files = files or Files()
        self._found: dict[str, SourceFile] = {}
        self._followed: set[Place] = set()

    def scan(self, names: Sequence[str]) -> tuple[SourceFile, ...]:
        """The files reachable from `names` (found on the include path), once for each name they are found by.

        Raises:
            DeclarationError: a source is not there, or a project file includes a name that a macro computes.
        """
        for name in names:
            if not self._include(Mention(name), None):
                searched = ", ".join(self._dirs)
                raise DeclarationError(f"source {name!r} is not in any of: {searched}")
        for text in self._generated.values():
            self._follow(_mentions(text.encode()), None)
        for file in self._found.values():
            if posixpath.basename(file.path) in self._generated:
                raise DeclarationError(f"{file.path} would take the place of the generated header; remove or rename it")
        return tuple(self._found[logical] for logical in sorted(self._found))

    def _include(self, mention: Mention, includer: SourceFile | None) -> bool:
        if mention.name.startswith("/"):
            if includer is None:
                raise DeclarationError(f"{mention.name}: expected a path relative to the kernel's root")
            raise DeclarationError(f"{includer.path}: `#include {mention.name}`: expected a path that is not absolute")
        found = False
        for logical, path in self._places(mention.name, includer if mention.quoted else None):
            place, content = self._files.read(path)
            if content is None:
                continue
            found = True
            # What a name finds counts each time, so that another order of directories is another scan.
            file = self._found.setdefault(logical, SourceFile(logical, path, content.sha256))
            if place not in self._followed:
                self._followed.add(place)
                self._follow(content.mentions, file)
            if not mention.every:
                return True
        return found

    def _places(self, name: str, includer: SourceFile | None) -> Iterator[tuple[str, str]]:
        """Where the compiler would look, in its order. A file that appears at an earlier place changes the scan.

        Names are as spelled: through a link, `a/../b` is not `b`.
        """
        if includer is not None:
            root, _, inner = includer.logical.partition(":")
            yield f"{root}:{_directory_of(inner)}{name}", f"{_directory_of(includer.path)}{name}"
        for index, directory in enumerate(self._dirs):
            yield f"{index}:{name}", f"{directory}/{name}"

    def _follow(self, mentions: Sequence[Mention], file: SourceFile | None) -> None:
        for mention in mentions:
            if mention.computed:
                raise DeclarationError(
                    f"{file.path if file else 'the generated header'}: `#include {mention.name}` is computed by a "
                    "macro; keys need the names of all headers, so write the file's name"
                )
            if file is None and mention.name in self._generated:
                continue
            self._include(mention, file)


class Mention(NamedTuple):
    """One include in a text: of a name, or of what a macro computes. `every`: of all files of that name."""

    name: str
    quoted: bool = False
    computed: bool = False
    every: bool = False


@lru_cache(maxsize=1024)
def _mentions(content: bytes) -> tuple[Mention, ...]:
    """The includes in a text. Cached by the text itself, so it cannot be stale.

    The text is read twice: as the compiler does, and with its comments and whatever precedes an include in a line,
    so that nothing can hide one. That finds too many rather than too few.
    """
    raw = _SPLICE.sub("", content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    found: dict[Mention, None] = {}
    # Without a block comment, what stands before an include in its line is all that a comment can hide.
    telling = _telling_lines(raw)
    plain = _telling_lines(without_comments(raw)) if "/*" in raw else telling
    for pattern, lines in ((_INCLUDE, plain), (_INCLUDE_LIKE, telling)):
        for match in pattern.finditer(lines):
            if name := match["quoted"] or match["angled"]:
                found[Mention(name, bool(match["quoted"]), every=match["how"] == "include_next")] = None
            elif pattern is _INCLUDE:
                found[Mention(match["computed"].strip(), computed=True)] = None
    return tuple(found)


def _telling_lines(text: str) -> str:
    """The lines that may include something. Few do, so words are looked for and not lines."""
    words = [word for word in _WORDS if word in text]
    if not words:
        return ""
    text = "\n".join([*text.splitlines(), ""])
    found = {}
    for word in words:
        at = text.find(word)
        while at >= 0:
            start, end = text.rfind("\n", 0, at) + 1, text.index("\n", at)
            found[start] = text[start:end]
            at = text.find(word, end)
    return "\n".join(line for _, line in sorted(found.items()))
