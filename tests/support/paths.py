"""Directories of the checkout that tests read."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
REPOSITORY = SUPPORT.parents[1]
EXAMPLES = REPOSITORY / "examples"
ROWMATH = SUPPORT / "packages" / "rowmath"  # the project of a Python package that contains kernels
