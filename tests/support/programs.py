"""Programs that tests run in a new interpreter, to see how it ends, or what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from support.paths import SUPPORT

# A program that hangs is ended, and shows where its threads were.
_PRELUDE = "import faulthandler; faulthandler.dump_traceback_later({limit}, exit=True)\n"


def run(program: str, *arguments: str, limit: float = 60, **environ: str) -> str:
    """Run a program with the tests' modules on its path; return what it printed.

    Fails if the program does not end with exit status 0 within `limit` seconds, or writes of a fatal error.
    """
    done = run_to_end(program, *arguments, limit=limit, **environ)
    assert done.returncode == 0 and "Fatal" not in done.stderr, f"status {done.returncode}\n{done.stderr[-9000:]}"
    return done.stdout.strip()


def run_to_end(program: str, *arguments: str, limit: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the tests' modules on its path, and return how it ended."""
    path = os.pathsep.join([str(SUPPORT.parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", _PRELUDE.format(limit=limit) + textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=limit + 30,
    )
