"""What a store promises when things go wrong: kills, full disks, bad content, failing reads, strangers."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_helpers import (
    IS_ROOT,
    NEEDS_ROOT,
    STRANGER,
    content_of,
    in_child,
    key_of,
    make_meta,
    publish,
    start_child,
    tool_of,
    tree,
)

import dimorph.store
from dimorph import locks
from dimorph.errors import ArtifactCorrupt, StoreRefused
from dimorph.store import Broken, Store

ME = 1234  # an ordinary user, for children that must not have root's rights

needs_root = pytest.mark.skipif(not IS_ROOT, reason=NEEDS_ROOT)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return tmp_path / "sources"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Like tmp_path, but where other users can get."""
    with tempfile.TemporaryDirectory(prefix="dimorph-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(disk)]
    if not IS_ROOT or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here; test_file_size_limit stands in for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def change(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


# Killed processes


def test_killed_while_publishing(store: Store, sources: Path) -> None:
    """After each of 50 kills: what was reported published is found, and nothing that is found is half."""
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
        # Each kill can fall between the rename and the report: one entry more than was reported, never fewer.
        assert len(published) <= len(entries) <= len(published) + 50
        left_behind = len(list(alive.parent.iterdir())) - 2
        print(len(published), "published,", left_behind, "files and directories left behind")
        assert left_behind > 0, "no kill fell into a publish: the test proves nothing"
        assert store.sweep() > 0
        assert sorted(alive.parent.iterdir()) == [alive, alive.with_name(f"{alive.name}.lock")]
    assert tree(store.root / "tmp") == []
    assert len(list(store.entries())) == len(entries)


def test_a_lock_dies_with_its_holder(store: Store) -> None:
    """Even when a child that the holder forked lives on."""
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


def test_no_locks_on_this_file_system(store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with store.lock(key_of(1)) as held:
        assert not held
    publish(store, sources)
    assert store.find(key_of(1)) is not None
    with store.work_dir() as work:
        assert store.sweep() == 0  # alive or dead cannot be told, so nothing goes
        assert work.exists()
    assert tree(store.root / "tmp") == []


# Full and read-only


def test_full_disk(small_disk: Path, sources: Path) -> None:
    print("a real full disk: tmpfs of 512 KB")
    store = Store(small_disk / "store")
    kept = publish(store, sources, key=1, size=300_000)
    with pytest.raises(OSError, match="No space left") as caught:
        publish(store, sources, key=2, size=300_000)
    assert caught.value.errno == errno.ENOSPC
    assert store.find(key_of(2)) is None
    assert store.find(key_of(1)) == kept
    assert tree(store.root / "tmp") == []
    assert [path.stat().st_size for path in sources.iterdir()] == [300_000, 300_000]

    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"):
        publish(store, sources, key=3)
    assert [usage.path for usage in store.prune(0, None)] == [kept.path]  # what is full can be emptied
    assert publish(store, sources, key=3).file.exists()
    assert store.verify() == []


def test_read_only_file_system(small_disk: Path, sources: Path) -> None:
    store = Store(small_disk / "store")
    artifact = publish(store, sources)
    os.utime(artifact.path, (0, 0))
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(remount, check=False).returncode:
        pytest.skip("remounting read-only is not permitted here; test_read_only_directories stands in for it")
    assert store.find(key_of(1)) == artifact
    with pytest.raises(OSError, match="Read-only file system"):
        publish(store, sources, key=2)
    with store.lock(key_of(1)) as held:
        assert not held
    with pytest.raises(OSError, match="Read-only file system"):
        store.remove(key_of(1))
    assert store.find(key_of(1)) == artifact


def test_file_size_limit(store: Store, sources: Path) -> None:
    """A write that fails half-way, wherever it is: nothing is left of it."""
    publish(store, sources, key=1)

    def limited() -> list[str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        source = sources / "large"
        failures = []
        for _ in range(2):
            try:
                store.publish(key_of(2), tool_of(1), {"case.so": source}, make_meta(2))
            except OSError as error:
                failures.append(errno.errorcode[error.errno or 0])
        return failures

    (sources / "large").write_bytes(content_of(2, 300_000))
    assert in_child(limited) == ["EFBIG", "EFBIG"]
    assert tree(store.root / "tmp") == []
    assert store.find(key_of(2)) is None
    assert len(list(store.entries())) == 1


@needs_root
def test_read_only_directories(open_path: Path) -> None:
    """An ordinary user whose store cannot be written to."""
    root = open_path / "store"
    shutil.chown(open_path, ME)
    in_child(lambda: str(publish(Store(root), open_path / "sources")), uid=ME)
    bad = root / "00" / key_of(1) / tool_of(1) / "case.so"
    for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
        directory.chmod(0o500)

    def reader() -> list[object]:
        store = Store(root)
        found = store.find(key_of(1))
        with store.lock(key_of(1)) as held:
            locked = held
        try:
            publish(store, open_path / "sources", key=2)
        except OSError as error:
            refused = errno.errorcode[error.errno or 0]
        return [found is not None, locked, refused]

    assert in_child(reader, uid=ME) == [True, False, "EACCES"]

    def spoiled() -> list[object]:
        change(bad, b"spoiled")
        return [Store(root).find(key_of(1)), bad.read_bytes() == b"spoiled"]

    before = tree(root)
    assert in_child(spoiled, uid=ME) == [None, True]
    assert tree(root) == before


def test_directories_that_cannot_be_synced(store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(code: int) -> Callable[[int], None]:
        def fsync(fd: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112 - a descriptor, not a path
                raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    publish(store, sources, key=1)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        publish(store, sources, key=2)
    monkeypatch.undo()
    assert store.find(key_of(1)) is not None
    assert store.find(key_of(2)) is None


# Bad content


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(_content: bytes) -> bytes:
    return b""


def flipped(content: bytes) -> bytes:
    at = content.index(b"1")
    return content[:at] + bytes([content[at] ^ 2]) + content[at + 1 :]  # 1 -> 3: still JSON, still a digest


def moved(content: bytes) -> bytes:
    return content.replace(key_of(1).encode(), key_of(2).encode())


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("case.so", truncated),
        ("case.so", emptied),
        ("case.so", flipped),
        ("case.so", None),
        ("meta.json", truncated),
        ("meta.json", emptied),
        ("meta.json", flipped),
        ("meta.json", moved),
        ("meta.json", None),
    ],
)
@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("tool", [tool_of(1), None])
def test_bad_content_is_never_returned(  # noqa: PLR0917 - fixtures and parameters
    store: Store,
    sources: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    spoil: Callable[[bytes], bytes] | None,
    writable: bool,
    tool: str | None,
) -> None:
    artifact = publish(store, sources)
    path = artifact.path / name
    if spoil is None:
        path.unlink()
    else:
        change(path, spoil(path.read_bytes()))
    before = tree(store.root)
    assert Store(store.root, writable=writable).find(key_of(1), tool) is None
    assert str(artifact.path) in caplog.text
    if writable:
        assert "removed" in caplog.text
        assert tree(store.root) == ["tmp"]
        assert publish(store, sources).file.read_bytes() == content_of(1)
    else:
        assert "left there" in caplog.text
        assert tree(store.root) == before


def test_a_bad_entry_does_not_hide_a_good_one(store: Store, sources: Path) -> None:
    publish(store, sources, tool=1, created="2026-01-01T00:00:00+00:00")
    change(publish(store, sources, tool=2).file, b"spoiled")
    found = store.find(key_of(1))
    assert found is not None
    assert found.meta.toolchain_id == tool_of(1)


def test_what_replaced_bad_content_meanwhile_stays(
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between judging an entry and removing it, another process may have put a good one there."""
    change(publish(store, sources).file, b"spoiled")
    examine = dimorph.store._examine

    def examine_then_lose_the_race(*args: object) -> object:
        verdict = examine(*args)  # type: ignore[arg-type]
        monkeypatch.undo()
        publish(store, sources)
        return verdict

    monkeypatch.setattr(dimorph.store, "_examine", examine_then_lose_the_race)
    assert store.find(key_of(1)) is None
    assert store.find(key_of(1)) is not None


def test_bad_content_that_cannot_be_removed(
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = publish(store, sources)
    change(artifact.file, b"spoiled")

    def rename(_self: Path, _target: Path) -> Path:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "rename", rename)
    assert store.find(key_of(1)) is None
    assert "cannot be removed" in caplog.text
    with pytest.raises(OSError, match="Input/output error"):
        publish(store, sources)
    assert artifact.file.exists()


# Failing reads


@pytest.mark.parametrize("name", ["case.so", "meta.json"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("tool", [tool_of(1), None])
def test_failing_to_open_deletes_nothing(  # noqa: PLR0917 - fixtures and parameters
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, tool: str | None
) -> None:
    artifact = publish(store, sources)
    before = tree(store.root)
    real_open = os.open

    def failing_open(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if str(path) == str(artifact.path / name):
            raise OSError(code, os.strerror(code), str(path))
        return real_open(path, flags, mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing_open)
        with pytest.raises(OSError, match=os.strerror(code)):
            store.find(key_of(1), tool)
        with pytest.raises(OSError, match=os.strerror(code)):
            publish(store, sources)  # the place is taken, and by what cannot be told
        (broken,) = store.verify()
        assert isinstance(broken.error, OSError)
    assert tree(store.root) == before
    assert store.find(key_of(1), tool) == artifact


def test_failing_to_read_deletes_nothing(store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = publish(store, sources)
    before = tree(store.root)

    def failing_digest(*_args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", failing_digest, raising=False)
        patch.setattr(hashlib, "sha256", failing_digest)
        with pytest.raises(OSError, match="Input/output error"):
            store.find(key_of(1))
    assert tree(store.root) == before
    assert store.find(key_of(1)) == artifact


def test_a_failing_entry_does_not_hide_a_good_one(
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = publish(store, sources, tool=1), publish(store, sources, tool=2)
    bad.file.chmod(0o666)
    assert store.find(key_of(1)) == good
    assert "passed over" in caplog.text
    assert bad.file.exists()


@needs_root
def test_no_permission_deletes_nothing(open_path: Path) -> None:
    """With the rights of an ordinary user, for whom EACCES is real."""
    shutil.chown(open_path, ME)
    root = open_path / "store"

    def work() -> list[object]:
        store = Store(root)
        artifact = publish(store, open_path / "sources")
        artifact.file.chmod(0)
        before = tree(root)
        try:
            store.find(key_of(1))
        except PermissionError as error:
            return [type(error).__name__, tree(root) == before]
        return ["found", False]

    assert in_child(work, uid=ME) == ["PermissionError", True]


# Other people's files


PLACES = {
    "root": ".",
    "shard": "00",
    "key": f"00/{key_of(1)}",
    "entry": f"00/{key_of(1)}/{tool_of(1)}",
    "object": f"00/{key_of(1)}/{tool_of(1)}/case.so",
    "meta": f"00/{key_of(1)}/{tool_of(1)}/meta.json",
}


def foreign(path: Path) -> None:
    os.chown(path, STRANGER, -1)


def group_writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def world_writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def linked(path: Path) -> None:
    target = path.with_name(f"moved-{path.name}")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        pytest.param(foreign, f"is owned by user {STRANGER}", marks=needs_root),
        (group_writable, "is writable by group"),
        (world_writable, "is writable by world"),
        (linked, "is a link"),
    ],
)
def test_unsafe_is_refused(store: Store, sources: Path, place: str, harm: Callable[[Path], None], problem: str) -> None:
    """Refused, not loaded, not deleted; and the command in the message does mend it."""
    publish(store, sources)
    path = store.root / PLACES[place]
    harm(path)
    before = tree(store.root.parent)
    for tool in (tool_of(1), None):
        with pytest.raises(StoreRefused) as caught:
            store.find(key_of(1), tool)
        assert f"{path} {problem}" in str(caught.value)
    with pytest.raises(StoreRefused):
        publish(store, sources)
    if place == "root":
        with pytest.raises(StoreRefused):
            store.verify()
    else:
        (broken,) = store.verify()
        assert isinstance(broken.error, StoreRefused)
    if place not in ("object", "meta"):
        with pytest.raises(StoreRefused):
            store.remove(key_of(1), tool_of(1))
    assert tree(store.root.parent) == before

    command = str(caught.value).partition("To mend it: ")[2]
    assert str(path) in command
    subprocess.run(shlex.split(command.removeprefix("sudo ")), check=True)
    assert store.find(key_of(1)) is None or "chmod" in command or "chown" in command
    assert publish(store, sources).file.read_bytes() == content_of(1)
    assert store.find(key_of(1), tool_of(1)) is not None


def test_links_in_a_circle(tmp_path: Path, sources: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).symlink_to(tmp_path / other)
    with pytest.raises(StoreRefused, match="is a link"):
        Store(tmp_path / "a").find(key_of(1))
    with pytest.raises(StoreRefused, match="is a link"):
        publish(Store(tmp_path / "a"), sources)


def test_refused_entries_are_not_pruned(store: Store, sources: Path) -> None:
    artifact = publish(store, sources)
    world_writable(artifact.path)
    assert store.prune(0, None) == []
    assert artifact.path.exists()


@pytest.mark.parametrize("name", ["tmp", "locks"])
@pytest.mark.parametrize("harm", [group_writable, world_writable, linked])
def test_unsafe_places_to_work_in_are_refused(store: Store, name: str, harm: Callable[[Path], None]) -> None:
    with store.lock(key_of(1)), store.work_dir():
        pass
    harm(store.root / name)
    with pytest.raises(StoreRefused, match=name), store.lock(key_of(1)), store.work_dir():
        pass
    with pytest.raises(StoreRefused, match=name):
        store.sweep()


def test_other_things_in_place_of_a_file(store: Store, sources: Path) -> None:
    artifact = publish(store, sources)
    artifact.file.unlink()
    os.mkfifo(artifact.file)
    with pytest.raises(StoreRefused, match="is of type 'p', expected a regular file"):
        store.find(key_of(1))
    artifact.file.unlink()
    shutil.rmtree(artifact.path)
    artifact.path.write_text("a file where the entry should be")
    with pytest.raises(StoreRefused, match="expected a directory"):
        store.find(key_of(1), tool_of(1))
    with pytest.raises(StoreRefused, match="expected a directory"):
        publish(store, sources)


def test_parents_that_anybody_can_write(tmp_path: Path, sources: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o777)
    root = parent / "inner" / "store"
    with pytest.raises(StoreRefused, match=f"{parent} above .* not sticky") as caught:
        publish(Store(root), sources)
    assert tree(parent) == []
    parent.chmod(0o1777)
    artifact = publish(Store(root), sources)
    parent.chmod(0o777)
    with pytest.raises(StoreRefused, match="not sticky"):
        Store(root).find(key_of(1))
    subprocess.run(shlex.split(str(caught.value).partition("To mend it: ")[2]), check=True)
    assert Store(root).find(key_of(1)) == artifact


@needs_root
def test_a_root_made_by_someone_else_first(open_path: Path) -> None:
    """In a sticky directory anybody can make the name first; they then own it."""
    open_path.chmod(0o1777)
    root = open_path / "store"
    in_child(lambda: str(publish(Store(root), open_path / "theirs")), uid=STRANGER)

    def victim() -> str:
        try:
            Store(root).find(key_of(1))
        except StoreRefused as error:
            return str(error)
        except PermissionError:
            return "PermissionError"
        return "found"

    assert f"is owned by user {STRANGER}" in in_child(victim, uid=ME)
    root.chmod(0o755)
    assert f"is owned by user {STRANGER}" in in_child(victim, uid=ME)


@needs_root
def test_root_may_own_the_store_of_a_user(open_path: Path) -> None:
    artifact = publish(Store(open_path / "store", private=False), open_path / "sources")

    def user() -> list[str | None]:
        found = [Store(open_path / "store", private=p).find(key_of(1)) for p in (True, False)]
        return [str(item and item.path) for item in found]

    assert in_child(user, uid=ME) == [str(artifact.path)] * 2


# Packaged directories


def packaged(package: Path, *, owner: int = 0, group: int = 0, mode: int = 0o755) -> Store:
    """A package as an installer leaves it: everything of one owner, group and mode."""
    package.mkdir()
    store = Store(package / "_dimorph", private=False)
    publish(store, package.parent / "sources")
    store.sweep()
    for path in (package, *package.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)
        os.chown(path, owner, group)
    return store


@needs_root
def test_installed_by_another_user(open_path: Path) -> None:
    store = packaged(open_path / "package", owner=STRANGER)
    assert store.find(key_of(1)) is not None
    assert in_child(lambda: str(Store(store.root, private=False).find(key_of(1))), uid=ME) != "None"
    with pytest.raises(StoreRefused, match="is owned by user"):
        Store(store.root, private=True).find(key_of(1))
    os.chown(store.root / PLACES["object"], STRANGER + 1, -1)
    with pytest.raises(StoreRefused, match=r"case\.so is owned by user"):
        store.find(key_of(1))


@needs_root
def test_installed_under_umask_002(open_path: Path) -> None:
    package = open_path / "package"
    store = packaged(package, group=STRANGER, mode=0o775)
    assert store.find(key_of(1)) is not None
    with pytest.raises(StoreRefused, match="is writable by group"):
        Store(store.root, private=True).find(key_of(1))
    for mode in (0o755, 0o1775):  # the group can no longer change the package's own code
        package.chmod(mode)
        with pytest.raises(StoreRefused, match=f"is writable by group {STRANGER}"):
            store.find(key_of(1))
    package.chmod(0o775)
    os.chown(package, -1, STRANGER + 1)
    with pytest.raises(StoreRefused, match=f"is writable by group {STRANGER}"):
        store.find(key_of(1))


@needs_root
@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_installed_for_anybody_to_change(open_path: Path, mode: int) -> None:
    store = packaged(open_path / "package", mode=mode)
    with pytest.raises(StoreRefused, match="is writable by world"):
        store.find(key_of(1))


def test_is_content_error_decides_for_all() -> None:
    content = [ArtifactCorrupt("x"), FileNotFoundError(errno.ENOENT, "x")]
    others = [OSError(code, "x") for code in (errno.EIO, errno.EACCES, errno.ENOSPC, errno.ELOOP, errno.EMFILE)]
    assert all(dimorph.store.is_content_error(error) for error in content)
    assert not any(dimorph.store.is_content_error(error) for error in [*others, StoreRefused("x"), MemoryError()])
