"""The package's loggers, made when something is first said: `logging` would be a twelfth of what an import takes."""

from __future__ import annotations

from typing import Any

from dimorph import late


class _Late:
    """A `logging.Logger`, as far as its methods go."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        # The logger's own method, so that a record names the line that called it.
        return getattr(late.logging.getLogger(self._name), method)


def logger(name: str) -> late.logging.Logger:
    """What `logging.getLogger` returns, to be asked for methods alone."""
    return _Late(name)  # type: ignore[return-value]
