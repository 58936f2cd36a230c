"""Running commands: output, time limits, crashes, and processes that must not survive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dimorph.errors import BuildTimeout, CompilerCrashed, ToolchainError
from dimorph.toolchain import process
from support.store import result_of, start_child

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


def test_an_interrupt_while_the_wait_begins_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    real = subprocess.Popen

    def popen(*args: Any, **options: Any) -> Any:
        child = real(*args, **options)
        started.append(child.pid)
        return child

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _sh("sleep 300")
    assert _is_dead(started[0])


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
    """The fork happens when the pipe exists whose end reports a successful start, before the command is started."""
    pipe, opened, main = os.pipe, threading.Event(), threading.get_ident()

    def slow_pipe() -> tuple[int, int]:
        ends = pipe()
        if threading.get_ident() != main:
            opened.set()
            time.sleep(0.3)
        return ends

    def child() -> bool:
        time.sleep(5)
        return True

    monkeypatch.setattr(os, "pipe", slow_pipe)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_sh, "echo done")
        assert opened.wait(30)
        forked = start_child(child)
        assert running.result(timeout=3).output == "done\n"
        assert result_of(forked)


def test_runs_side_by_side_in_threads() -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda i: _sh(f"sleep 0.5; echo {i}").output, range(16)))
    assert outputs == [f"{i}\n" for i in range(16)]
    assert time.monotonic() - started < 6
