"""Standard modules and loggers that are imported at first use: `_lazy.json` imports json, a log message logging.

Loads and messages need them, `import dimorph` does not: they would be a fifth of its time, `logging` alone a twelfth. A
load pays little for them, because tvm-ffi imports them too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from threading import local
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


def show_log(level: str | None) -> None:
    """Show records of the loggers of Dimorph on standard error, where the program does not handle log records itself.

    Args:
        level: the lowest level shown, `off` for none; None: leave logging as it is, which shows warnings.
    """
    if level is None:
        return
    logging = import_module("logging")
    top = logging.getLogger("dimorph")
    top.setLevel(logging.CRITICAL + 1 if level == "off" else level.upper())
    if not any(handler.name == _HANDLER for handler in top.handlers):
        handler = logging.StreamHandler()
        handler.name = _HANDLER
        # Asked for each record, because programs may set up logging later.
        handler.addFilter(lambda record: not logging.getLogger().handlers)
        top.addHandler(handler)


_HANDLER = "dimorph.show_log"


_thread = local()


def keep_records(kept: list[Callable[[], None]]) -> None:
    """Let this thread keep its records, but for those of errors, in a list, for the thread that waits for it to write.

    A handler of the program may hold its lock while it loads a kernel, and a thread of that load would wait for it.
    """
    _thread.kept = kept


class _Logger:
    """A stand-in that fetches each method from the real logger, so that a log record names the caller's line."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        real = getattr(import_module("logging").getLogger(self._name), method)
        kept = getattr(_thread, "kept", None)
        if kept is None or method not in ("debug", "info", "warning"):
            return real
        return lambda *args: kept.append(partial(real, *args))
