"""Parsers of compilers' output: messages with their file and line, what led to them, and make rules of dependencies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_SEVERITIES = "fatal error|catastrophic error|internal compiler error|error|warning|note|sorry, unimplemented"
# A message about the command line has the program's name instead of a file: "g++: error: unrecognized command-line
# option"; zig's has neither. CUDA's compilers put the line in parentheses and a number after the severity; their
# assembler pads its name.
_HEAD = re.compile(
    r"^(?:(?P<file>[^\s:][^:]*?)(?::(?P<line>\d+):(?:(?P<column>\d+):)?|\((?P<cuda_line>\d+)\):) "
    r"|(?P<program>[^\s:]+): |ptxas |)"
    rf"(?P<severity>{_SEVERITIES})(?: #[\w-]+)?\s*: (?P<message>.*)$"
)
# Lines that say how a compiler came to the place of a message: in GCC's words before it, in clang's as notes after it.
_REQUIRED = re.compile(r"^(?P<file>/[^:]+):(?P<line>\d+):(?:\d+:)?\s+required (?:from|by) ")
_INCLUDED = re.compile(r"^(?:In file included|\s+) from (?P<file>/[^:]+):(?P<line>\d+)")
_EXPANDED = re.compile(r"in expansion of macro|expanded from macro|requested here")


@dataclass(frozen=True)
class Diagnostic:
    """One message of a compiler.

    Attributes:
        file: the path as the compiler printed it; for a message about no file, the program's name or empty.
        line: the line, from 1; 0 for a message about no file.
        column: the column, from 1; 0 if the compiler printed none.
        severity: `error`, `warning`, `note`, `fatal error`, ...
        message: the first line of the text.
    """

    file: str
    line: int
    column: int
    severity: str
    message: str


def parse_diagnostics(output: str) -> list[Diagnostic]:
    """Return the messages in the output of GCC, clang, zig, NVRTC or nvcc, in order.

    Quoted source lines and include chains are left out. Equal messages are returned once: compilers repeat a mistake in
    a template for each use of it.
    """
    return list(dict.fromkeys(one for text in output.splitlines() if (one := _diagnostic(text))))


class Place(NamedTuple):
    """A line of a file, from 1."""

    file: str
    line: int


class Finding(NamedTuple):
    """An error or a warning with what surrounds it in the output.

    Attributes:
        head: the message.
        notes: the notes after it.
        places: its place, then the places that led to it: instantiations and expansions, then includes.
        text: its part of the output.
    """

    head: Diagnostic
    notes: tuple[Diagnostic, ...]
    places: tuple[Place, ...]
    text: str


def findings(output: str) -> list[Finding]:
    """Return the errors and warnings in a compiler's output, each with what surrounds it, in order."""
    return [_finding(lines) for lines in _blocks(output)]


def _blocks(output: str) -> Iterator[list[str]]:
    """Yield the lines of each error or warning: GCC's lines before the message, the message, and its notes."""
    lines: list[str] = []
    before: list[str] = []
    for text in output.splitlines():
        one = _diagnostic(text)
        if one and one.severity != "note":
            if lines:
                yield lines
            lines, before = [*before, text], []
        elif _REQUIRED.match(text) or _INCLUDED.match(text) or ": In " in text:
            before.append(text)
        else:
            # What came before a note belongs to the message that the note explains.
            lines += [*before, text]
            before = []
    if any(map(_diagnostic, lines)):
        yield lines


def _finding(lines: list[str]) -> Finding:
    head, *notes = (one for text in lines if (one := _diagnostic(text)))
    required = [match for text in lines if (match := _REQUIRED.match(text))]
    # Of nested macros the outermost is named last.
    expanded = [Place(note.file, note.line) for note in reversed(notes) if _EXPANDED.search(note.message)]
    included = [match for text in lines if (match := _INCLUDED.match(text))]
    places = [
        Place(head.file, head.line),
        *(Place(match["file"], int(match["line"])) for match in required),
        *expanded,
        *(Place(match["file"], int(match["line"])) for match in included),
    ]
    return Finding(head, tuple(notes), tuple(dict.fromkeys(places)), "\n".join(lines))


def _diagnostic(text: str) -> Diagnostic | None:
    match = _HEAD.match(text)
    return match and Diagnostic(
        file=match["file"] or match["program"] or "",
        line=int(match["line"] or match["cuda_line"] or 0),
        column=int(match["column"] or 0),
        severity=match["severity"],
        message=match["message"],
    )


def parse_make_rule(text: str) -> list[Path]:
    """Return the prerequisites of one make rule as `-M` prints it: the source first, then every file it includes."""
    _, _, names = text.replace("\\\n", " ").partition(": ")
    # Make's escapes: a backslash before a blank or a hash sign, a doubled dollar. Only these blanks end a name.
    pieces = re.findall(r"(?:\\[ \t#]|[^ \t\n])+", names)
    return [Path(re.sub(r"\\([ \t#])", r"\1", piece).replace("$$", "$")) for piece in pieces]
