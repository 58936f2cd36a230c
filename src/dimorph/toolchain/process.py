"""Run a command to its end; the only module of the project that starts processes."""

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
_SIGNALS = {number.value: number.name for number in signal.Signals}


@dataclass(frozen=True)
class Completed:
    """The result of a command that ended by itself.

    Attributes:
        command: the program and its arguments.
        exit_code: the exit status, 0 to 255.
        output: standard output and standard error together, in the order of writing.
        seconds: the wall-clock time.
    """

    command: tuple[str, ...]
    exit_code: int
    output: str
    seconds: float


class Group:
    """A group of commands that another thread can kill together."""

    def __init__(self) -> None:
        self._running: set[int] = set()
        self._ended = False
        self._lock = threading.Lock()

    def end(self) -> None:
        """Kill all running commands of the group, and every command that is added later."""
        with self._lock:
            self._ended = True
            for leader in self._running:
                _kill_group(leader)

    def add(self, leader: int) -> None:
        """Add a process group, given by its number."""
        with self._lock:
            self._running.add(leader)
            if self._ended:
                _kill_group(leader)

    def remove(self, leader: int) -> None:
        """Remove a process group; called before the system can give its number to another one."""
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
    """Run `command` with an empty standard input and exactly the environment `env`, and wait for its end.

    May be called from several threads at once. All processes left in the command's process group are killed when the
    command ends, when its time is up, and when this call is interrupted.

    Args:
        command: the program and its arguments.
        timeout: the seconds after which the whole process group is killed.
        cwd: the working directory; None: the caller's.
        env: the complete environment; nothing is inherited.
        memory_limit: the bytes of address space that each process may use; None: no limit.
        group: a group through which another thread can kill the command.

    Returns:
        The result, whatever the exit status: an ordinary failure is for the caller to judge.

    Raises:
        ToolchainError: the command could not be started.
        BuildTimeout: it did not end within `timeout` seconds.
        CompilerCrashed: the command, or a program that it started according to its output, was ended by a signal, ran
            out of memory or reported an internal error; the message names the signal.
    """
    argv = list(command)
    if memory_limit is not None:
        # The shell limits itself and then becomes the command. This process could set the limit only too late, or
        # between fork and exec, which is unsafe with threads.
        argv = ["/bin/sh", "-c", 'ulimit -v "$0" && exec "$@"', str(memory_limit // 1024), *argv]
    started = time.monotonic()
    # A file in memory instead of a pipe: it never fills up, and reading it does not wait for processes that outlive the
    # command.
    with os.fdopen(os.memfd_create("output"), "w+b") as output:
        try:
            # No fork elsewhere may happen now: its child would inherit the pipe on whose end Popen waits.
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
    """Wait for the process, kill its group and reap it; return True if its time ran out."""
    ended = threading.Event()

    def watch() -> None:
        # WNOWAIT does not reap the process, so that its number, which is the group's, cannot go to another process
        # before the group is killed. Unlike Popen.wait(timeout), this does not poll.
        # The process is already reaped if an interrupt came while this thread was being started.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ended.set()

    watcher = threading.Thread(target=watch, daemon=True)
    deadline = time.monotonic() + timeout
    try:
        if group:
            group.add(process.pid)
        watcher.start()
        # A signal that arrives right before a wait begins is noticed only when the wait ends, so waits are short.
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
    # The group may have ended already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _crash(program: str, exit_code: int, output: str) -> str | None:
    """Return the reason, as text, if the compiler did not end by itself; None if it did."""
    if exit_code == 0:
        return None
    if _NO_MEMORY.search(output):
        return f"{program} ran out of memory (fewer compilers at a time need less: DIMORPH_JOBS=1)"
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
            "(fewer compilers at a time need less: DIMORPH_JOBS=1)"
        )
    return f"{program} was killed by {signal_name}"
