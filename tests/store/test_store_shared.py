"""Many threads and processes in one store: temporary directories, locks and simultaneous publishing."""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dimorph.store import locks, mark
from dimorph.store.artifact import Artifact
from dimorph.store.store import Store
from support.store import (
    content_of,
    in_child,
    key_of,
    publish,
    result_of,
    start_child,
    tool_of,
    tree,
    tree_of_one_entry,
)

# Temporary directories


def test_work_dir_is_private_and_goes(store: Store) -> None:
    with store.work_dir() as work:
        (work / "a").mkdir()
        (work / "a" / "b").write_text("x")
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
        assert work.parent == store.root / "tmp"
        assert store.sweep() == 0
        assert (work / "a" / "b").exists()
        assert in_child(store.sweep) == 0  # another process does not remove it either
        assert (work / "a" / "b").exists()
    assert tree(store.root) == [mark.NAME, "tmp"]


def test_work_dir_goes_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.work_dir():
        _ = 1 / 0
    assert tree(store.root / "tmp") == []


def test_a_forked_child_does_not_take_the_work_dir_along(store: Store) -> None:
    class Leave(Exception):
        pass

    try:
        with store.work_dir() as work, store.lock(key_of(1)):
            pid = os.fork()
            if pid == 0:
                raise Leave
            _, status = os.waitpid(pid, 0)
            assert status == 7 << 8
            assert work.exists()
            assert (store.root / "locks" / f"{key_of(1)}.lock").exists()
            assert store.sweep() == 0
            assert work.exists()
    except Leave:
        os._exit(7)


def test_sweep_leaves_what_it_does_not_know(store: Store) -> None:
    with store.work_dir():
        pass
    for name in ("...lock", ".lock", "..lock", "notes of mine"):
        (store.root / "tmp" / name).touch()
    before = tree(store.root)
    assert store.sweep() == 0
    assert tree(store.root) == before


def test_another_machine_gets_a_day(store: Store) -> None:
    """On some shared file systems flock is local to a machine, so a free lock may belong to a running process."""
    with store.work_dir() as work:
        tmp = work.parent
    theirs = tmp / "123-0123456789abcdef.another-machine"
    theirs.mkdir()
    assert store.sweep() == 0
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    assert store.sweep() == 1
    assert tree(tmp) == []


def test_a_private_store_keeps_room_to_remove(store: Store) -> None:
    with store.lock(key_of(1)), store.work_dir():
        pass
    assert store.sweep() == 0
    assert tree(store.root) == [mark.NAME, "locks", "tmp"]


def test_a_packaged_directory_is_left_with_entries_only(tmp_path: Path, sources: Path) -> None:
    store = Store(tmp_path / "_dimorph", private=False)
    publish(store, sources)
    with store.lock(key_of(1)):
        pass
    assert store.sweep() == 0
    assert sorted(path.name for path in store.root.iterdir()) == ["00", mark.NAME]
    assert publish(store, sources, key=2).file.exists()


# Locks


def test_threads_exclude_each_other(store: Store) -> None:
    inside = 0
    worst = 0
    barrier = threading.Barrier(4)

    def work() -> None:
        nonlocal inside, worst
        barrier.wait()
        for _ in range(25):
            with store.lock(key_of(1)) as held:
                assert held
                inside += 1
                worst = max(worst, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
    assert tree(store.root / "locks") == []


def test_different_keys_do_not_wait(store: Store) -> None:
    with store.lock(key_of(1)) as one, store.lock(key_of(2)) as two:
        assert one and two


def test_processes_exclude_each_other(store: Store, tmp_path: Path) -> None:
    """The counter has no other protection, so it loses counts if two processes ever hold the lock together."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def work() -> None:
        for _ in range(40):
            with store.lock(key_of(1)) as held:
                assert held
                counter.write_text(str(int(counter.read_text()) + 1))

    children = [start_child(work) for _ in range(4)]
    for child in children:
        result_of(child)
    assert counter.read_text() == "160"
    assert tree(store.root / "locks") == []


def test_a_fork_while_a_lock_is_opened_leaves_the_child_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork happens after the system has opened the lock file and before `open` returns in the thread."""
    path, opened = tmp_path / "lock", threading.Event()

    class SlowOs:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def open(self, *args: Any) -> int:
            fd = os.open(*args)
            opened.set()
            time.sleep(0.3)
            return fd

    def child() -> bool:
        signal.alarm(20)  # end the child if the test deadlocks
        monkeypatch.setattr(locks, "os", os)
        time.sleep(0.6)
        fd = locks.acquire(path, wait=True)
        locks.release(path, fd)
        return fd is not None

    monkeypatch.setattr(locks, "os", SlowOs())
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(locks.acquire, path, wait=True)
        opened.wait()
        started = start_child(child)
        time.sleep(0.9)  # the child waits for the lock by now
        locks.release(path, holding.result())
        assert result_of(started)


def test_waiting_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dimorph")
    waiting = threading.Event()

    def note(_record: logging.LogRecord) -> bool:
        waiting.set()
        return True

    def take() -> None:
        with store.lock(key_of(1)):
            pass

    caplog.handler.addFilter(note)
    with store.lock(key_of(1)):
        thread = threading.Thread(target=take)
        thread.start()
        assert waiting.wait(10)
    thread.join(10)
    assert f"waiting for another build of {key_of(1)}" in caplog.text


# Many processes at once


def test_sixteen_processes(store: Store, sources: Path) -> None:
    """All processes publish and find, without locks, the same keys and keys of their own."""
    read_end, write_end = os.pipe()

    def work(number: int) -> list[int]:
        os.close(write_end)
        os.read(read_end, 1)  # returns in all children at once, when the parent closes the other end
        mine = []
        for key in (*range(1, 5), 100 + number):
            found = store.find(key_of(key), tool_of(1))
            artifact = found or publish(store, sources, key=key, size=20_000)
            assert artifact.file.read_bytes() == content_of(key, 20_000)
            if found is None:
                mine.append(key)
        for key in range(1, 5):
            assert store.find(key_of(key)) is not None
        return mine

    children = [start_child(lambda n=number: work(n)) for number in range(16)]  # type: ignore[misc]
    os.close(write_end)
    os.close(read_end)
    built = [key for child in children for key in result_of(child)]
    assert {*built} == {*range(1, 5), *range(100, 116)}
    assert len(list(store.entries())) == 20
    assert store.verify() == []
    assert tree(store.root / "tmp") == []


def test_threads_publish_the_same(store: Store, sources: Path) -> None:
    barrier = threading.Barrier(8)
    results: list[Artifact] = []

    def work() -> None:
        barrier.wait()
        results.append(publish(store, sources))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [store.find(key_of(1))] * 8
    assert tree(store.root) == tree_of_one_entry(1)


def test_publishing_against_removal(store: Store, sources: Path) -> None:
    """No publisher fails while the directory of its key is removed and created again, and no entry is incomplete."""
    children = [
        start_child(lambda: hammer(store, sources, True)),
        start_child(lambda: hammer(store, sources, False)),
    ]
    for child in children:
        result_of(child)
    assert store.verify() == []
    assert tree(store.root / "tmp") == []


def test_the_directory_of_a_key_removed_under_a_publisher(
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_too_late(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        target.parent.rmdir()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_too_late)
    assert publish(store, sources).file.exists()


def test_an_entry_removed_as_soon_as_published(store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def rename_for_nothing(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        rename(path, target)
        assert store.remove(key_of(1)) == 1
        return target

    monkeypatch.setattr(Path, "rename", rename_for_nothing)
    assert not publish(store, sources).path.exists()
    assert store.find(key_of(1)) is None


def test_the_directory_for_work_removed_under_a_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = locks.acquire

    def acquire_too_late(path: Path, *, wait: bool) -> int | None:
        monkeypatch.undo()
        path.parent.rmdir()
        return acquire(path, wait=wait)

    monkeypatch.setattr(locks, "acquire", acquire_too_late)
    with store.work_dir() as work:
        assert work.is_dir()


def hammer(store: Store, sources: Path, publishes: bool) -> None:
    for _ in range(60):
        if publishes:
            publish(store, sources, size=100)
        else:
            store.remove(key_of(1))
