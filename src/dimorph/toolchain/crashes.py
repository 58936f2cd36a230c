"""Tell from the exit status and the output of a compiler that it crashed, in contrast to refusing a source."""

from __future__ import annotations

import re
import signal

# Messages of compilers that a program they started was ended by a signal: g++ since 9, g++ before 9, clang.
_SIGNALLED = (
    re.compile(r"^\S+: [a-z ]*error: (?P<what>[A-Z][\w ]*) signal terminated program (?P<who>\S+)", re.M),
    re.compile(r"^\S+: internal compiler error: (?P<what>[A-Z][\w ]*) \(program (?P<who>\S+)\)", re.M),
    re.compile(r"^\S+: error: unable to execute command: (?P<what>[A-Z][\w ]*)(?P<who>)", re.M),
)
# Anchored to lines of the tools themselves, because the same words may occur in the text of a user's `static_assert`.
_NO_MEMORY = re.compile(
    r"^(?:\S+: out of memory allocating \d+ bytes"
    r"|virtual memory exhausted"
    r"|\S*ld(?:\.\w+)?: .*memory exhausted"
    r"|LLVM ERROR: out of memory"
    r"|terminate called after throwing an instance of 'std::bad_alloc'"
    r"|error: OutOfMemory)",
    re.M,
)
_INTERNAL = re.compile(r"^.*\binternal compiler error: .*$", re.M)
_SIGNAL_NAMES = {
    "Killed": "SIGKILL",
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Terminated": "SIGTERM",
}
SIGNALS = {number.value: number.name for number in signal.Signals}
"""The number of a signal -> its name."""


def crash(program: str, exit_code: int, output: str) -> str | None:
    """Return the reason, as text, if a program did not end by itself; None if it did.

    Args:
        program: the program, for the text.
        exit_code: its exit status, or the negated number of the signal that ended it.
        output: everything that it printed.
    """
    if exit_code == 0:
        return None
    if _NO_MEMORY.search(output):
        return f"{program} ran out of memory (fewer compilers at a time need less: DIMORPH_JOBS=1)"
    for pattern in _SIGNALLED:
        if found := pattern.search(output):
            what = found["what"].strip()
            return _killed_by(found["who"] or program, _SIGNAL_NAMES.get(what, what))
    if -exit_code in SIGNALS:
        return _killed_by(program, SIGNALS[-exit_code])
    if found := _INTERNAL.search(output):
        return f"{program} failed ({found[0].strip()})"
    return None


def _killed_by(program: str, signal_name: str) -> str:
    if signal_name == "SIGKILL":
        return (
            f"{program} was killed by {signal_name}, most likely because it ran out of memory "
            "(fewer compilers at a time need less: DIMORPH_JOBS=1)"
        )
    return f"{program} was killed by {signal_name}"
