"""Directories of the checkout that tests read."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
REPOSITORY = SUPPORT.parents[1]
EXAMPLES = REPOSITORY / "examples"
ROWMATH = SUPPORT / "packages" / "rowmath"  # the project of a Python package that contains kernels
# Examples that are projects of their own, each with a test in tests/system/test_field_<name>.py.
PROJECTS = tuple(sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml")))


def example_files() -> list[Path]:
    """Return the Python files of the examples that are no projects."""
    return sorted(path for path in EXAMPLES.rglob("*.py") if not set(PROJECTS) & set(path.parents))
