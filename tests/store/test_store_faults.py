"""The promises of a store in the presence of errors: full disks, bad content, reads that fail."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dimorph.store.store
from dimorph.errors import ArtifactCorrupt, StoreRefused
from dimorph.store import mark
from dimorph.store.store import Store
from support.store import (
    IS_ROOT,
    ME,
    content_of,
    in_child,
    key_of,
    make_meta,
    needs_root,
    publish,
    tool_of,
    tree,
)


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


# Full, read-only, and without locks


def test_no_locks_on_this_file_system(store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with store.lock(key_of(1)) as held:
        assert held  # by a lease
        assert tree(store.root / "locks") == [f"{key_of(1)}.lease"]
    assert tree(store.root / "locks") == []
    publish(store, sources)
    assert store.find(key_of(1)) is not None
    with store.work_dir() as work:
        assert store.sweep() == 0  # without locks a running owner cannot be told from a dead one, so nothing is removed
        assert work.exists()
    assert tree(store.root / "tmp") == []


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
    assert [usage.path for usage in store.prune(0, None)] == [kept.path]  # entries can be removed from a full disk
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
    """A write that fails half-way, at any file, leaves nothing behind."""
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
    """The test runs as an ordinary user who cannot write to the store."""
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


def flipped_at(name: bytes) -> Callable[[bytes], bytes]:
    """Return a function that flips a bit in the second character of a field, which is text."""

    def flip(content: bytes) -> bytes:
        at = content.index(name) + len(name) + len(b': "0')
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return flip


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
        ("meta.json", flipped_at(b'"key"')),
        ("meta.json", flipped_at(b'"sha256"')),
        ("meta.json", moved),
        ("meta.json", None),
    ],
)
@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("tool", [tool_of(1), None])
def test_bad_content_is_never_returned(
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
        assert tree(store.root) == [mark.NAME, "tmp"]
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
    """Another process may publish a good entry after the bad one was examined and before it is removed."""
    change(publish(store, sources).file, b"spoiled")
    examine = dimorph.store.store._examine

    def examine_then_lose_the_race(*args: object) -> object:
        verdict = examine(*args)  # type: ignore[arg-type]
        monkeypatch.undo()
        publish(store, sources)
        return verdict

    monkeypatch.setattr(dimorph.store.store, "_examine", examine_then_lose_the_race)
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
def test_failing_to_open_deletes_nothing(
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
            publish(store, sources)  # the path exists, but what it contains cannot be read
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
    """The test runs as an ordinary user, for whom the system does return EACCES."""
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


def test_is_content_error_decides_for_all() -> None:
    content = [ArtifactCorrupt("x"), FileNotFoundError(errno.ENOENT, "x")]
    others = [OSError(code, "x") for code in (errno.EIO, errno.EACCES, errno.ENOSPC, errno.ELOOP, errno.EMFILE)]
    assert all(dimorph.store.store.is_content_error(error) for error in content)
    assert not any(dimorph.store.store.is_content_error(error) for error in [*others, StoreRefused("x"), MemoryError()])
