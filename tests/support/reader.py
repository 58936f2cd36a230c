"""A reader who follows a page of the documents in one shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.pages import ROOT


class Reader:
    """One shell, in a directory that holds a copy of the examples."""

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
