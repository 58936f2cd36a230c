"""Warnings about variables of the environment that have no effect, each logged once in a process."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

from dimorph import settings
from dimorph._lazy import logger

_log = logger("dimorph")


@cache
def warn_of_unknown() -> None:
    """Warn of environment variables that begin like those of settings and are none."""
    for text in unknown().values():
        _log.warning("dimorph: %s", text)


@cache
def warn_of_compiler(problem: str) -> None:
    """Warn that a compiler that the settings name is unusable, where artifacts of another one serve."""
    _log.warning("dimorph: %s; artifacts that another compiler made are used", problem)


def unknown() -> dict[str, str]:
    """Return the environment variables that start with `DIMORPH_` and name no setting -> a sentence that says so."""
    given = settings.given()
    names = [settings.variable(field.name) for field in fields(settings.Settings)] if given else []
    return {name: f"{name}: there is no such setting{_nearest(name, names)}" for name in given if name not in names}


def _nearest(name: str, names: list[str]) -> str:
    from difflib import get_close_matches  # here, because only a mistake needs it

    ours = [known.removeprefix("DIMORPH_") for known in names if known.startswith("DIMORPH_")]
    near = get_close_matches(name.removeprefix("DIMORPH_"), ours, 1)
    return f"; the nearest is DIMORPH_{near[0]}" if near else ""
