"""The entry point of the command line."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run `dimorph`; exit with 0 on success, 1 on a failure or a problem found, 2 on wrong usage."""
    try:
        from dimorph.cli.commands import dimorph
    except ModuleNotFoundError as error:
        # Any other missing module is a defect, so its traceback is shown.
        if error.name not in ("click", "rich"):
            raise
        print(f"dimorph: the command line needs {error.name}: pip install 'dimorph[cli]'", file=sys.stderr)
        sys.exit(1)
    for stream in (sys.stdout, sys.stderr):
        # Names of files are any bytes, and the terminal may not know all characters of a compiler's messages.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    dimorph(prog_name="dimorph")
