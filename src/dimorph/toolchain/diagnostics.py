"""Parsers of compilers' output: messages with their file and line, and make rules of dependencies."""

from __future__ import annotations

import re
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
    return list(dict.fromkeys(one for text in output.splitlines() if (one := diagnostic(text))))


class Place(NamedTuple):
    """A line of a file, from 1."""

    file: str
    line: int


def diagnostic(text: str) -> Diagnostic | None:
    """Return the message that a line of a compiler's output is; None if it is none."""
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
