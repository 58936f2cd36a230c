"""Standard modules that an import does not need, but a load or a message does: `late.json` imports json at first use.

They come with tvm-ffi anyway, and would be a fifth of what an import of this package takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime
    import hashlib
    import json
    import logging
    import shutil

__all__ = ["datetime", "hashlib", "json", "logging", "shutil"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = import_module(name)
    return found
