"""Standard modules and loggers made at first use: `_lazy.json` imports json, `logger(...)` logging.

A load or a message needs them, an import does not. They come with tvm-ffi anyway, and would be a fifth of the time that
an import of this package takes; `logging` alone would be a twelfth.
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


def logger(name: str) -> logging.Logger:
    """Return an object with the methods of `logging.getLogger(name)`."""
    return _Logger(name)  # type: ignore[return-value]


class _Logger:
    """Asks the logger for each method, so that a record names the line that called it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return getattr(import_module("logging").getLogger(self._name), method)
