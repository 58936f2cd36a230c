"""The tutorial, followed literally: its commands are run, its edits made and its outputs compared, in their order."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pytest

from support.pages import DOCS, Block, blocks, mismatch
from support.reader import Reader

TUTORIAL = DOCS / "tutorial.md"


def test_tutorial_is_right_to_the_letter(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    page = list(blocks(TUTORIAL))
    for block, following in zip_longest(page, page[1:]):
        where = f"{TUTORIAL.name}:{block.line}"
        if block.language == "diff":
            reader.edit(block.text)
        elif block.language == "sh":
            status, output = reader.run(block.text)
            assert (status != 0) == ("fails" in block.words), f"{where}: exit status {status}\n{output}"
            assert isinstance(following, Block) and following.language == "text", f"{where}: no output follows"
            assert not (wrong := mismatch(following.text, output)), f"{where}: {wrong}"
        else:
            assert block.language == "text", f"{where}: the reader does not know what to do with {block.language!r}"


def test_tutorial_has_all_its_steps() -> None:
    languages = [block.language for block in blocks(TUTORIAL)]
    assert languages.count("sh") >= 9
    assert languages.count("diff") >= 2


@pytest.mark.parametrize(
    ("expected", "actual", "agree"),
    [
        ("a 1.9... b\n", "a 1.93 b\n", True),
        ("...\nend\n", "x\ny\nend\n", True),
        ("...\nend\n", "end\n", True),
        ("a\n", "a\nb\n", False),
        ("a ... c\n", "a b\nc\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_masks_of_outputs(expected: str, actual: str, agree: bool) -> None:
    assert (mismatch(expected, actual) == "") is agree
