"""The seal of a process: from then on nothing is compiled in it."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph._lazy import logger
from dimorph.errors import counted

_log = logger("dimorph")

REASON = "this process is sealed (dimorph.seal), and compiles nothing any more"


class Seal:
    """The seal of this process; `dimorph.seal` returns it.

    Attributes:
        warn: True if what is missing is compiled all the same.
        misses: unit that was missing since -> how often.
    """

    def __init__(self, warn: bool) -> None:
        self.warn = warn
        self.misses: dict[str, int] = {}

    def __repr__(self) -> str:
        count = counted(sum(self.misses.values()), "miss", "misses")
        return f"<dimorph.Seal {'warns' if self.warn else 'raises'}, {count}>"


_seals: list[Seal] = []


def seal(*, warn: bool = False) -> Seal:
    """Compile nothing any more in this process, in modules that are loaded already, too. Nothing lifts the seal.

    An engine calls it at the end of its warm-up: a miss then raises `MissingSpecialization`, which names what is
    missing and the command that builds it, instead of stopping a server for as long as a compile takes. As under the
    policy `aot`, artifacts of any compiler serve, and nothing is written.

    Args:
        warn: True to compile what is missing all the same, log a warning, and count it.

    Returns:
        The seal, whose `misses` grow. A later call without `warn` makes the seal one that raises.
    """
    if not _seals:
        _seals.append(Seal(warn))
    _seals[0].warn = _seals[0].warn and warn
    return _seals[0]


def raises() -> bool:
    """Return True if nothing may be compiled."""
    return bool(_seals) and not _seals[0].warn


def policy(given: str) -> str:
    """Return the policy of a load, which the seal changes."""
    return "aot" if raises() else given


def missed(labels: Sequence[str], *, compiled: bool) -> None:
    """Count units that are missing, and warn if they are compiled now."""
    if not _seals:
        return
    misses = _seals[0].misses
    for label in labels:
        misses[label] = misses.get(label, 0) + 1
    if compiled:
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        _log.warning("dimorph: compiling %s%s after this process was sealed", labels[0], more)
