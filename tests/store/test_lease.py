"""Leases, which stand in for locks that fail or end at the border of a machine: one holder, which is seen to live."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dimorph.store import lease
from dimorph.store.lease import Watch
from dimorph.store.store import Store
from dimorph.store.waiting import Waiting
from support.compilers import Compiler
from support.kernels import PICK
from support.store import in_child, key_of, result_of, start_child, tree

# What the locks of a file system do.
LOCKS = ("work", "unsupported", "ignored")


@pytest.fixture(params=LOCKS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make locks work, fail, or exclude nobody, as on file systems of several machines."""
    return with_locks(request.param, monkeypatch)


@pytest.fixture(params=LOCKS[1:])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    return with_locks(request.param, monkeypatch)


def with_locks(kind: str, monkeypatch: pytest.MonkeyPatch) -> str:
    def flock(_fd: int, _operation: int) -> None:
        if kind == "unsupported":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if kind != "work":
        monkeypatch.setattr(fcntl, "flock", flock)
        monkeypatch.setattr("dimorph.store.directory.needed", lambda _: True)
    return kind


def path_of(store: Store, key: int = 1) -> Path:
    return store.root / "locks" / f"{key_of(key)}.lease"


def left_by(store: Store, machine: str, process: int = 1, key: int = 1) -> Path:
    """Leave the lease of a holder on a machine, or on this one where its name is empty."""
    with store.lock(key_of(key)):
        pass
    path = path_of(store, key)
    path.write_text(f"{machine or lease._machine()} {process} 123")
    return path


@pytest.mark.long
def test_many_processes_compile_once(kind: str, compiler: Compiler, store: Store) -> None:
    PICK.load(width=4, depth=1)  # what compilers are identified by is kept for all
    compiler.log.unlink()
    gate, go = os.pipe()

    def load() -> int:
        os.close(go)
        os.read(gate, 1)
        return int(PICK.load(width=5, depth=1).pick(5, 1))

    number = 16 if kind == "ignored" else 64
    children = [start_child(load) for _ in range(number)]
    os.close(go)
    assert [result_of(child) for child in children] == [5001] * number
    os.close(gate)
    assert sorted(compiler.compiled()) == ["case_unit.cc", "entry_unit.cc"]
    assert tree(store.root / "locks") == []


def test_threads_exclude_each_other(broken: str, store: Store) -> None:
    inside, worst = [0], [0]

    def work() -> None:
        with store.lock(key_of(1)) as held:
            assert held
            inside[0] += 1
            worst[0] = max(worst[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1]
    assert tree(store.root / "locks") == []


def test_a_lease_of_a_killed_process_is_taken_over_at_once(broken: str, store: Store) -> None:
    for _ in range(3):

        def hold() -> None:
            with store.lock(key_of(1)):
                os.kill(os.getpid(), signal.SIGKILL)

        pid, answer = start_child(hold)
        os.waitpid(pid, 0)
        os.close(answer)
        assert path_of(store).exists()
        began = time.monotonic()
        with store.lock(key_of(1)) as held:
            assert held
        assert time.monotonic() - began < 1
    assert tree(store.root / "locks") == tree(store.root / "tmp") == []


def test_a_process_number_that_is_used_again(broken: str, store: Store) -> None:
    left_by(store, "", os.getppid())  # it runs, but began at another time
    with store.lock(key_of(1), lambda _: False) as held:
        assert held


def test_a_holder_of_another_machine_lives_while_its_lease_changes(
    broken: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock may be wrong by years: only changes count."""
    monkeypatch.setattr(lease, "_SILENCE", 0.3)
    path = left_by(store, "another-machine")
    looks: list[float] = []

    def pause(where: Path) -> bool:
        looks.append(time.monotonic())
        assert where == path
        if looks[-1] - looks[0] < 1:
            os.utime(path, (len(looks), len(looks)))
        time.sleep(0.05)
        return True

    with store.lock(key_of(1), pause) as held:
        assert held
        assert 1.2 < time.monotonic() - looks[0] < 3
        assert path.read_text().startswith(lease._machine())


def test_a_held_lease_changes(broken: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT", 0.05)
    monkeypatch.setattr(lease, "_held", held := lease._Held())
    monkeypatch.setattr("dimorph.store.directory.give_back", held.give_back)
    with store.lock(key_of(1)):
        os.utime(path_of(store), (0, 0))
        end = time.monotonic() + 5
        while path_of(store).stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_forked_child_does_not_hold_its_parents_lease(broken: str, store: Store) -> None:
    with store.lock(key_of(1)):
        pid = os.fork()
        if pid == 0:
            lease.give_back(path_of(store))
            os._exit(0)
        os.waitpid(pid, 0)
        assert in_child(lambda: Watch().take(path_of(store), store.root / "tmp" / "x")) is False
    assert not path_of(store).exists()


def test_a_lease_that_was_taken_over_stays(broken: str, store: Store) -> None:
    """Its first holder was stopped for so long that another one took it."""
    with store.lock(key_of(1)):
        path_of(store).unlink()
        path_of(store).write_text("another-machine 1 1")
    assert path_of(store).read_text() == "another-machine 1 1"


def test_a_lease_that_changes_hands_while_it_is_removed(broken: str, store: Store) -> None:
    path = left_by(store, "another-machine", 7)
    lease._remove(path, b"the dead holder", store.root / "tmp" / "x")
    assert path.read_text() == "another-machine 7 123"
    assert tree(store.root / "tmp") == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\x00 1", b"a b c d"])
def test_a_damaged_lease_has_a_holder_that_may_live(
    broken: str, store: Store, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(lease, "_SILENCE", 0.1)
    left_by(store, "x").write_bytes(content)
    waited: list[Path] = []
    with store.lock(key_of(1), lambda path: time.sleep(0.02) or waited.append(path) or True) as held:  # type: ignore[func-returns-value]
        assert held
    assert waited


def test_leases_of_the_dead_are_swept(broken: str, store: Store) -> None:
    left_by(store, "", key=1)
    elsewhere, old = left_by(store, "another-machine", key=2), left_by(store, "another-machine", key=3)
    os.utime(old, (0, 0))
    with store.lock(key_of(4)):
        store.sweep()
        leases = [name for name in tree(store.root / "locks") if name.endswith(".lease")]
        assert leases == [elsewhere.name, path_of(store, 4).name]


@pytest.mark.parametrize("holder", ["thread", "process", "machine"])
def test_a_wait_says_for_whom(
    broken: str, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, holder: str
) -> None:
    monkeypatch.setattr("dimorph.store.waiting._SILENCE", 0.0)
    caplog.set_level(logging.INFO)
    waiting = Waiting("this", limit=0.05)
    if holder == "thread":
        with store.lock(key_of(1)), store.lock(key_of(1), waiting) as held:
            assert not held
    elif holder == "machine":
        left_by(store, "node-7/boot", 4711)
        with store.lock(key_of(1), waiting) as held:
            assert not held
    else:
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        left_by(store, "", sleeper.pid).write_text(
            f"{lease._machine()} {sleeper.pid} {lease._started(str(sleeper.pid))}"
        )
        with store.lock(key_of(1), waiting) as held:
            assert not held
        sleeper.kill()
        sleeper.wait()
    expected = {"thread": "another thread of this process", "process": "time.sleep(60)", "machine": "4711 on node-7"}
    assert f"waiting for another build of this by {'' if holder == 'thread' else 'process '}" in caplog.text
    assert expected[holder] in caplog.text


def test_no_lease_where_locks_suffice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "36 35 98:0 / /a rw - nfs4 server:/a rw\n37 35 98:1 / /b rw shared:1 - ext4 /dev/b rw\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: lines)
    for device, kind in ((os.makedev(98, 0), "nfs4"), (os.makedev(98, 1), "ext4"), (os.makedev(98, 2), "")):
        lease._kind.cache_clear()
        assert lease._kind(device) == kind
    lease._kind.cache_clear()
    monkeypatch.undo()
    monkeypatch.setattr(lease, "_kind", lambda _: "ext4")
    with store.lock(key_of(1)):
        assert tree(store.root / "locks") == [f"{key_of(1)}.lock"]
    monkeypatch.setattr(lease, "_kind", lambda _: "lustre")
    with store.lock(key_of(1)):
        assert tree(store.root / "locks") == [f"{key_of(1)}.lease", f"{key_of(1)}.lock"]
