"""Tell the user what is being compiled, and why, once it takes more than a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from dimorph._lazy import logger

_log = logger("dimorph")
_SILENCE = 1.0  # seconds before the first line
_APART = 2.0  # seconds between two lines of progress
_FEW = 3  # the number of compiles up to which there is no progress to tell of


class Notice:
    """The lines about one build: one after a second, and progress if it is of more than three compiles."""

    def __init__(self, labels: Sequence[str], why: str, hint: str) -> None:
        """Begin the first second.

        Args:
            labels: the units to compile.
            why: why they are compiled.
            hint: what makes this build slow; empty: nothing in particular.
        """
        self._labels = labels
        self._why = why
        self._hint = hint
        self._done = 0
        self._next = time.monotonic() + _SILENCE
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
        with self._lock:
            now = time.monotonic()
            if now < self._next or (self._said and len(self._labels) <= _FEW):
                return
            self._next = now + _APART
            if self._said:
                _log.warning("dimorph: compiled %d of %d", self._done, len(self._labels))
                return
            self._said = True
            more = f" and {len(self._labels) - 1} more" if len(self._labels) > 1 else ""
            why = f", because it is in no store: {self._why}" if self._why else ""
            hint = f" ({self._hint})" if self._hint else ""
            _log.warning("dimorph: compiling %s%s%s%s; DIMORPH_LOG=off hides this", self._labels[0], more, hint, why)

    def finished(self) -> None:
        """Count one compile that has ended."""
        with self._lock:
            self._done += 1
        self.tick()
