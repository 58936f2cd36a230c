"""The promises of a store without errors: artifacts are found whole, published once, shared, and pruned by use."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
from datetime import timedelta
from pathlib import Path

import pytest

from dimorph.errors import ArtifactCorrupt
from dimorph.store import mark
from dimorph.store.artifact import Artifact
from dimorph.store.store import Broken, Store
from support.store import (
    content_of,
    in_child,
    key_of,
    make_meta,
    publish,
    tool_of,
    tree,
    tree_of_one_entry,
)

DAY = 86400


def set_used(artifact: Artifact, days_ago: float) -> None:
    moment = time.time() - days_ago * DAY
    os.utime(artifact.path, (moment, moment))


# Publishing and finding


def test_published_is_found(store: Store, sources: Path) -> None:
    published = publish(store, sources)
    found = store.find(key_of(1), tool_of(1))
    assert found == published
    assert found is not None
    assert found.path == store.root / "00" / key_of(1) / tool_of(1)
    assert found.file.read_bytes() == content_of(1)
    assert found.meta.files["case.so"].size == 1000
    assert tree(store.root / "tmp") == []


def test_the_files_given_stay(store: Store, sources: Path) -> None:
    publish(store, sources)
    assert [path.read_bytes() for path in sources.iterdir()] == [content_of(1)]


def test_another_key_or_compiler_is_absent(store: Store, sources: Path) -> None:
    publish(store, sources)
    assert store.find(key_of(2), tool_of(1)) is None
    assert store.find(key_of(1), tool_of(2)) is None
    assert store.find(key_of(2)) is None


def test_any_compiler_means_the_last_created(store: Store, sources: Path) -> None:
    times = {1: "2026-11-22T10:00:00+00:00", 2: "2026-11-22T11:00:00+02:00", 3: "2026-11-22T10:00:00+00:00"}
    for tool, created in times.items():
        publish(store, sources, tool=tool, created=created)
    found = store.find(key_of(1))
    assert found is not None
    assert found.meta.toolchain_id == tool_of(3)  # 2 is earlier, in UTC; of equal times the greater identity wins


def test_on_the_disk_before_it_is_found(store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut, a rename may be on the disk without the renamed files, so these are synced first."""
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(fd: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)  # noqa: PTH115 - not a real link
        sync(fd)

    def noted_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    publish(store, sources)
    assert steps == ["case.so", "meta.json", "entry", "rename", key_of(1)]


def test_publishing_again_returns_what_is_there(store: Store, sources: Path) -> None:
    first = publish(store, sources, toolchain="the first")
    second = publish(store, sources, toolchain="the second")
    assert second == first
    assert second.meta.toolchain == "the first"


def test_publishing_replaces_a_corrupt_entry(store: Store, sources: Path) -> None:
    spoiled = publish(store, sources).file
    spoiled.chmod(0o600)
    spoiled.write_bytes(b"spoiled")
    assert publish(store, sources).file.read_bytes() == content_of(1)
    assert store.verify() == []


def test_publishing_fills_an_empty_directory(store: Store, sources: Path) -> None:
    (publish(store, sources, key=2).path.parent / tool_of(7)).mkdir()
    assert publish(store, sources, key=2, tool=7).file.is_file()


@pytest.mark.parametrize(
    ("key", "tool", "names", "named"),
    [
        ("../" * 21 + "x", tool_of(1), ["case.so"], "key: expected 64 hex digits"),
        (key_of(1), "../../../../../..", ["case.so"], "toolchain_id: expected 16 hex digits"),
        (key_of(2), tool_of(1), ["case.so"], "meta: expected"),
        (key_of(1), tool_of(2), ["case.so"], "meta: expected"),
        (key_of(1), tool_of(1), [], "files: expected at least one"),
        (key_of(1), tool_of(1), ["../case.so"], "plain file name"),
        (key_of(1), tool_of(1), ["meta.json"], "plain file name"),
    ],
)
def test_publish_checks_its_arguments(
    store: Store, sources: Path, key: str, tool: str, names: list[str], named: str
) -> None:
    sources.mkdir()
    source = sources / "x"
    source.write_bytes(b"x")
    with pytest.raises(ValueError, match=named):
        store.publish(key, tool, dict.fromkeys(names, source), make_meta())
    assert not store.root.exists()


def test_published_files_must_agree_with_given_records(store: Store, sources: Path, tmp_path: Path) -> None:
    artifact = publish(store, sources)
    shipped = Store(tmp_path / "package" / "_dimorph", private=False)
    copy = shipped.publish(artifact.meta.key, artifact.meta.toolchain_id, {"case.so": artifact.file}, artifact.meta)
    assert copy.meta == artifact.meta
    other = sources / "other"
    other.write_bytes(b"other")
    with pytest.raises(ArtifactCorrupt, match="files: expected"):
        shipped.publish(key_of(1), tool_of(1), {"case.so": other}, artifact.meta)


def test_a_malformed_key_is_an_error(store: Store) -> None:
    with pytest.raises(ValueError, match=r"Store.find: key: expected 64 hex digits, got '../etc'"):
        store.find("../etc")
    with pytest.raises(ValueError, match=r"Store\.find: toolchain_id"):
        store.find(key_of(1), "..")
    with pytest.raises(ValueError, match=r"Store.lock: key"), store.lock("x"):
        pass


def test_a_hit_is_fast(store: Store, sources: Path) -> None:
    publish(store, sources, size=100_000)
    seconds = []
    for _ in range(100):
        start = time.perf_counter()
        assert store.find(key_of(1), tool_of(1)) is not None
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5e-3


# The directory


def test_finding_makes_nothing(store: Store, tmp_path: Path) -> None:
    assert store.find(key_of(1), tool_of(1)) is None
    assert store.find(key_of(1)) is None
    assert (list(store.entries()), store.verify(), store.size(), store.sweep()) == ([], [], 0, 0)
    assert store.remove(key_of(1)) == 0
    assert store.prune(0, None) == []
    assert tree(tmp_path) == []


@pytest.mark.parametrize(("private", "directory_mode", "file_mode"), [(True, 0o700, 0o400), (False, 0o755, 0o444)])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, private: bool, directory_mode: int, file_mode: int) -> None:
    tmp_path.chmod(0o755)

    def modes() -> dict[str, int]:
        os.umask(0)
        store = Store(tmp_path / "new" / "parent" / "store", private=private)
        publish(store, tmp_path / "sources")
        found = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
        return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in found}

    for path, mode in in_child(modes).items():
        assert mode == (file_mode if Path(path).is_file() else directory_mode), path


def test_a_linked_root_is_fine(tmp_path: Path, sources: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    store = Store(tmp_path / "home" / "store")
    artifact = publish(store, sources)
    assert artifact.path.is_relative_to(tmp_path / "disk")
    (tmp_path / "direct").symlink_to(store.root)
    assert Store(tmp_path / "direct").find(key_of(1), tool_of(1)) == artifact


def test_a_link_to_a_root_that_is_not_there_yet(tmp_path: Path, sources: Path) -> None:
    (tmp_path / "cache").symlink_to(tmp_path / "disk" / "cache")
    publish(Store(tmp_path / "cache"), sources)
    assert Store(tmp_path / "disk" / "cache").find(key_of(1)) is not None


def test_used_read_only(store: Store, sources: Path) -> None:
    artifact = publish(store, sources)
    set_used(artifact, 5)
    before = artifact.path.lstat().st_mtime
    reader = Store(store.root, writable=False)
    assert reader.find(key_of(1), tool_of(1)) == artifact
    assert artifact.path.lstat().st_mtime == before
    for write in (
        lambda: publish(reader, sources, key=2),
        lambda: reader.remove(key_of(1)),
        lambda: reader.prune(0, None),
        reader.sweep,
    ):
        with pytest.raises(OSError, match="read-only") as caught:
            write()
        assert caught.value.errno == errno.EROFS
    with reader.lock(key_of(1)) as held:
        assert not held
    assert reader.find(key_of(1), tool_of(1)) == artifact


# Listing and removing


def test_entries_and_size(store: Store, sources: Path) -> None:
    for key in (3, 1, 2):
        publish(store, sources, key=key)
    (store.root / "README").write_text("not an entry")
    (store.root / "toolchains").mkdir()
    listed = list(store.entries())
    assert [item.meta.key for item in listed if isinstance(item, Artifact)] == [key_of(n) for n in (1, 2, 3)]
    meta_sizes = sum(path.stat().st_size for path in store.root.rglob("meta.json"))
    assert store.size() == 3 * 1000 + meta_sizes


def test_verify_reports_and_removes_nothing(store: Store, sources: Path) -> None:
    publish(store, sources, key=1)
    flipped = publish(store, sources, key=2).file
    gone = publish(store, sources, key=3).file
    unread = publish(store, sources, key=4).path / "meta.json"
    flipped.chmod(0o600)
    flipped.write_bytes(content_of(2)[::-1])
    gone.unlink()
    unread.chmod(0o600)
    unread.write_text("{")
    before = tree(store.root)
    errors = {broken.path: type(broken.error) for broken in store.verify()}
    assert errors == {
        flipped.parent: ArtifactCorrupt,
        gone.parent: FileNotFoundError,
        unread.parent: ArtifactCorrupt,
    }
    assert [item.path for item in store.entries() if isinstance(item, Broken)] == [unread.parent]
    assert tree(store.root) == before


def test_remove(store: Store, sources: Path) -> None:
    for key, tool in ((1, 1), (1, 2), (2, 1)):
        publish(store, sources, key, tool)
    assert store.remove(key_of(1), tool_of(1)) == 1
    assert store.remove(key_of(1), tool_of(1)) == 0
    assert store.find(key_of(1), tool_of(2)) is not None
    assert store.remove(key_of(1)) == 1
    assert tree(store.root) == tree_of_one_entry(2)
    assert store.remove(key_of(2)) == 1
    assert tree(store.root) == [mark.NAME, "tmp"]


def test_prune_takes_the_least_recently_used(store: Store, sources: Path) -> None:
    for key, days in ((1, 3), (2, 9), (3, 0), (4, 6)):
        set_used(publish(store, sources, key=key), days)
    assert store.prune(None, None) == []
    one = store.size() // 4
    assert [usage.path.parent.name for usage in store.prune(3 * one, None)] == [key_of(2)]
    assert [usage.path.parent.name for usage in store.prune(None, timedelta(days=5))] == [key_of(4)]
    assert store.prune(2 * one, timedelta(days=5)) == []
    assert [usage.path.parent.name for usage in store.prune(0, None)] == [key_of(1), key_of(3)]
    assert tree(store.root) == [mark.NAME, "tmp"]


def test_a_hit_counts_as_use_once_a_day(store: Store, sources: Path) -> None:
    old, recent = publish(store, sources, key=1), publish(store, sources, key=2)
    set_used(old, 2)
    set_used(recent, 0.5)
    before = recent.path.lstat().st_mtime
    assert store.find(key_of(1), tool_of(1)) and store.find(key_of(2), tool_of(1))
    assert recent.path.lstat().st_mtime == before
    assert time.time() - old.path.lstat().st_mtime < DAY / 2
    assert [usage.path for usage in store.usage()] == [recent.path, old.path]


def test_what_is_mapped_outlives_its_entry(store: Store, sources: Path) -> None:
    artifact = publish(store, sources)
    with artifact.file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert len(store.prune(0, None)) == 1
        assert not artifact.path.exists()
        assert mapped[:] == content_of(1)
