"""Runs a command to its end; the only module of the project that starts processes."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dimorph._fork import no_fork
from dimorph.errors import BuildTimeout, CompilerCrashed, ToolchainError

# How drivers report that a program they started was ended by a signal: g++ since 9, g++ before, clang.
_SIGNALLED = (
    re.compile(r"^\S+: [a-z ]*error: (?P<what>[A-Z][\w ]*) signal terminated program (?P<who>\S+)", re.M),
    re.compile(r"^\S+: internal compiler error: (?P<what>[A-Z][\w ]*) \(program (?P<who>\S+)\)", re.M),
    re.compile(r"^\S+: error: unable to execute command: (?P<what>[A-Z][\w ]*)(?P<who>)", re.M),
)
# Anchored to a tool's own line: the same words inside a user's `static_assert` are an ordinary mistake.
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
_SIGNALS = {number.value: number.name for number in signal.Signals}


@dataclass(frozen=True)
class Completed:
    """A command that ended by itself.

    Attributes:
        command: what was run.
        exit_code: its exit status, 0 to 255.
        output: what it wrote to standard output and standard error, in the order of writing.
        seconds: wall-clock time.
    """

    command: tuple[str, ...]
    exit_code: int
    output: str
    seconds: float


class Group:
    """Commands that can be ended together, from another thread."""

    def __init__(self) -> None:
        self._running: set[int] = set()
        self._ended = False
        self._lock = threading.Lock()

    def end(self) -> None:
        """Kills what runs, and whatever is started in it from now on."""
        with self._lock:
            self._ended = True
            for leader in self._running:
                _kill_group(leader)

    def add(self, leader: int) -> None:
        """Takes a process group in."""
        with self._lock:
            self._running.add(leader)
            if self._ended:
                _kill_group(leader)

    def remove(self, leader: int) -> None:
        """Forgets a process group, before its number can go to another."""
        with self._lock:
            self._running.discard(leader)


def run(
    command: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None,
    env: Mapping[str, str],
    memory_limit: int | None = None,
    group: Group | None = None,
) -> Completed:
    """Runs `command` with an empty standard input and exactly the environment `env`, and waits for it.

    May be called from several threads at once. Whatever the command started and left in its process group is
    killed when it ends, when its time is up, and when this call is interrupted.

    Args:
        command: program and arguments.
        timeout: seconds after which the whole process group is killed.
        cwd: working directory; None for the caller's.
        env: the complete environment; nothing is inherited.
        memory_limit: bytes of address space that each process may use; None for no limit.
        group: what can end the command from another thread.

    Returns:
        The result, for every exit status: judging a refusal is the caller's part.

    Raises:
        ToolchainError: the command could not be started.
        BuildTimeout: it did not end within `timeout` seconds.
        CompilerCrashed: it, or a program that it says it started, was ended by a signal, ran out of memory
            or reports an internal error; the message names the signal.
    """
    argv = list(command)
    if memory_limit is not None:
        # The shell sets the limit on itself and then becomes the command: a limit set from here would either
        # come too late or need code between fork and exec, which is not safe with threads.
        argv = ["/bin/sh", "-c", 'ulimit -v "$0" && exec "$@"', str(memory_limit // 1024), *argv]
    started = time.monotonic()
    # A file in memory, not a pipe: it never fills up, and nobody who outlives the command holds it open.
    with os.fdopen(os.memfd_create("output"), "w+b") as output:
        try:
            # Starting waits for the end of a pipe.
            with no_fork:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=dict(env),
                    start_new_session=True,
                )
        except OSError as error:
            raise ToolchainError(
                f"process.run: cannot start {command[0]!r} (working directory {cwd}): {error}"
            ) from error
        expired = _wait(process, timeout, group)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    exit_code = process.returncode
    if expired and exit_code == -signal.SIGKILL:
        raise BuildTimeout(
            f"{command[0]} did not end within {timeout:g} s and was killed: {shlex.join(command)}",
            command=command,
            output=text,
        )
    if reason := _crash(command[0], exit_code, text):
        message = f"{reason}: {shlex.join(command)}"
        raise CompilerCrashed(message, command=command, exit_code=exit_code, output=text)
    return Completed(tuple(command), exit_code, text, time.monotonic() - started)


def _wait(process: subprocess.Popen[bytes], timeout: float, group: Group | None) -> bool:
    """Waits for the process, ends its group and reaps it; whether the time ran out."""
    ended = threading.Event()

    def watch() -> None:
        # WNOWAIT leaves the ended process in place, so that its number, which is the group's, cannot go to a
        # stranger before the group is killed. Unlike Popen.wait(timeout), this does not poll.
        # It is reaped already where an interrupt came while this thread was being started.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ended.set()

    watcher = threading.Thread(target=watch, daemon=True)
    deadline = time.monotonic() + timeout
    try:
        if group:
            group.add(process.pid)
        watcher.start()
        # A signal that comes right before a wait begins is noticed when it ends, so no wait is long.
        while (left := deadline - time.monotonic()) > 0 and not ended.wait(min(left, 1.0)):
            pass
        return not ended.is_set()
    finally:
        _kill_group(process.pid)
        if watcher.ident is not None:
            watcher.join()
        if group:
            group.remove(process.pid)
        process.wait()


def _kill_group(group: int) -> None:
    # Gone already is what was wanted.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _crash(program: str, exit_code: int, output: str) -> str | None:
    """Says what ended the compiler if it did not end by itself; None if it did."""
    if exit_code == 0:
        return None
    if _NO_MEMORY.search(output):
        return f"{program} ran out of memory (fewer at a time need less: DIMORPH_JOBS=1)"
    for pattern in _SIGNALLED:
        if found := pattern.search(output):
            what = found["what"].strip()
            return _killed_by(found["who"] or program, _SIGNAL_NAMES.get(what, what))
    # A shell that ran the compiler reports a signal as 128 + its number.
    number = -exit_code if exit_code < 0 else exit_code - 128
    if number in _SIGNALS:
        return _killed_by(program, _SIGNALS[number])
    if found := _INTERNAL.search(output):
        return f"{program} failed ({found[0].strip()})"
    return None


def _killed_by(program: str, signal_name: str) -> str:
    if signal_name == "SIGKILL":
        return (
            f"{program} was killed by {signal_name}, most likely because it ran out of memory "
            "(fewer at a time need less: DIMORPH_JOBS=1)"
        )
    return f"{program} was killed by {signal_name}"
