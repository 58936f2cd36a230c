"""Run a command to its end; the only module of the project that starts processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shlex
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dimorph._fork import no_fork
from dimorph.errors import BuildTimeout, CompilerCrashed, ToolchainError, no_descriptors
from dimorph.toolchain.crashes import SIGNALS, crash
from dimorph.toolchain.process_tree import kill_group, kill_tree

_SHELL = "/bin/sh"
# The program that starts a command, watches over it, and reports its exit status.
# - The exit status comes through a pipe (descriptor 4), because only the process that starts a command knows it for
#   sure: in the caller's process anybody may wait for children, or ignore their end, and the status is lost.
# - Descriptor 3 is a pipe that ends when the caller ends, however it ends; then the whole group is killed.
# - The shell itself runs without the command's environment, which may hold LD_PRELOAD and the like.
# Its arguments: memory limit in KiB or empty, working directory or empty, number of variables, variables, command.
_SUPERVISOR = r"""
limit=$1 directory=$2 count=$3
shift 3
{ read -r end <&3; kill -s KILL 0; } 4>&- >/dev/null 2>&1 &
if [ -n "$directory" ]; then cd -- "$directory" || { echo working directory >&4; exit; }; fi
while [ "$count" -gt 0 ]; do export "$1"; shift; count=$((count - 1)); done
if [ -n "$limit" ]; then ulimit -v "$limit" || { echo memory limit >&4; exit; }; fi
unset limit directory count PWD OLDPWD SHLVL
(exec "$@" 2>&1 3<&- 4>&-)
echo "$?" >&4
"""
# The exit statuses with which shells and loaders report that a program cannot be started.
_NOT_STARTED = (126, 127)
_NOT_LOADED = re.compile(r"^\S+: error while loading shared libraries: ", re.M)
# Signals that a caller may ignore, which a child would inherit: compilers have to wait for their children.
_TO_RESET = (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)

_lifelines: set[int] = set()
"""The write ends of the pipes that tell supervisors that this process lives."""


def _drop_inherited() -> None:
    """Close the parent's pipes in a forked child, which would otherwise keep compilers alive after the parent's end."""
    for end in _lifelines:
        os.close(end)
    _lifelines.clear()


os.register_at_fork(after_in_child=_drop_inherited)


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
    """A group of commands that another thread can kill together.

    Attributes:
        ended: True after `end`.
    """

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        """Make an empty group.

        Args:
            tick: called about twice a second while a command of the group runs, by the thread that waits for it.
        """
        self.ended = False
        self.tick = tick
        self._running: set[int] = set()
        self._lock = threading.Lock()

    def end(self) -> None:
        """Kill all running commands of the group, and every command that is added later."""
        with self._lock:
            self.ended = True
            for leader in self._running:
                kill_tree(leader)

    def add(self, leader: int) -> None:
        """Add a process group, given by its number."""
        with self._lock:
            self._running.add(leader)
            if self.ended:
                kill_tree(leader)

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
    errors: str = "replace",
) -> Completed:
    """Run `command` with an empty standard input and exactly the environment `env`, and wait for its end.

    May be called from several threads at once; it starts none. All processes left in the command's process group are
    killed when the command ends and when this process ends. All its descendants are killed, in whatever group, when
    its time is up and when this call is interrupted.

    The command is started by `posix_spawn` and a shell. No library that replaces `fork` or `subprocess` takes part, and
    nobody else in this process can take the exit status. Where there is no /bin/sh, the command is started directly,
    without these properties.

    Args:
        command: the program and its arguments.
        timeout: the seconds after which the command and its descendants are killed.
        cwd: the working directory; None: the caller's.
        env: the complete environment; nothing is inherited.
        memory_limit: the bytes of address space that each process may use; None: no limit. Needs /bin/sh.
        group: a group through which another thread can kill the command.
        errors: how output that is not UTF-8 is decoded: `replace`, or `surrogateescape` to keep paths usable.

    Returns:
        The result, whatever the exit status: an ordinary failure is for the caller to judge.

    Raises:
        ToolchainError: the command could not be started, or a program that it started lacks a shared library.
        OSError: no file descriptor is left.
        BuildTimeout: it did not end within `timeout` seconds.
        CompilerCrashed: the command, or a program that it started according to its output, was ended by a signal, ran
            out of memory or reported an internal error, and the message says which; or its exit status is unknown.
    """
    started = time.monotonic()
    where = f"process.run: cannot start {command[0]!r} (working directory {cwd})"
    child = _Supervised() if os.access(_SHELL, os.X_OK) else _Direct()
    try:
        if "/" in command[0]:
            # A shell would only report this in words of its own.
            Path(cwd or ".", command[0]).stat()
        with _file_in_memory() as output:
            try:
                child.start(command, cwd, env, memory_limit, output.fileno())
                expired = child.wait(timeout, group)
            finally:
                child.end(group)
            output.seek(0)
            text = output.read().decode("utf-8", errors)
    except OSError as error:
        if no_descriptors(error):
            raise
        raise ToolchainError(f"{where}: {error}") from error
    if expired:
        raise BuildTimeout(
            f"{command[0]} did not end within {timeout:g} s and was killed: {shlex.join(command)}",
            command=command,
            output=text,
        )
    exit_code = child.exit_code
    if exit_code is None:
        raise CompilerCrashed(
            f"{command[0]} was killed, or another part of this process waited for it and has its exit status: "
            f"{shlex.join(command)}",
            command=command,
            output=text,
        )
    if exit_code in _NOT_STARTED or (exit_code and _NOT_LOADED.search(text)):
        raise ToolchainError(
            f"{where}: exit status {exit_code}, {text.strip()[-500:] or 'no output'}\n"
            "If it needs a variable of your environment, such as LD_LIBRARY_PATH, name it in DIMORPH_COMPILER_ENV"
        )
    if reason := crash(command[0], exit_code, text):
        message = f"{reason}: {shlex.join(command)}"
        raise CompilerCrashed(message, command=command, exit_code=exit_code, output=text)
    return Completed(tuple(command), exit_code, text, time.monotonic() - started)


class _Direct:
    """A command started without a shell; its exit status is lost if another part of this process waits for it.

    Attributes:
        exit_code: the exit status, or the negated number of the signal that ended it; None: not ended, or unknown.
    """

    _patience = 0.02  # seconds between two looks at the process

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._pid = 0
        self._finished = False

    def start(
        self, command: Sequence[str], cwd: Path | None, env: Mapping[str, str], memory_limit: int | None, output: int
    ) -> None:
        """Start the command with its output going to a descriptor; raise OSError if it cannot be started."""
        import subprocess

        started = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
        self._pid, started.returncode = started.pid, 0  # so that Popen leaves the process to this object

    def wait(self, timeout: float, group: Group | None) -> bool:
        """Wait for the end of the command; return True if its time ran out."""
        if group:
            group.add(self._pid)
        deadline = ticked = time.monotonic()
        deadline += timeout
        while not self._has_ended(max(0.0, min(self._patience, deadline - time.monotonic()))):
            now = time.monotonic()
            if now >= deadline:
                return True
            if group and now - ticked >= _TICK:
                group.tick()
                ticked = now
        self._finished = True
        return False

    def end(self, group: Group | None) -> None:
        """Kill all that is left of the command, and reap it."""
        if not self._pid:
            return
        if not self._finished:
            kill_tree(self._pid)
        kill_group(self._pid)
        if group:
            group.remove(self._pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _has_ended(self, patience: float) -> bool:
        """Return True, with `exit_code` set, if the command has ended; wait up to `patience` seconds for that."""
        time.sleep(patience)
        try:
            # The process is not reaped yet, so that its number, which is the group's, stays its own.
            ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return True
        if ended:
            exited = ended.si_code == os.CLD_EXITED
            self.exit_code = _by_signal(ended.si_status) if exited else -ended.si_status
        return ended is not None


class _Supervised(_Direct):
    """A command started by the supervisor, a shell, which reports its exit status through a pipe."""

    _patience = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._status = self._lifeline = -1
        self._poller = select.poll()

    def start(
        self, command: Sequence[str], cwd: Path | None, env: Mapping[str, str], memory_limit: int | None, output: int
    ) -> None:
        """Start the supervisor with the command; raise OSError if it cannot be started."""
        limit = "" if memory_limit is None else str(memory_limit // 1024)
        variables = [f"{name}={value}" for name, value in env.items()]
        words = [_SHELL, "-c", _SUPERVISOR, _SHELL, limit, str(cwd or ""), str(len(variables)), *variables, *command]
        with contextlib.ExitStack() as opened:

            def high(descriptor: int) -> int:
                # Beyond those that the child gets, so that none is overwritten before it is copied.
                copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 16)
                opened.callback(os.close, copy)
                return copy

            self._status, status = os.pipe()
            opened.callback(os.close, status)
            # No fork may happen in between: its child would hold the pipe open for as long as it lives.
            with no_fork:
                lifeline, self._lifeline = os.pipe()
                _lifelines.add(self._lifeline)
            opened.callback(os.close, lifeline)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, null)
            # The shell's own messages, such as "Killed", are no output of the command.
            given = [high(null), high(output), high(null), high(lifeline), high(status)]
            actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, other) for other in _inheritable()]
            actions += [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in enumerate(given)]
            # A process group of its own; a session would need a Python built for glibc 2.26.
            self._pid = os.posix_spawn(
                _SHELL, words, {}, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=_TO_RESET
            )
        self._poller.register(self._status, select.POLLIN)

    def end(self, group: Group | None) -> None:
        """Kill all that is left of the command, and reap the supervisor."""
        # The number of the process group belongs to it while the lifeline is open, because a member waits at its end.
        super().end(group)
        if self._lifeline >= 0:
            with no_fork:
                _lifelines.discard(self._lifeline)
                os.close(self._lifeline)
        if self._status >= 0:
            os.close(self._status)

    def _has_ended(self, patience: float) -> bool:
        if not self._poller.poll(patience * 1000):
            # The pipe also has no end while a process forked from this one holds it open.
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                    return False
            if not self._poller.poll(0):
                return True
        said = os.read(self._status, 64).decode("ascii").strip()
        if said in _SUPERVISOR_FAILS:
            raise OSError(f"the {said} cannot be set")
        if said:
            self.exit_code = _by_signal(int(said))
        return True


_TICK = 0.5  # seconds between two calls of Group.tick
_SUPERVISOR_FAILS = ("working directory", "memory limit")


def _by_signal(exit_status: int) -> int:
    """Return the negated number of a signal for the exit status by which shells report one."""
    return 128 - exit_status if exit_status - 128 in SIGNALS else exit_status


def _file_in_memory() -> BinaryIO:
    """Return a new file for output; on the disk where the system or Python has no files in memory."""
    try:
        return os.fdopen(os.memfd_create("output"), "w+b")
    except (AttributeError, OSError) as error:
        if no_descriptors(error):
            raise
        import tempfile

        return tempfile.TemporaryFile()


def _inheritable() -> list[int]:
    """Return the descriptors above standard error that a child would inherit, such as those opened by C code."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are numbers)
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
