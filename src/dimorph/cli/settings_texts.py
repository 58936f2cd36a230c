"""The documentation of the settings, read from the texts under their fields."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

from dimorph import settings


def documentation() -> dict[str, str]:
    """Return field of `Settings` -> the text under it."""
    (declared,) = (
        node
        for node in ast.parse(Path(settings.__file__).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == settings.Settings.__name__
    )
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(declared.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
