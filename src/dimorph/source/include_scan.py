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
from dimorph.source.cpp_text import without_comments, without_line_comments

# Characters that the compiler takes for a blank inside a line.
_B = r"[ \t\f\v\r\0]*"
_NAME = r'(?:"(?P<quoted>[^"\n]+)"|<(?P<angled>[^>\n]+)>'
_COMPUTED = r'(?P<computed>[^"<\s\0][^\n]*)'
_HASH = r"(?:\#|%:|\?\?=)"
_WORD = rf"{_B}(?P<how>include_next|include|import|embed)\b{_B}"
_INCLUDE = re.compile(rf"^{_B}{_HASH}{_WORD}(?:{_NAME})|{_COMPUTED})", re.MULTILINE)
# Anywhere in a line: for text that still contains its comments.
_INCLUDE_LIKE = re.compile(rf"{_HASH}{_WORD}{_NAME})")
_HAS = r"\b__has_(?:include_next|include|embed)\b"
_PROBE = re.compile(rf"{_HAS}{_B}\(?{_B}{_NAME})")
_CONDITION = re.compile(rf"^{_B}{_HASH}{_B}(?:el)?if\b[^\n]*", re.MULTILINE)
# A condition holds no strings but the names of headers, whatever the macro is called that asks for them; and no angle
# bracket after a parenthesis but theirs.
_PROBE_BY_ANY = re.compile(rf"(?:\({_B}(?=<)|(?=\")){_NAME})")
# Names in conditions and in the bodies of macros, by which other macros may ask. A text without a dot or a slash is no
# name of a header.
_ASKING = re.compile(rf"\#{_B}(?:(?:el)?if|define)\b[^\n]*")
_ASKED = re.compile(r'(?<=[(\s])(?:"(?P<quoted>[^\s"./]*[./][^\s"]*)"|<(?P<angled>[^\s<>"]+)>)')
_PROBE_COMPUTED = re.compile(rf"(?<!defined)(?<!defined[ (]){_HAS}{_B}\({_B}{_COMPUTED}")
_DEFINE = re.compile(rf"^{_B}{_HASH}{_B}define{_B}(?P<macro>\w+)(?P<parameters>\([^)\n]*\))?([^\n]*)", re.MULTILINE)
_CALL = re.compile(rf"\b([A-Za-z_]\w*){_B}\({_B}(?:{_NAME})|(?P<word>[A-Za-z_]\w*))")
# Directives of an assembler that read a file, in a string.
_ASSEMBLED = re.compile(r'"(?:(?:[^"\\\n]|\\.)*(?:[\s;:]|\\[nt]))?(\.(?:incbin|include))(?![\w.])')
_TELLING = ("#", "include", "embed")
_SPLICE = re.compile(r"\\[ \t\f\v\0]*\r?\n")
_TRIGRAPH_SPLICE = re.compile(r"\?\?/[ \t\f\v\0]*\r?\n")

# Errors that mean that a path is no file; any other error is a failure to read.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)

# The directory of Dimorph's own headers and sources, without links, as roots are. The files in it may be links.
OWN = f"{Path(__file__).parent.parent.resolve()}/"


class SourceFile(NamedTuple):
    """A project file that a compile can include.

    Attributes:
        logical: its name in content keys: `<position of the include directory>:<name below it>`.
        path: its path.
        sha256: the SHA-256 of its content, 64 hex digits; of a header of Dimorph, that of its content without comments,
            because packaged artifacts are found by it.
    """

    logical: str
    path: str
    sha256: str

    @property
    def is_own(self) -> bool:
        return self.path.startswith(OWN)


class Content(NamedTuple):
    """The content of a file: its SHA-256 as in `SourceFile`, and its include directives."""

    sha256: str
    mentions: Mentions


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

    @staticmethod
    def checksum(content: bytes) -> str:
        """Return the SHA-256 of a file's content, 64 hex digits."""
        return _lazy.hashlib.sha256(content).hexdigest()

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
    checksum = _without_comments(content) if path.startswith(OWN) else Files.checksum(content)
    return Content(checksum, mentions(content))


@lru_cache(maxsize=256)  # each unit of a build reads a dozen headers of Dimorph
def _without_comments(content: bytes) -> str:
    return Files.checksum(without_line_comments(content))


class Scanner:
    """A search for every project file that a compile of some sources can include.

    Args:
        include_dirs: in the compiler's order. A header that is in none of them is the system's, and left out.
        generated: name of a generated header -> its text; they are found before every file.
        files: the files already read by the scans of this load; default: none.
    """

    def __init__(self, include_dirs: Sequence[Path], generated: Mapping[str, str], files: Files | None = None) -> None:
        self._dirs = tuple(map(str, include_dirs))
        self._generated = generated
        self._files = files or Files()
        self._found: dict[str, SourceFile] = {}
        self._followed: set[FileId] = set()
        self._wrappers: set[str] = set()
        self._calls: list[tuple[SourceFile | None, Sequence[tuple[str, Mention]]]] = []

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
            self._follow(mentions(text.encode()), None)
        if self._wrappers:
            self._follow_wrappers()
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

    def _follow(self, content: Mentions, file: SourceFile | None) -> None:
        for mention in content.found:
            self._follow_one(mention, file)
        self._wrappers |= content.wrappers
        if content.calls:
            self._calls.append((file, content.calls))

    def _follow_one(self, mention: Mention, file: SourceFile | None) -> None:
        if mention.computed:
            where = file.path if file else "the generated header"
            if mention.name.startswith("."):
                raise DeclarationError(
                    f"{where}: `{mention.name}` makes the assembler read a file, whose content is part of no key; "
                    "put the bytes into a header"
                )
            raise DeclarationError(
                f"{where}: `#include {mention.name}` is computed by a "
                "macro; keys need the names of all headers, so write the file's name"
            )
        if file is not None or mention.name not in self._generated:
            self._include(mention, file)

    def _follow_wrappers(self) -> None:
        """Follow the calls of macros that stand for `__has_include`, in whichever file they are defined."""
        done = (0, 0)
        while done != (len(self._calls), len(self._wrappers)):
            # A header that is found may define another such macro, so all calls are looked at again.
            done = (len(self._calls), len(self._wrappers))
            for file, calls in list(self._calls):
                for macro, mention in calls:
                    if macro in self._wrappers:
                        self._follow_one(mention, file)


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


class Mentions(NamedTuple):
    """The headers that a text names.

    Attributes:
        found: its include directives and questions for headers.
        wrappers: the macros that stand for `__has_include`.
        calls: macros that it calls with a name or a word: (macro, what it names).
    """

    found: tuple[Mention, ...]
    wrappers: frozenset[str] = frozenset()
    calls: tuple[tuple[str, Mention], ...] = ()


@lru_cache(maxsize=1024)
def mentions(content: bytes) -> Mentions:
    """Return the headers that a text names. The cache cannot be stale, because its key is the text itself.

    The text is searched twice: without its comments, as the compiler reads it; and with them, for includes anywhere in
    a line, so that nothing can hide one. The result may contain too many includes, never too few.
    """
    raw = _SPLICE.sub("", content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    if "?" in raw and "??/" in raw:
        raw = _TRIGRAPH_SPLICE.sub("", raw)
    found: dict[Mention, None] = {}
    # Only block comments can contain a line that starts with a directive, so only they have to be removed.
    telling = _telling_lines(raw)
    plain = _telling_lines(without_comments(raw)) if "/*" in raw else telling
    for match in _INCLUDE.finditer(plain):
        found[_mention(match)] = None
    for match in _INCLUDE_LIKE.finditer(telling):
        found[_mention(match)] = None
    if "__has_" in telling:
        for match in _PROBE.finditer(telling):
            found[_mention(match)] = None
    wrappers: set[str] = set()
    calls: dict[tuple[str, Mention], None] = {}
    for text in dict.fromkeys((plain, telling)):
        # Few directives but includes name anything, and the patterns for them are slow.
        lines = [line for line in text.split("\n") if ("if" in line or "define" in line) and _may_ask(line)]
        if lines:
            _conditions("\n".join(lines), found, calls, computed=text is plain)
            _definitions("\n".join(lines), found, wrappers, calls, computed=text is plain)
    if (".incbin" in raw or ".include" in raw) and "asm" in raw and (reads := _ASSEMBLED.search(raw)):
        found[Mention(reads[1], computed=True)] = None
    return Mentions(tuple(found), frozenset(wrappers), tuple(calls))


def named_anywhere(content: bytes) -> tuple[Mention, ...]:
    """Return the headers that a text names, in comments too; faster than `mentions`, and without computed names."""
    text = _SPLICE.sub("", content.decode("utf-8", "surrogateescape"))
    telling = _lines_with(("include", "embed", "_INCLUDE"), text)
    found: dict[Mention, None] = {}
    for pattern in (_INCLUDE_LIKE, _PROBE, _PROBE_BY_ANY):
        for match in pattern.finditer(telling):
            found[_mention(match)] = None
    for line in _ASKING.findall(text):
        # A macro of any header may stand for `__has_include`, and another for the name.
        for match in _ASKED.finditer(line) if "<" in line or '"' in line else ():
            found[_mention(match)] = None
    return tuple(found)


def _may_ask(line: str) -> bool:
    return '"' in line or "<" in line or "(" in line or "__has_" in line


def _conditions(
    text: str, found: dict[Mention, None], calls: dict[tuple[str, Mention], None], *, computed: bool
) -> None:
    """Add the headers that conditions ask for, and the macros that they call; with `computed`, also computed names."""
    for condition in _CONDITION.finditer(text):
        line = condition[0]
        if '"' in line or "<" in line:
            for match in _PROBE_BY_ANY.finditer(line):
                found[_mention(match)] = None
        if computed and (asked := _PROBE_COMPUTED.search(line)):
            found[_mention(asked)] = None
        if "(" in line:
            for match in _CALL.finditer(line):
                if match[1] != "defined" and match["word"]:
                    calls[match[1], Mention(f"{match[1]}({match['word']})", computed=True)] = None


def _definitions(
    text: str,
    found: dict[Mention, None],
    wrappers: set[str],
    calls: dict[tuple[str, Mention], None],
    *,
    computed: bool,
) -> None:
    """Add the macros that stand for `__has_include`, and what the bodies of macros call; `computed` as above."""
    for match in _DEFINE.finditer(text):
        body = match[3]
        if "__has_" in body and re.search(_HAS, body):
            wrappers.add(match["macro"])
            asked = _PROBE_COMPUTED.search(body) if computed else None
            word = re.match(r"\w+", asked["computed"]) if asked else None
            if asked and (word is None or word[0] not in re.findall(r"\w+", match["parameters"] or "")):
                found[_mention(asked)] = None
        for call in _CALL.finditer(body) if "(" in body and ('"' in body or "<" in body) else ():
            if not call["word"]:
                calls[call[1], _mention(call)] = None


def _mention(match: re.Match[str]) -> Mention:
    known = match.re.groupindex
    if "angled" in known and (name := match["quoted"] or match["angled"]):
        return Mention(name, bool(match["quoted"]), False, "how" in known and match["how"] == "include_next")
    return Mention(match["computed"].strip(), computed=True)


def _telling_lines(text: str) -> str:
    """Return the lines that may name a header: few lines do, and the patterns for them are slow."""
    # Searching for one character is many times as fast as searching for two.
    rare = [word for word in ("%:", "??=") if word[0] in text]
    return _lines_with((*_TELLING, *rare), text)


def _lines_with(words: Sequence[str], text: str) -> str:
    found = {}
    for word in words:
        at = text.find(word)
        if at >= 0 and not text.endswith("\n"):
            text += "\n"
        while at >= 0:
            end = text.index("\n", at)
            start = text.rfind("\n", 0, at) + 1
            found[start] = text[start:end]
            at = text.find(word, end)
    return "\n".join([line for _, line in sorted(found.items())])
