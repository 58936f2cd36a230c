"""The pages agree with the repository: links resolve, code is in files that tests run, outputs are right."""

from __future__ import annotations

import ast
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


def _stands_in(wanted: list[str], text: str) -> int | None:
    """Return the number, from 1, of the line where the wanted ones begin; None if they do not stand there."""
    lines = text.split("\n")
    for at in range(len(lines) - len(wanted) + 1):
        if _dedented("\n".join(lines[at : at + len(wanted)])) == wanted:
            return at + 1
    return None


def _uncalled(program: str, line: int) -> list[str]:
    """Return the functions around a line of a program that it does not call."""
    nodes = list(ast.walk(ast.parse(program)))
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return [one.name for one in functions if one.lineno <= line <= (one.end_lineno or 0) and one.name not in called]


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_code_on_pages_is_code_of_examples(page: Path) -> None:
    kinds = {"python": ("*.py",), "cpp": ("*.cc", "*.h", "*.cu"), "rust": ("*.rs",), "cmake": ("CMakeLists.txt",)}
    lost = [
        f"{_name(page)}:{block.line}"
        for block in blocks(page)
        if block.language in kinds
        and not any(
            _stands_in(_dedented(block.text), file.read_text("utf-8"))
            for pattern in kinds[block.language]
            for file in (*EXAMPLES.rglob(pattern), NEW_AXIS)
        )
    ]
    assert not lost, "no file below examples/ holds these lines"


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_python_on_pages_is_in_functions_that_its_example_calls(page: Path) -> None:
    programs = {file: file.read_text("utf-8") for file in EXAMPLES.rglob("*.py")}
    for block in blocks(page):
        for file, program in programs.items() if block.language == "python" else ():
            if line := _stands_in(_dedented(block.text), program):
                assert _uncalled(program, line) == [], f"{_name(page)}:{block.line} quotes {file.name}:{line}"


def test_a_function_that_nobody_calls_is_found() -> None:
    program = "def run():\n    x = 1\n\ndef other():\n    y = 2\n\nrun()\n"
    assert (_uncalled(program, 2), _uncalled(program, 5), _uncalled(program, 7)) == ([], ["other"], [])


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_no_broken_line_begins_like_an_item_of_a_list(page: Path) -> None:
    found = re.findall(r"(?m)^[^\s#|\d*+-].*\n((?:1\.|[-+*]) .*)$", prose(page))
    assert found == [], "put a blank line before a list; break a sentence elsewhere"


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
