"""The pages agree with the repository: links resolve, code is in files that tests run, outputs are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.pages import ROOT, blocks, pages, prose

EXAMPLES = ROOT / "examples"
# The file outside of examples that a page for developers quotes.
NEW_AXIS = ROOT / "tests" / "declare" / "test_new_axis.py"

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes from a page's headings."""
    texts = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link, image in _LINK.findall(prose(page)):
        target, _, anchor = (link or image).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists():
            broken.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(file):
            broken.append(f"{target}#{anchor}: no such heading; there are {sorted(anchors(file))}")
    assert not broken


def _dedented(text: str) -> list[str]:
    """Return lines without their common indentation and without blank lines at the ends."""
    lines = text.strip("\n").split("\n")
    indent = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return [line[indent:].rstrip() for line in lines]


def _stands_in(wanted: list[str], file: Path) -> bool:
    lines = file.read_text("utf-8").split("\n")
    windows = (lines[at : at + len(wanted)] for at in range(len(lines) - len(wanted) + 1))
    return any(_dedented("\n".join(window)) == wanted for window in windows)


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_code_on_pages_is_code_of_examples(page: Path) -> None:
    kinds = {"python": ("*.py",), "cpp": ("*.cc", "*.h", "*.cu")}
    lost = [
        f"{_name(page)}:{block.line}"
        for block in blocks(page)
        if block.language in kinds
        and not any(
            _stands_in(_dedented(block.text), file)
            for pattern in kinds[block.language]
            for file in (*EXAMPLES.rglob(pattern), NEW_AXIS)
        )
    ]
    assert not lost, "no file below examples/ holds these lines"


def test_every_block_names_its_language() -> None:
    unnamed = [f"{_name(page)}:{block.line}" for page in pages() for block in blocks(page) if not block.language]
    assert not unnamed


def test_readme_prints_what_its_example_prints(store: Path) -> None:
    program = EXAMPLES / "first" / "row_sum.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    (shown,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "text")
    assert done.stdout == shown


def test_readme_begins_with_the_two_commands() -> None:
    first, second = [block.text for block in blocks(ROOT / "README.md") if block.language == "sh"][:2]
    assert (first, second) == ("./dev demo\n", "./dev test\n")
