"""Warnings about variables of the environment that have no effect, each logged once in a process."""

from __future__ import annotations

from functools import cache

from dimorph import settings
from dimorph._lazy import logger

_log = logger("dimorph")


@cache
def warn_of_unknown() -> None:
    """Warn of environment variables that begin like those of settings and are none."""
    for text in settings.unknown().values():
        _log.warning("dimorph: %s", text)


@cache
def warn_of_compiler(problem: str) -> None:
    """Warn that a compiler that the settings name is unusable, where artifacts of another one serve."""
    _log.warning("dimorph: %s; artifacts that another compiler made are used", problem)
