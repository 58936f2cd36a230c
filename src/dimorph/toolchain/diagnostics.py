"""Reads what compilers print: messages with a place, and dependency lists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SEVERITIES = "fatal error|catastrophic error|internal compiler error|error|warning|note|sorry, unimplemented"
# A driver's own complaint has no place: "g++: error: unrecognized command-line option"; zig's has no name. CUDA's
# compilers put lines into parentheses and numbers behind the severity; their assembler pads its name.
_HEAD = re.compile(
    r"^(?:(?P<file>[^\s:][^:]*?)(?::(?P<line>\d+):(?:(?P<column>\d+):)?|\((?P<cuda_line>\d+)\):) "
    r"|(?P<program>[^\s:]+): |ptxas |)"
    rf"(?P<severity>{_SEVERITIES})(?: #[\w-]+)?\s*: (?P<message>.*)$"
)


@dataclass(frozen=True)
class Diagnostic:
    """One message.

    Attributes:
        file: the path as the compiler printed it; the program's name, or nothing, where there is no place.
        line: from 1; 0 without a place.
        column: from 1; 0 where the compiler gave none.
        severity: `error`, `warning`, `note`, `fatal error`, ...
        message: its first line.
    """

    file: str
    line: int
    column: int
    severity: str
    message: str


def parse_diagnostics(output: str) -> list[Diagnostic]:
    """The messages in what GCC, clang, zig, NVRTC or nvcc printed, in order, each once.

    Quoted source lines and include chains are left out. A mistake in a template is printed anew for each use.
    """
    found = []
    for text in output.splitlines():
        if match := _HEAD.match(text):
            found.append(
                Diagnostic(
                    file=match["file"] or match["program"] or "",
                    line=int(match["line"] or match["cuda_line"] or 0),
                    column=int(match["column"] or 0),
                    severity=match["severity"],
                    message=match["message"],
                )
            )
    return list(dict.fromkeys(found))


def parse_make_rule(text: str) -> list[Path]:
    """The prerequisites of one make rule as `-M` prints it: the source first, then every file it includes."""
    _, _, names = text.replace("\\\n", " ").partition(": ")
    # Make's escapes: a backslash before a blank or a hash sign, a doubled dollar.
    pieces = re.findall(r"(?:\\[ #]|\S)+", names)
    return [Path(re.sub(r"\\([ #])", r"\1", piece).replace("$$", "$")) for piece in pieces]
