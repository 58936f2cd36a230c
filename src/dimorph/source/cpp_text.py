"""Functions on C++ text: remove comments, write macros of several lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Literals are matched first, so that a comment mark inside one is left alone; numbers too, because the quotes between
# their digits begin no character, and raw strings, because a quote does not end them.
_TOKENS = re.compile(
    r"""\b(?:u8|[uUL])?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
    r"""|\b\d(?:'?[\w.])*|//[^\n]*|/\*.*?\*/""",
    re.DOTALL,
)


# What may contain the mark of a comment without being one.
_LITERAL = re.compile(rb"[\"'<]")
_SPLICING = frozenset((b"\\", b" ", b"\t", b"\r"))


def without_comments(text: str) -> str:
    """Return C++ text without comments and blank lines, the form that content keys hash."""
    stripped = _TOKENS.sub(lambda m: " " if m.group(0)[0] == "/" else m.group(0), text)
    return "\n".join(line.rstrip() for line in stripped.split("\n") if line.strip())


def without_line_comments(content: bytes) -> bytes:
    """Return C++ text without its `//` comments, fast; text in which they are hard to tell stays as it is.

    Texts that differ in more than comments, and blanks before them, are never made equal.
    """
    if b"/*" in content or b'R"' in content:
        return content
    pieces, done = [], 0
    at = content.find(b"//")
    while at >= 0:
        start = content.rfind(b"\n", 0, at) + 1
        end = content.find(b"\n", at)
        end = len(content) if end < 0 else end
        before = content[start:at]
        # A backslash at the end of a line, or before blanks there, makes the next line part of it, comment or not.
        spliced = content[end - 1 : end] in _SPLICING or content[max(start - 2, 0) : start - 1] in _SPLICING
        if not spliced and (not before or before.isspace()):
            pieces.append(content[done:start])
            done = end + 1
        elif not spliced and not _LITERAL.search(before):
            pieces.append(content[done : start + len(before.rstrip())])
            done = end
        at = content.find(b"//", end)
    pieces.append(content[done:])
    return b"".join(pieces)


def macro_arguments(text: str, opening: int) -> list[str]:
    """Return the arguments of a macro as the preprocessor splits them: at commas outside of parentheses.

    Args:
        text: a text from `blanked`.
        opening: the position of the parenthesis before the first argument.
    """
    depth, start, found = 0, opening + 1, []
    for match in re.compile(r"[(),]").finditer(text, opening):
        depth += {"(": 1, ")": -1, ",": 0}[match[0]]
        if depth == 0 or (depth == 1 and match[0] == ","):
            found.append(text[start : match.start()].strip())
            start = match.end()
        if depth == 0:
            break
    return found


def blanked(text: str) -> str:
    """Return C++ text of the same length whose comments and literals are blanks, so that positions stay."""
    return _TOKENS.sub(lambda m: m[0] if m[0][0].isdigit() else re.sub(r"[^\n]", " ", m[0]), text)


def line_of(text: str, position: int) -> int:
    """Return the number of the line that a position is in, from 1."""
    return text.count("\n", 0, position) + 1


def macro(head: str, body: Sequence[str]) -> list[str]:
    """Return the lines of a `#define` that spans several lines, its backslashes in one column."""
    lines = [f"#define {head}", *(f"  {line}" for line in body)]
    width = max(len(line) for line in lines[:-1])
    return [*(f"{line:<{width}} \\" for line in lines[:-1]), lines[-1]]
