"""Functions on C++ text: remove comments, find functions and their parameters, write macros of several lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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


def parameter_list(text: str, function: str) -> str | None:
    """Return the names of a function's parameters, comma separated, as its definition spells them; None: not found.

    The names are only for messages, so the parser may fail on an unusual definition: the message then lacks them.
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


class Function(NamedTuple):
    """A function that a text defines.

    Attributes:
        name: its name.
        start: the position of its name in the text.
        after: what stands between its parameters and its body, e.g. `noexcept`.
        body: the position of its body's first brace.
        end: the position behind its body's last brace.
    """

    name: str
    start: int
    after: str
    body: int
    end: int


_DEFINES = re.compile(r"(?<=[\s&*>])([A-Za-z_]\w*)\s*\(")
_NO_FUNCTIONS = frozenset(("if", "for", "while", "switch", "catch"))
_BEFORE_BODY = re.compile(r"(?:\s|const|override|final|noexcept(?:\s*\([^()]*\))?|->[\w\s:<>&*]+)*")


def blanked(text: str) -> str:
    """Return C++ text of the same length whose comments and literals are blanks, so that positions stay."""
    return _TOKENS.sub(lambda m: m[0] if m[0][0].isdigit() else re.sub(r"[^\n]", " ", m[0]), text)


def functions(code: str) -> Iterator[Function]:
    """Yield the functions that a text from `blanked` defines; those in the bodies of others are left out.

    It is for messages and for advice: unusual definitions may be missed.
    """
    at = 0
    while match := _DEFINES.search(code, at):
        at = match.end()
        closing = _closing(code, match.end() - 1, "()")
        opening = code.find("{", closing)
        after = code[closing:opening]
        if match[1] in _NO_FUNCTIONS or opening < 0 or not _BEFORE_BODY.fullmatch(after):
            continue
        end = _closing(code, opening, "{}")
        yield Function(match[1], match.start(), after, opening, end)
        at = end


def line_of(text: str, position: int) -> int:
    """Return the number of the line that a position is in, from 1."""
    return text.count("\n", 0, position) + 1


def _closing(code: str, opening: int, pair: str) -> int:
    """Return the position behind the bracket that closes the one at `opening`; the end of the text if none does."""
    depth = 0
    for match in re.compile(f"[{re.escape(pair)}]").finditer(code, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.end()
    return len(code)


def macro(head: str, body: Sequence[str]) -> list[str]:
    """Return the lines of a `#define` that spans several lines, its backslashes in one column."""
    lines = [f"#define {head}", *(f"  {line}" for line in body)]
    width = max(len(line) for line in lines[:-1])
    return [*(f"{line:<{width}} \\" for line in lines[:-1]), lines[-1]]


def _split(parameters: str) -> Iterator[str]:
    """Yield the parts of a parameter list between the commas outside of brackets."""
    depth, start = 0, 0
    for at, letter in enumerate(parameters):
        depth += (letter in "<(") - (letter in ">)")
        if letter == "," and depth == 0:
            yield parameters[start:at]
            start = at + 1
    if parameters[start:].strip():
        yield parameters[start:]
