"""Tell the user what is compiled, why, and how to avoid it, once it takes more than a second; tell programs at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dimorph._lazy import logger

_log = logger("dimorph")
_SILENCE = 1.0  # seconds before the first line
_APART = 2.0  # seconds between two lines of progress
_FEW = 3  # the number of compiles up to which there is no progress to tell of


@dataclass(frozen=True)
class BuildProgress:
    """The state of a build in this process, as `dimorph.on_build` passes it on.

    Attributes:
        units: the units that are compiled together: kernel, kind and values of each.
        why: why no store serves; empty for a build ahead of time.
        advice: how to have them built ahead; empty for a build ahead of time.
        done: the number of units that are compiled.
        seconds: the time since the begin.
        ended: True in the last call, after an error too.
    """

    units: tuple[str, ...]
    why: str
    advice: str
    done: int
    seconds: float
    ended: bool


_callbacks: list[Callable[[BuildProgress], None]] = []


def on_build(callback: Callable[[BuildProgress], None]) -> Callable[[], None]:
    """Call a function while this process compiles: at the begin, after compiles have ended, and at the end.

    The thread that waits for the build calls it, about twice a second at most. What it raises ends the build, and goes
    to the caller that needs it.

    Args:
        callback: takes a `BuildProgress`.

    Returns:
        A function that takes the callback back.
    """
    _callbacks.append(callback)
    return lambda: _callbacks.remove(callback)


class Notice:
    """The lines about one build: one after a second, and progress if it is of more than three compiles."""

    def __init__(
        self, labels: Sequence[str], why: str, hint: str, advice: Callable[[], str], *, silent: bool = False
    ) -> None:
        """Begin the first second.

        Args:
            labels: the units to compile.
            why: why they are compiled.
            hint: what makes this build slow; empty: nothing in particular.
            advice: returns how to have them built ahead.
            silent: True to write no lines, where the caller shows progress.
        """
        self._labels = labels
        self._why = why
        self._hint = hint
        self._advice = advice
        self._silent = silent
        self._done = 0
        self._told = -1
        self._began = time.monotonic()
        self._next = self._began + _SILENCE
        self._said = False
        self._lock = threading.Lock()
        self._thread = threading.get_ident()

    def tick(self) -> None:
        """Write the line that is due now, if any.

        Only the thread that asked for the build writes: a handler of log records may call a kernel, and in another
        thread it would wait for the very load that waits for this build.
        """
        if threading.get_ident() != self._thread:
            return
        self._tell(ended=False)
        with self._lock:
            now = time.monotonic()
            if self._silent or now < self._next or (self._said and len(self._labels) <= _FEW):
                return
            self._next = now + _APART
            if self._said:
                _log.warning("dimorph: compiled %d of %d", self._done, len(self._labels))
                return
            self._said = True
            more = f" and {len(self._labels) - 1} more" if len(self._labels) > 1 else ""
            why = f", because it is in no store: {self._why}" if self._why else ""
            hint = f" ({self._hint})" if self._hint else ""
            cure = f"; {self._advice()}" if self._why else ""
            _log.warning(
                "dimorph: compiling %s%s%s%s%s; DIMORPH_LOG=off hides this", self._labels[0], more, hint, why, cure
            )

    def finished(self) -> None:
        """Count one compile that has ended."""
        with self._lock:
            self._done += 1
        self.tick()

    def end(self) -> None:
        """Tell programs that the build has ended."""
        self._tell(ended=True)

    def _tell(self, *, ended: bool) -> None:
        done = self._done
        if not _callbacks or (done == self._told and not ended):
            return
        self._told = done
        advice = self._advice() if self._why else ""
        seconds = time.monotonic() - self._began
        progress = BuildProgress(tuple(self._labels), self._why, advice, done, seconds, ended)
        for callback in list(_callbacks):
            callback(progress)
