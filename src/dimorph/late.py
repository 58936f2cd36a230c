"""Standard modules that a load needs and an import does not: `late.json.loads(...)` imports json when first used.

They come with tvm-ffi anyway, and would be an eighth of what an import of this package takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime
    import hashlib
    import json
    import shutil

__all__ = ["datetime", "hashlib", "json", "shutil"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = import_module(name)
    return found
