"""Find the files that a C++ source can include, from its text alone.

The scan needs no compiler. It ignores `#if`, so it finds every file that any compile could include.
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
# Anywhere in a line: for text that still contains its comments.
_INCLUDE_LIKE = re.compile(_DIRECTIVE % "", re.MULTILINE)
_WORDS = ("include", "import", "embed")
_SPLICE = re.compile(r"\\[ \t]*\r?\n")

# Errors that mean that a path is no file; any other error is a failure to read.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class SourceFile(NamedTuple):
    """A project file that a compile can include.

    Attributes:
        logical: its name in content keys: `<position of the include directory>:<name below it>`.
        path: its path.
        sha256: the SHA-256 of its content, 64 hex digits.
    """

    logical: str
    path: str
    sha256: str


class Content(NamedTuple):
    """The content of a file: its SHA-256 (64 hex digits) and its include directives."""

    sha256: str
    mentions: tuple[Mention, ...]


# The identity of a file, equal for every spelling of its directory: the directory's device and inode (None: there is no
# such directory), and the file's name.
FileId = tuple[tuple[int, int] | None, str]


class Files:
    """The files read by the scans of one load, each once, so that all scans see the same version of a file."""

    def __init__(self) -> None:
        self._contents: dict[FileId, Content | None] = {}
        self._directories: dict[str, tuple[int, int] | None] = {}

    def read(self, path: str) -> tuple[FileId, Content | None]:
        """Return the identity and the content of the file at a path; the content is None if there is no file.

        Raises:
            OSError: there is a file, but it cannot be read.
        """
        # Paths are strings: a store hit in a new process consists mostly of this, and Path objects took half its time.
        directory, _, name = path.rpartition("/")
        file_id = (self._directory(directory), name)
        if file_id not in self._contents:
            self._contents[file_id] = _content(path)
        return file_id, self._contents[file_id]

    def _directory(self, path: str) -> tuple[int, int] | None:
        if path not in self._directories:
            try:
                status = os.stat(path)  # noqa: PTH116 (as above)
                self._directories[path] = (status.st_dev, status.st_ino)
            except OSError:
                self._directories[path] = None
        return self._directories[path]


def _directory_of(path: str) -> str:
    """Return the directory part of a path, with the slash at its end."""
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
    """A search for every project file that a compile of some sources can include.

    Args:
        include_dirs: the include directories, in the compiler's order. A header that is in none of them belongs to the
            system and is left out.
        generated: name of a generated header -> its text; they are found before every file.
        files: the files already read by the scans of this load; default: none.
    """

    def __init__(self, include_dirs: Sequence[Path], generated: Mapping[str, str], files: Files | None = None) -> None:
        self._dirs = tuple(map(str, include_dirs))
        self._generated = generated
        self._files = files or Files()
        self._found: dict[str, SourceFile] = {}
        self._followed: set[FileId] = set()

    def scan(self, names: Sequence[str]) -> tuple[SourceFile, ...]:
        """Return the files that the sources `names` (found on the include path) can include, and the sources.

        A file that is found by several names is listed for each of them.

        Raises:
            DeclarationError: a source is missing, an include is absolute or computed by a macro, or a file has the name
                of a generated header.
            OSError: a file cannot be read.
        """
        for name in names:
            if not self._include(Mention(name), None):
                searched = ", ".join(self._dirs)
                raise DeclarationError(f"source {name!r} is not in any of: {searched}")
        for text in self._generated.values():
            self._follow(_mentions(text.encode()), None)
        for file in self._found.values():
            if posixpath.basename(file.path) in self._generated:
                raise DeclarationError(
                    f"{file.path} would be included instead of the generated header; remove or rename it"
                )
        return tuple(self._found[logical] for logical in sorted(self._found))

    def _include(self, mention: Mention, includer: SourceFile | None) -> bool:
        if mention.name.startswith("/"):
            if includer is None:
                raise DeclarationError(f"{mention.name}: expected a path relative to the kernel's root")
            raise DeclarationError(f"{includer.path}: `#include {mention.name}`: expected a path that is not absolute")
        found = False
        for logical, path in self._candidates(mention.name, includer if mention.quoted else None):
            file_id, content = self._files.read(path)
            if content is None:
                continue
            found = True
            # Recorded for every name that finds it, so that another order of include directories is another result.
            file = self._found.setdefault(logical, SourceFile(logical, path, content.sha256))
            if file_id not in self._followed:
                self._followed.add(file_id)
                self._follow(content.mentions, file)
            if not mention.every:
                return True
        return found

    def _candidates(self, name: str, includer: SourceFile | None) -> Iterator[tuple[str, str]]:
        """Yield the logical name and the path of every file that the compiler would try, in its order.

        A file that appears at an earlier path changes the scan. Paths keep their spelling: through a link, `a/../b`
        differs from `b`.
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
    """One include directive in a text.

    Attributes:
        name: the name that it includes, or the expression that computes the name.
        quoted: True for `"name"`, which is looked up beside the including file first.
        computed: True if a macro computes the name.
        every: True for `include_next`, which can include any file of that name on the include path.
    """

    name: str
    quoted: bool = False
    computed: bool = False
    every: bool = False


@lru_cache(maxsize=1024)
def _mentions(content: bytes) -> tuple[Mention, ...]:
    """Return the include directives in a text. The cache cannot be stale, because its key is the text itself.

    The text is searched twice: without its comments, as the compiler reads it; and with them, for includes anywhere in
    a line, so that nothing can hide one. The result may contain too many includes, never too few.
    """
    raw = _SPLICE.sub("", content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    found: dict[Mention, None] = {}
    # Only block comments can contain a line that starts with a directive, so only they have to be removed.
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
    """Return the lines that may contain an include. Few lines do, so searching for the words is the fastest way."""
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
