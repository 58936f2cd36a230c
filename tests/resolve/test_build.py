"""Builds beside other processes: waiting, one limit for all, interrupts, and what the user is told."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.resolve.slots import slot
from dimorph.store import waiting
from dimorph.store.artifact import Artifact
from dimorph.store.store import Store
from support.compilers import GXX
from support.kernels import PICK
from support.store import key_of, result_of, start_child

Copier = Callable[..., dm.Kernel]


@pytest.fixture
def kernel(copy_of: Copier) -> dm.Kernel:
    return copy_of(PICK)


def _slow_compiler(tmp_path: Path, seconds: float) -> Path:
    """Return a compiler that notes its number in a directory while it compiles, and takes at least some seconds."""
    driver, noted = tmp_path / "slow" / "slow-g++", tmp_path / "slow" / "running"
    noted.mkdir(parents=True)
    driver.write_text(
        f'#!/bin/sh\ncase " $* " in *" -shared "*" -o "*) ;; *) exec {GXX} "$@";; esac\n'
        f'echo "$(ls {noted} | wc -l)" > {noted}/$$; echo >> {driver}.log; sleep {seconds}\n'
        f'ls {noted} | wc -l >> {driver}.most; {GXX} "$@"; status=$?; rm {noted}/$$; exit $status\n'
    )
    driver.chmod(0o755)
    return driver


@contextmanager
def _holding(store: Path, keys: list[str], *, stopped: bool = False) -> Iterator[int]:
    """Let another process hold locks of a store; yield its number."""
    script = (
        "import sys, time, contextlib, pathlib\n"
        "from dimorph.store.store import Store\n"
        "with contextlib.ExitStack() as held:\n"
        "    for key in sys.argv[2:]: held.enter_context(Store(pathlib.Path(sys.argv[1])).lock(key))\n"
        "    print('held', flush=True); time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(store), *keys], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        if stopped:
            holder.send_signal(signal.SIGSTOP)
        try:
            yield holder.pid
        finally:
            holder.kill()


def _keys(kernel: dm.Kernel) -> list[str]:
    """Return the keys of the units that a load needs."""
    return [resolution.artifact.meta.key for resolution in kernel.load(width=1, depth=1).resolutions]


@pytest.mark.parametrize("stopped", [False, True])
def test_who_is_waited_for_is_said_and_after_a_limit_the_build_goes_on(
    kernel: dm.Kernel,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stopped: bool,
) -> None:
    keys = _keys(kernel)
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "other"))
    monkeypatch.setenv("DIMORPH_COMPILE_TIMEOUT", "20")
    kernel.load(width=2, depth=2)
    monkeypatch.setenv("DIMORPH_COMPILE_TIMEOUT", "3")
    with _holding(tmp_path / "other", keys, stopped=stopped) as holder:
        assert kernel.load(width=1, depth=1).pick(1, 1) == 1001
    said = [record.getMessage() for record in caplog.records if "another build" in record.getMessage()]
    assert any(text.startswith("dimorph: waiting for another build of pick") for text in said), said
    assert any(text.startswith("dimorph: waited 3 s for another build") for text in said), said
    assert all(f"process {holder} (" in text for text in said), said
    assert all(("which is stopped" in text) == stopped for text in said), said


def test_a_thread_of_this_process_is_named_quietly(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process has announced the compile already; a load of many values would say so for each."""
    caplog.set_level(logging.INFO, "dimorph")
    own, released = Store(store), threading.Event()

    def take() -> None:
        with own.lock(key_of(1)):
            released.set()

    with own.lock(key_of(1)):
        thread = threading.Thread(target=take)
        thread.start()
        time.sleep(1.5)
        assert not released.is_set()
    thread.join(10)
    assert released.is_set()
    said = {record.getMessage(): record.levelname for record in caplog.records}
    assert [level for text, level in said.items() if f"thread of this process ({os.getpid()})" in text] == ["INFO"]
    assert waiting.holder(store / "absent") == "another process"


BUILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
from support.kernels import PICK
print("begun", flush=True)
PICK.build({out!r}, width=[1, 2], depth=[1, 2])
"""


@contextmanager
def _building(tmp_path: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Build a set of five units in another process."""
    script = BUILD.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path / "built"))
    command, environment, pipe = [sys.executable, "-c", script], {**os.environ, **environ}, subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as started:
        assert started.stdout and started.stdout.readline() == "begun\n"
        try:
            yield started
        finally:
            started.kill()


def _all_keys(store: Path) -> list[str]:
    PICK.build(store.parent / "ahead", width=[1, 2], depth=[1, 2], settings=replace(settings.current(), store=store))
    return [entry.meta.key for entry in Store(store).entries() if isinstance(entry, Artifact)]


@pytest.mark.parametrize("stopped", [False, True])
def test_ctrl_c_ends_a_wait_at_once(store: Path, tmp_path: Path, stopped: bool) -> None:
    with (
        _holding(store, _all_keys(tmp_path / "other"), stopped=stopped),
        _building(tmp_path, DIMORPH_JOBS="4") as build,
    ):
        time.sleep(2)
        assert build.poll() is None
        build.send_signal(signal.SIGINT)
        _, errors = build.communicate(timeout=2)
    assert "KeyboardInterrupt" in errors


def _pids(running: Path) -> list[int]:
    return [int(file.name) for file in running.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_compilers_end_with_the_process_and_the_next_build_sweeps(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: dm.Kernel, number: int
) -> None:
    driver = _slow_compiler(tmp_path, 100)
    with _building(tmp_path, DIMORPH_CXX=str(driver), DIMORPH_JOBS="2") as build:
        deadline = time.monotonic() + 30
        while len(pids := _pids(driver.parent / "running")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        build.send_signal(number)
        build.wait(5)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < deadline, "a compiler lives on"
        time.sleep(0.02)
    left = [*(store / "tmp").iterdir(), *(store / "locks").iterdir()]
    assert bool(left) == (number != signal.SIGINT), left
    kernel.load(width=1, depth=1)
    assert [*(store / "tmp").iterdir(), *(store / "locks").iterdir()] == []


def test_one_limit_for_all_processes(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = _slow_compiler(tmp_path, 0.2)
    monkeypatch.setenv("DIMORPH_CXX", str(driver))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("dimorph.toolchain.jobs._free_memory", lambda: None)

    def rank(number: int) -> Callable[[], int]:
        return lambda: len(PICK.build(tmp_path / f"{number}", width=[number], depth=[1, 2]).artifacts)

    ranks = [start_child(rank(number)) for number in range(1, 5)]
    assert [result_of(one) for one in ranks] == [3, 3, 3, 3]
    most = [int(line) for line in Path(f"{driver}.most").read_text().split()]
    assert len(most) >= 8
    assert max(most) <= 2


def test_processes_with_processors_of_their_own_do_not_wait_for_each_other(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = settings.current()
    monkeypatch.setattr("dimorph.toolchain.jobs._free_memory", lambda: None)

    def refused() -> None:
        raise AssertionError("all slots are taken")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with slot(Store(store), used, refused):
        with pytest.raises(AssertionError, match="all slots"), slot(Store(store), used, refused):
            pass
        with slot(Store(store), replace(used, jobs=2), refused):
            pass
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
        with slot(Store(store), used, refused):
            pass


def test_a_slot_is_not_waited_for_without_end(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    used = replace(settings.current(), jobs=1, compile_timeout=0.3)
    ticks: list[int] = []
    with slot(Store(store), used, lambda: None), slot(Store(store), used, lambda: ticks.append(1)):
        assert ticks
    assert "compiling beside them" in caplog.text


def test_where_nothing_can_be_locked_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    impossible = Store(tmp_path / "file" / "store")
    used = replace(settings.current(), jobs=1)
    with slot(impossible, used, lambda: None), slot(impossible, used, lambda: None):
        pass


# --- Compilers that cannot be used ---


def _old_compiler(directory: Path, name: str = "g++", version: str = "4.8.5") -> Path:
    """Return a GCC that does not know our flags, as an old one."""
    program = directory / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\ncase "$*" in --version) echo "g++ (GCC) {version} 20150623 (Red Hat)"; exit;;\n'
        '*-march=*) echo "g++: error: unrecognized command line option -march"; exit 1;; esac\n'
        f'echo "$@" >> "$0.asked"; exec {GXX} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_a_compiler_that_is_too_old_gives_way_to_the_next(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = _old_compiler(tmp_path / "bin")
    (tmp_path / "bin/c++").symlink_to(GXX)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    used = kernel.load(width=1, depth=1).resolutions
    assert all(str(old) not in one.artifact.meta.toolchain for one in used)
    asked = Path(f"{old}.asked").read_text()
    again = kernel.load(width=2, depth=1)
    assert again.pick(2, 1) == 2001
    assert [one.place.partition(" ")[0] for one in kernel.load(width=1, depth=1).resolutions] == ["store", "store"]
    assert Path(f"{old}.asked").read_text() == asked, "the old compiler is not started again"


def test_a_build_ahead_of_time_passes_over_a_compiler_that_is_too_old(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _old_compiler(tmp_path / "bin", version="10.2.1")
    (tmp_path / "bin/c++").symlink_to(GXX)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    made = kernel.build(tmp_path / "out", width=1, depth=1).artifacts
    assert made and all("10.2.1" not in artifact.meta.toolchain for artifact in made)


@pytest.mark.parametrize("by", ["DIMORPH_CXX", "CXX"])
def test_a_named_compiler_that_is_too_old_is_told_by_its_version(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    old = _old_compiler(tmp_path / "bin", "g++-4.8")
    monkeypatch.setenv(by, str(old))
    for _ in range(2):
        with pytest.raises(dm.MissingSpecialization, match=r"g\+\+-4.8 is GCC 4 .*or newer is needed"):
            kernel.load(width=1, depth=1)


def test_a_mistake_is_the_sources_with_a_new_compiler(kernel: dm.Kernel, tmp_path: Path) -> None:
    (kernel.root / "pick_case.cc").write_text("mistake\n")
    with pytest.raises(dm.BuildError, match="mistake"):
        kernel.load(width=1, depth=1)


def test_a_target_of_another_machine_is_told(
    kernel: dm.Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    level = "armv8" if os.uname().machine == "x86_64" else "x86-64-v3"
    monkeypatch.setenv("DIMORPH_TARGET", level)
    with pytest.raises(dm.MissingSpecialization, match=f"{level} is for .*, and nothing compiled for it can be loaded"):
        kernel.load(width=1, depth=1)
    monkeypatch.delenv("DIMORPH_TARGET")
    with pytest.raises(dm.ToolchainError, match="name a compiler for it in DIMORPH_CXX"):
        kernel.build(tmp_path / "out", targets=[level])


def test_a_compiler_that_prints_nothing_is_told_from_one_that_cannot_start(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "some-g++"
    monkeypatch.setenv("DIMORPH_CXX", str(driver))
    for code, error, expected in (
        ("exit 3", dm.BuildError, "the compiler printed no error"),
        ("exec /no/such/program", dm.ToolchainError, "cannot start .*some-g.*no/such/program"),
        ('echo "cc1plus: error while loading shared libraries: libisl.so"; exit 1', dm.ToolchainError, "libisl"),
    ):
        driver.write_text(f'#!/bin/sh\ncase " $* " in *" -shared "*) {code};; *) exec {GXX} "$@";; esac\n')
        driver.chmod(0o755)
        with pytest.raises(error, match=f"(?s){expected}"):
            kernel.load(width=1, depth=1)


# --- Text that is not UTF-8 ---


def test_sources_paths_and_messages_of_any_bytes(copy_of: Copier, tmp_path: Path) -> None:
    made = copy_of(PICK)
    root = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    made.root.rename(root)
    kernel = replace_root(made, root)
    source = root / "pick_case.cc"
    source.write_bytes(b"// caf\xe9\n" + source.read_bytes())
    assert kernel.load(width=1, depth=1).pick(1, 1) == 1001
    source.write_bytes(source.read_bytes() + b'\nstatic_assert(false, "caf\xe9");\n')
    with pytest.raises(dm.BuildError, match=r"pick_case\.cc"):
        kernel.load(width=1, depth=1)


def replace_root(kernel: dm.Kernel, root: Path) -> dm.Kernel:
    return dm.Kernel(name=kernel.name, entry=kernel.entry, case=kernel.case, axes=kernel.axes, root=root)


# --- What the user is told ---


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "compil" in record.getMessage()]


def test_a_build_that_takes_long_says_what_and_why(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DIMORPH_CXX", str(_slow_compiler(tmp_path, 2)))
    monkeypatch.setenv("DIMORPH_JOBS", "4")
    kernel.load(width=1, depth=1)
    (line,) = _lines(caplog)
    assert line.startswith("dimorph: compiling pick")
    assert f"1 more, because it is in no store: packaged ({kernel.root}" in line
    assert f"store ({store}): not there" in line


def test_a_quick_build_says_nothing(kernel: dm.Kernel, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    kernel.load(width=1, depth=1)
    if time.monotonic() - started < 1:
        assert _lines(caplog) == []


def test_many_compiles_tell_of_their_progress(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each takes less than a second."""
    monkeypatch.setenv("DIMORPH_CXX", str(_slow_compiler(tmp_path, 0.6)))
    monkeypatch.setenv("DIMORPH_JOBS", "1")
    kernel.build(tmp_path / "out", width=[1, 2], depth=[1, 2, 3])
    lines = _lines(caplog)
    assert lines[0].startswith("dimorph: compiling pick") and "6 more" in lines[0]
    assert any(line.startswith("dimorph: compiled ") and line.endswith(" of 7") for line in lines[1:])
    assert len(lines) < 7


@pytest.mark.parametrize(
    ("level", "expected", "absent"),
    [
        ("", "dimorph: compiling pick", "INFO"),
        ("off", "", "compiling"),
        ("info", "pick", "DEBUG"),
        ("debug", "-fPIC", "\x00"),
    ],
)
def test_the_setting_chooses_what_standard_error_tells(tmp_path: Path, level: str, expected: str, absent: str) -> None:
    with _building(tmp_path, DIMORPH_LOG=level, DIMORPH_CXX=str(_slow_compiler(tmp_path, 2))) as build:
        _, errors = build.communicate(timeout=120)
    assert build.returncode == 0, errors
    assert expected in errors
    assert absent not in errors
    assert bool(errors) == (level != "off")
