"""A parser of compilers' output that keeps what led to an error: instantiations, expansions of macros, includes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from dimorph.toolchain.diagnostics import Diagnostic, Place, diagnostic

# Lines that say how a compiler came to the place of a message: in GCC's words before it, in clang's as notes after it.
_REQUIRED = re.compile(r"^(?P<file>/[^:]+):(?P<line>\d+):(?:\d+:)?\s+required (?:from|by) ")
_INCLUDED = re.compile(r"^(?:In file included|\s+) from (?P<file>/[^:]+):(?P<line>\d+)")
_EXPANDED = re.compile(r"in expansion of macro|expanded from macro|requested here")


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
        one = diagnostic(text)
        if one and one.severity != "note":
            if lines:
                yield lines
            lines, before = [*before, text], []
        # A linker says what is wrong before its driver's "error", so what stands before the first message is its too.
        elif not lines or _REQUIRED.match(text) or _INCLUDED.match(text) or ": In " in text:
            before.append(text)
        else:
            # What came before a note belongs to the message that the note explains.
            lines += [*before, text]
            before = []
    if lines:
        yield lines


def _finding(lines: list[str]) -> Finding:
    head, *notes = (one for text in lines if (one := diagnostic(text)))
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
