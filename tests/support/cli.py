"""Run commands in this process, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from dimorph.cli.commands import dimorph

Run = Callable[..., Result]


def runner(root: Path) -> Run:
    """Return a function that runs a command and checks its exit status.

    The argument `SPEC` stands for the file in `root` that declares the skeleton.
    """

    def run(*arguments: str, code: int = 0) -> Result:
        spec = str(root / "skeleton.py")
        result = CliRunner().invoke(dimorph, [word.replace("SPEC", spec) for word in arguments])
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        return result

    return run
