"""The Markdown pages of the repository, read as blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the first word behind the fence.
        words: the other words there.
        text: its lines, each with a newline.
        line: the number of the line of the fence, from 1.
    """

    language: str
    words: tuple[str, ...]
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        yield Block(language, tuple(words), match["text"], text[: match.start()].count("\n") + 1)


def prose(page: Path) -> str:
    """Return a page with the lines of its fenced blocks emptied, so that line numbers stay."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text("utf-8"))


def sections(page: Path) -> list[str]:
    """Return the prose of a page in parts, each from a heading to the next one."""
    return re.split(r"(?m)^(?=#{1,6} )", prose(page))


def quoted(text: str) -> set[str]:
    """Return the words that prose quotes as code: `x.size(1)` quotes x, size and 1."""
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)}


def pages() -> list[Path]:
    """List every page that a reader is sent to."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]


def mismatch(expected: str, actual: str) -> str:
    """Compare a printed output with the one on a page; empty where they agree.

    `...` on a line of its own stands for any lines, within a line for any text.
    """
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected.splitlines()
    )
    return "" if re.fullmatch(pattern, actual) else f"expected\n{expected}\ngot\n{actual}"
