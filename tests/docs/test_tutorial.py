"""The tutorial, followed literally: its commands are run, its edits made and its outputs compared, in their order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

from support.pages import DOCS, ROOT, Block, blocks, mismatch

TUTORIAL = DOCS / "tutorial.md"


class Reader:
    """A reader who follows the page in one shell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        programs = str(Path(sys.executable).parent)
        self._env = {
            **os.environ,
            "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, commands: str) -> tuple[int, str]:
        """Run commands in the directory where the previous ones ended; return their exit status and output."""
        place = self.directory / ".place"
        script = f"trap 'pwd > {place}' EXIT\nset -e\n{commands}"
        here = place.read_text().strip() if place.exists() else self.directory
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=here,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        # A slow machine adds lines about compiles that take longer than a second.
        lines = [line for line in done.stdout.splitlines(keepends=True) if not line.startswith("dimorph: compil")]
        return done.returncode, "".join(lines)

    def edit(self, diff: str) -> None:
        """Replace the lines that a diff removes, which must occur once in the file, by those that it adds."""
        head, *lines = diff.splitlines()
        file = Path((self.directory / ".place").read_text().strip(), head.removeprefix("--- "))
        old, new = ("".join(line[1:] + "\n" for line in lines if line[0] in signs) for signs in (" -", " +"))
        text = file.read_text()
        assert text.count(old) == 1, f"{file.name} has {text.count(old)} times\n{old}"
        file.write_text(text.replace(old, new))


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
