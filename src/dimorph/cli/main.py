"""The entry point of the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs `dimorph`; exits with 0, 1 where something failed or is broken, 2 where it was used wrongly."""
    try:
        from dimorph.cli.commands import dimorph
    except ModuleNotFoundError as error:
        # Anything else that is missing is a defect, and shows as one.
        if error.name not in ("click", "rich"):
            raise
        print(f"dimorph: the command line needs {error.name}: pip install dimorph[cli]", file=sys.stderr)
        sys.exit(1)
    dimorph(prog_name="dimorph")
