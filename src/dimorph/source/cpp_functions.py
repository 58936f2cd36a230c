"""Find the functions that a C++ text defines, for messages and advice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


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
_PAIRS = {"()": re.compile("[()]"), "{}": re.compile("[{}]")}
_NO_FUNCTIONS = frozenset(("if", "for", "while", "switch", "catch"))
_BEFORE_BODY = re.compile(r"(?:\s|const|override|final|noexcept(?:\s*\([^()]*\))?|->[\w\s:<>&*]+)*")


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


def _closing(code: str, opening: int, pair: str) -> int:
    """Return the position behind the bracket that closes the one at `opening`; the end of the text if none does."""
    depth = 0
    for match in _PAIRS[pair].finditer(code, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.end()
    return len(code)
