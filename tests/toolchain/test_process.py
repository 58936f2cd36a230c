"""Running commands: output, time limits, crashes, and processes that must not survive."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dimorph._fork import no_fork
from dimorph.errors import BuildTimeout, CompilerCrashed, ToolchainError
from dimorph.toolchain import process
from support.store import in_child, result_of, start_child

_ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}


def _sh(script: str, timeout: float = 30.0) -> process.Completed:
    return process.run(["/bin/sh", "-c", script], timeout=timeout, cwd=None, env=_ENV)


def _is_dead(pid: int) -> bool:
    """Return True if the process ends within a few seconds; a zombie that nobody reaps counts as ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_output_comes_in_order_and_a_refusal_is_a_result() -> None:
    done = _sh("echo one; echo two >&2; echo three; exit 3")
    assert (done.output, done.exit_code) == ("one\ntwo\nthree\n", 3)
    assert done.command[0] == "/bin/sh"
    assert 0 < done.seconds < 10


def test_environment_is_exactly_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPATH", "/somewhere")
    done = process.run(["/usr/bin/env"], timeout=10, cwd=None, env={"ONLY": "this"})
    assert done.output == "ONLY=this\n"


def test_runs_in_the_given_directory_with_empty_input(tmp_path: Path) -> None:
    done = process.run(["/bin/sh", "-c", "pwd -P; cat"], timeout=10, cwd=tmp_path, env=_ENV)
    assert done.output == f"{tmp_path.resolve()}\n"


def test_much_output_on_both_streams_does_not_block() -> None:
    script = "import sys; [(sys.stdout.write('o' * 65536), sys.stderr.write('e' * 65536)) for _ in range(64)]"
    done = process.run([sys.executable, "-c", script], timeout=60, cwd=None, env=_ENV)
    assert (done.output.count("o"), done.output.count("e")) == (64 * 65536, 64 * 65536)


def test_output_that_is_not_text_is_kept_readable() -> None:
    assert _sh(r"printf 'a\377b'").output == "a\N{REPLACEMENT CHARACTER}b"


def test_time_out_kills_the_whole_group() -> None:
    with pytest.raises(BuildTimeout) as caught:
        _sh("sleep 300 & echo $!; wait", timeout=0.4)
    assert "0.4 s" in str(caught.value)
    assert "sleep 300" in str(caught.value)
    assert caught.value.command[0] == "/bin/sh"
    assert _is_dead(int(caught.value.output))


def test_what_outlives_the_command_is_not_waited_for() -> None:
    done = _sh("sleep 300 & echo $!")
    assert done.seconds < 10
    assert _is_dead(int(done.output))


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        # A shell that runs the tests in the background makes them ignore interrupts.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dimorph.toolchain import process\n"
        f"process.run(['/bin/sh', '-c', 'echo $$ > {pid_file}.new && mv {pid_file}.new {pid_file}; sleep 300'],"
        " timeout=300, cwd=None, env={})"
    )
    path = str(Path(process.__file__).parents[2])
    caller = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    while not pid_file.exists():
        assert caller.poll() is None
        time.sleep(0.02)
    caller.send_signal(signal.SIGINT)
    _, errors = caller.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert _is_dead(int(pid_file.read_text()))


@pytest.mark.parametrize("moment", ["as it is started", "as the wait begins"])
def test_an_interrupt_at_a_bad_moment_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, moment: str, tmp_path: Path
) -> None:
    """The number of the started process may be unknown then."""
    real, pid_file = os.posix_spawn, tmp_path / "pid"

    def spawn(*args: Any, **options: Any) -> int:
        started = real(*args, **options)
        while not pid_file.exists():
            time.sleep(0.01)
        if moment == "as it is started":
            raise KeyboardInterrupt
        return started

    class Interrupted:
        def register(self, descriptor: int, events: int) -> None:
            pass

        def poll(self, milliseconds: float) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_spawn", spawn)
    if moment == "as the wait begins":
        monkeypatch.setattr("select.poll", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        _sh(f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300")
    assert _is_dead(int(pid_file.read_text()))


@pytest.mark.parametrize(("name", "number"), [("SEGV", 11), ("ABRT", 6), ("KILL", 9)])
def test_death_by_signal_is_told_apart(name: str, number: int) -> None:
    with pytest.raises(CompilerCrashed, match=f"/bin/sh was killed by SIG{name}") as caught:
        _sh(f"echo before; kill -{name} $$")
    assert caught.value.exit_code == -number
    assert caught.value.output == "before\n"
    assert ("memory" in str(caught.value)) == (name == "KILL")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g++: fatal error: Killed signal terminated program cc1plus", "cc1plus was killed by SIGKILL, .*memory"),
        ("g++: internal compiler error: Killed (program cc1plus)", "cc1plus was killed by SIGKILL, .*memory"),
        (
            "g++: internal compiler error: Segmentation fault signal terminated program cc1plus",
            "cc1plus was killed by SIGSEGV:",
        ),
        ("clang: error: unable to execute command: Killed", "/bin/sh was killed by SIGKILL, .*memory"),
        ("clang: error: unable to execute command: Bus error (core dumped)", "killed by SIGBUS:"),
        ("cc1plus: out of memory allocating 65536 bytes after a total of 1 bytes", "ran out of memory"),
        ("virtual memory exhausted: Cannot allocate memory", "ran out of memory"),
        ("LLVM ERROR: out of memory", "ran out of memory"),
        ("/usr/bin/ld: final link failed: memory exhausted", "ran out of memory"),
        ("a.cc:3:1: internal compiler error: in foo, at bar.cc:7", "failed .*internal compiler error: in foo"),
    ],
)
def test_a_compilers_report_of_a_crash_is_understood(text: str, expected: str) -> None:
    with pytest.raises(CompilerCrashed, match=expected) as caught:
        _sh(f"echo '{text}' >&2; exit 1")
    assert caught.value.exit_code == 1
    assert caught.value.output == text + "\n"


def test_a_shell_that_reports_a_signal_is_understood() -> None:
    with pytest.raises(CompilerCrashed, match="SIGSEGV"):
        _sh("sh -c 'kill -SEGV $$'; exit $?")


@pytest.mark.parametrize(
    "text",
    [
        "a.cc:3:1: error: static assertion failed: out of memory",
        "a.cc:3:1: error: static assertion failed: Killed signal terminated program cc1plus",
    ],
)
def test_the_same_words_in_a_mistake_are_no_crash(text: str) -> None:
    assert _sh(f"echo '{text}' >&2; exit 1").exit_code == 1


def test_memory_limit_is_in_force_from_the_start() -> None:
    script = ["-c", "import sys; sys.stdout.write('up'); sys.stdout.flush(); bytearray(600 << 20); print('big')"]
    free = process.run([sys.executable, *script], timeout=60, cwd=None, env=_ENV)
    assert free.output == "upbig\n"
    tight = process.run([sys.executable, *script], timeout=60, cwd=None, env=_ENV, memory_limit=500 << 20)
    assert tight.exit_code == 1
    assert "MemoryError" in tight.output
    assert tight.command == (sys.executable, *script)


def test_a_real_compiler_out_of_memory_is_told_apart(tmp_path: Path) -> None:
    program = shutil.which("g++")
    if program is None:
        pytest.skip("g++ is not installed")
    source = tmp_path / "a.cc"
    source.write_text("#include <iostream>\n#include <map>\n#include <regex>\n")
    command = [program, "-fsyntax-only", str(source)]
    assert process.run(command, timeout=60, cwd=None, env=_ENV).exit_code == 0
    with pytest.raises(CompilerCrashed, match=r"ran out of memory .*DIMORPH_JOBS=1"):
        process.run(command, timeout=60, cwd=None, env=_ENV, memory_limit=64 << 20)


def test_a_command_that_cannot_be_started_is_named() -> None:
    with pytest.raises(ToolchainError, match="cannot start '/no/such/compiler'"):
        process.run(["/no/such/compiler"], timeout=1, cwd=None, env={})


def test_a_fork_while_a_command_is_started_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forked child inherits every pipe that exists when the command is started."""
    spawn, forked = os.posix_spawn, []

    def forking(*args: Any, **options: Any) -> int:
        forked.append(start_child(lambda: time.sleep(5) or True))
        return spawn(*args, **options)

    monkeypatch.setattr(os, "posix_spawn", forking)
    done = _sh("sleep 300 & echo $!; exit 3")
    assert done.exit_code == 3 and done.seconds < 4
    assert _is_dead(int(done.output))
    assert result_of(forked[0])


def _no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_SHELL", "/no/such/shell")


@pytest.mark.parametrize("shell", [True, False])
def test_a_replacement_of_popen_that_forks_in_this_thread(monkeypatch: pytest.MonkeyPatch, shell: bool) -> None:
    """As gevent's: it forks by `os.fork`, whose hooks run in the thread that starts the command."""
    if not shell:
        _no_shell(monkeypatch)

    class Forking:
        def __init__(self, args: list[str], **options: Any) -> None:
            with Path(os.devnull).open("rb") as null:
                self.pid = os.fork()
                if not self.pid:
                    os.dup2(null.fileno(), 0)
                    os.dup2(options["stdout"], 1)
                    os.setsid()
                    os.execve(args[0], args, options["env"])

    monkeypatch.setattr(subprocess, "Popen", Forking)

    def child() -> list[Any]:
        done = _sh("echo done; exit 3")
        return [done.output, done.exit_code]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_child, child).result(timeout=60) == ["done\n", 3]


def test_a_signal_handler_may_fork_while_forks_are_held_up() -> None:
    """The handler runs in the thread that holds the lock, so it cannot wait for it."""

    def child() -> bool:
        with no_fork:
            return bool(in_child(lambda: True))

    forked = start_child(child)
    for _ in range(300):
        if os.waitid(os.P_PID, forked[0], os.WEXITED | os.WNOWAIT | os.WNOHANG):
            break
        time.sleep(0.1)
    else:
        os.kill(forked[0], signal.SIGKILL)
    assert result_of(forked) is True


def _ignore() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _reap_in_handler() -> None:
    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    signal.signal(signal.SIGCHLD, reap)


def _reap_in_thread() -> None:
    def reap() -> None:
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.0001)

    threading.Thread(target=reap, daemon=True).start()


@pytest.mark.parametrize("reaping", [_ignore, _reap_in_handler, _reap_in_thread])
def test_the_exit_status_is_known_where_others_reap_children(reaping: Callable[[], None]) -> None:
    def child() -> list[Any]:
        reaping()
        refused = _sh("sh -c 'sleep 0.05; exit 7' || exit $?")
        try:
            _sh("sleep 0.05; kill -KILL $$")
        except CompilerCrashed as error:
            return [refused.exit_code, error.exit_code]
        return [refused.exit_code, 0]

    assert in_child(child) == [7, -9]


@pytest.mark.parametrize("reaping", [_ignore, _reap_in_thread])
def test_an_unknown_exit_status_is_no_success(monkeypatch: pytest.MonkeyPatch, reaping: Callable[[], None]) -> None:
    """Without a shell, nobody else reports the status."""
    _no_shell(monkeypatch)

    def child() -> str:
        reaping()
        try:
            return str(_sh("sleep 0.05; exit 0").exit_code)
        except CompilerCrashed as error:
            return str(error)

    assert "another part of this process waited for it" in in_child(child)


def test_a_supervisor_that_is_killed_is_no_success() -> None:
    with pytest.raises(CompilerCrashed, match="was killed"):
        _sh("kill -KILL $PPID; sleep 1")


@pytest.mark.parametrize("timeout", [0.4, 30.0])
def test_without_a_shell_commands_run_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timeout: float) -> None:
    _no_shell(monkeypatch)
    done = process.run(["/bin/sh", "-c", "pwd; exit 5"], timeout=10, cwd=tmp_path, env=_ENV)
    assert (done.output, done.exit_code) == (f"{tmp_path}\n", 5)
    with pytest.raises(CompilerCrashed, match="SIGSEGV"):
        _sh("kill -SEGV $$")
    with pytest.raises(ToolchainError, match="cannot start"):
        process.run(["/no/such/compiler"], timeout=1, cwd=None, env={})
    if timeout < 1:
        with pytest.raises(BuildTimeout):
            _sh("sleep 300", timeout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_end_of_this_process_ends_its_commands(number: int, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def child() -> None:
        # A child of the caller must not keep the command alive.
        if not os.fork():
            time.sleep(20)
            os._exit(0)
        _sh(f"sleep 300 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait")

    caller, _ = start_child(child)
    while not pid_file.exists():
        time.sleep(0.02)
    os.kill(caller, number)
    os.waitpid(caller, 0)
    assert _is_dead(int(pid_file.read_text()))


def test_a_time_out_kills_what_left_the_group() -> None:
    """A program that starts itself again and again, each time in a new session, as frozen applications did."""
    with pytest.raises(BuildTimeout) as caught:
        _sh("setsid sh -c 'setsid sleep 300 & echo $!; echo $$; wait' & echo $!; wait", timeout=1.0)
    numbers = [int(word) for word in caught.value.output.split()]
    assert len(numbers) == 3
    assert all(_is_dead(number) for number in numbers)


def test_descriptors_of_this_process_are_not_passed_on(tmp_path: Path) -> None:
    """Also those that C code opened without the flag that closes them."""
    opened = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(opened, True)
    try:
        assert _sh("ls /proc/self/fd").output.split() == ["0", "1", "2", "3"]  # the last is the directory listed
    finally:
        os.close(opened)


def test_low_descriptors_that_are_free_are_used_well() -> None:
    """A daemon may have closed its standard streams, whose numbers are given to the next files."""

    def child() -> list[Any]:
        for number in (0, 1, 2):
            os.close(number)
        done = _sh("cat; echo out; echo err >&2; exit 3")
        return [done.output, done.exit_code]

    assert in_child(child) == ["out\nerr\n", 3]


def test_variables_reach_the_command_and_not_the_shell() -> None:
    """With LD_TRACE_LOADED_OBJECTS the shell itself would only list its libraries."""
    traced = process.run(["/bin/cat"], timeout=10, cwd=None, env={"LD_TRACE_LOADED_OBJECTS": "1"})
    assert "libc.so" in traced.output
    odd = {"QUOTED": "a 'b' \"c\" $HOME\n\\", "EMPTY": ""}
    done = process.run([sys.executable, "-c", "import os; print(dict(os.environ))"], timeout=10, cwd=None, env=odd)
    assert {**eval(done.output), **odd} == eval(done.output)


@pytest.mark.parametrize("how", ["absent", "refused"])
def test_output_goes_to_the_disk_where_no_file_in_memory_can_be_made(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def refused(*_: object) -> int:
        raise OSError("not implemented")

    if how == "absent":
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(os, "memfd_create", refused)
    assert _sh("echo out").output == "out\n"


def test_threads_that_cannot_be_started_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert _sh("echo out").output == "out\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 127", "exit status 127, no output"),
        ("echo 'no interpreter'; exit 126", "exit status 126, no interpreter"),
        ("echo 'cc1plus: error while loading shared libraries: libmpfr.so.4: none'; exit 1", "libmpfr"),
    ],
)
def test_a_program_that_cannot_start_is_told_from_one_that_refuses(script: str, expected: str) -> None:
    with pytest.raises(ToolchainError, match=rf"(?s)cannot start.*{expected}.*DIMORPH_COMPILER_ENV"):
        _sh(script)


def test_an_interpreter_that_is_missing_is_no_refusal(tmp_path: Path) -> None:
    script = tmp_path / "compiler"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(ToolchainError, match="cannot start"):
        process.run([str(script)], timeout=10, cwd=None, env=_ENV)
    script.chmod(0o644)
    with pytest.raises(ToolchainError, match="cannot start"):
        process.run([str(script)], timeout=10, cwd=None, env=_ENV)


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"cannot start.*working directory"):
        process.run(["/bin/true"], timeout=10, cwd=tmp_path / "gone", env=_ENV)


def test_paths_of_any_bytes(tmp_path: Path) -> None:
    directory = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    directory.mkdir()
    done = process.run(["/bin/pwd"], timeout=10, cwd=directory, env=_ENV, errors="surrogateescape")
    assert done.output == f"{directory}\n"


def test_runs_side_by_side_in_threads() -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda i: _sh(f"sleep 0.5; echo {i}").output, range(16)))
    assert outputs == [f"{i}\n" for i in range(16)]
    assert time.monotonic() - started < 6
