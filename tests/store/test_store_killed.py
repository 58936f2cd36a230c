"""Killed processes: they leave no incomplete entry that is found, hold no lock, and their files are swept."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

from dimorph.store import locks
from dimorph.store.store import Broken, Store
from support.store import (
    content_of,
    key_of,
    publish,
    start_child,
    tool_of,
    tree,
)


def test_killed_while_publishing(store: Store, sources: Path) -> None:
    """After each of 50 kills, every entry reported as published is found, and every entry found is whole."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    published: list[int] = []
    left_behind = 0
    with store.work_dir() as alive:
        for round_number in range(50):
            read_end, write_end = os.pipe()
            first = 1000 * round_number

            def work(first: int = first, write_end: int = write_end) -> None:
                for key in range(first, first + 1000):
                    publish(store, sources, key=key, size=50_000)
                    os.write(write_end, key.to_bytes(4, "big"))

            pid, answer = start_child(work)
            os.close(write_end)
            time.sleep(chance.uniform(0, 0.04))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(answer)
            with os.fdopen(read_end, "rb") as stream:
                reported = stream.read()
            done = [int.from_bytes(reported[at : at + 4], "big") for at in range(0, len(reported), 4)]
            for key in done:
                found = store.find(key_of(key), tool_of(1))
                assert found is not None, (seed, key)
                assert found.file.read_bytes() == content_of(key, 50_000)
            published += done
        entries = list(store.entries())
        assert not [item for item in entries if isinstance(item, Broken)], seed
        assert store.verify() == []
        # Each kill can happen between rename and report: there may be one entry more than reported, never fewer.
        assert len(published) <= len(entries) <= len(published) + 50
        left_behind = len(list(alive.parent.iterdir())) - 2
        print(len(published), "published,", left_behind, "files and directories left behind")
        assert left_behind > 0, "no kill fell into a publish: the test proves nothing"
        assert store.sweep() > 0
        assert sorted(alive.parent.iterdir()) == [alive, alive.with_name(f"{alive.name}.lock")]
    assert tree(store.root / "tmp") == []
    assert len(list(store.entries())) == len(entries)


def test_a_lock_dies_with_its_holder(store: Store) -> None:
    """The lock is released even if a forked child of the holder lives on."""
    ready, started = os.pipe()
    stay, go = os.pipe()

    def holder() -> None:
        with store.lock(key_of(1)), store.work_dir():
            if os.fork() == 0:
                os.close(go)
                os.write(started, b"x")
                os.read(stay, 1)
                os._exit(0)
            signal.pause()

    pid, answer = start_child(holder)
    try:
        assert os.read(ready, 1) == b"x"
        assert locks.acquire(store.root / "locks" / f"{key_of(1)}.lock", wait=False) is None
        assert store.sweep() == 0
        taken = threading.Event()

        def take() -> None:
            with store.lock(key_of(1)) as held:
                if held:
                    taken.set()

        threading.Thread(target=take, daemon=True).start()
        assert not taken.wait(0.05)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert taken.wait(10)
        assert store.sweep() == 1
    finally:
        for fd in (ready, started, stay, go, answer):
            os.close(fd)


def test_a_lock_file_left_by_a_kill_is_swept(store: Store) -> None:
    def holder() -> None:
        with store.lock(key_of(1)):
            os.kill(os.getpid(), signal.SIGKILL)

    pid, answer = start_child(holder)
    os.waitpid(pid, 0)
    os.close(answer)
    assert tree(store.root / "locks") == [f"{key_of(1)}.lock"]
    with store.lock(key_of(2)):
        assert store.sweep() == 0
        assert tree(store.root / "locks") == [f"{key_of(2)}.lock"]
