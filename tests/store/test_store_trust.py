"""Trust: paths that another user may have written are refused, at every level of a store."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dimorph.errors import StoreRefused
from dimorph.store.store import Store
from support.store import (
    ME,
    STRANGER,
    content_of,
    in_child,
    key_of,
    needs_root,
    publish,
    tool_of,
    tree,
)

# Other people's files


PATHS = {
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


@pytest.mark.parametrize("where", PATHS)
@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        pytest.param(foreign, f"is owned by user {STRANGER}", marks=needs_root),
        (group_writable, "is writable by group"),
        (world_writable, "is writable by world"),
        (linked, "is a link"),
    ],
)
def test_unsafe_is_refused(store: Store, sources: Path, where: str, harm: Callable[[Path], None], problem: str) -> None:
    """An unsafe path is refused and not deleted, and the command in the message mends it."""
    publish(store, sources)
    path = store.root / PATHS[where]
    harm(path)
    before = tree(store.root.parent)
    for tool in (tool_of(1), None):
        with pytest.raises(StoreRefused) as caught:
            store.find(key_of(1), tool)
        assert f"{path} {problem}" in str(caught.value)
    with pytest.raises(StoreRefused):
        publish(store, sources)
    if where == "root":
        with pytest.raises(StoreRefused):
            store.verify()
    else:
        (broken,) = store.verify()
        assert isinstance(broken.error, StoreRefused)
    if where not in ("object", "meta"):
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
    """In a sticky directory any user can create the root first and then owns it."""
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
    """Make a package as an installer does: all files have the same owner, group and mode."""
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
    os.chown(store.root / PATHS["object"], STRANGER + 1, -1)
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


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch])
def test_nobody_is_told_to_remove_what_is_in_place_of_a_store(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "theirs")
    with pytest.raises(StoreRefused, match="name another directory") as caught:
        Store(tmp_path / "theirs").find(key_of(1))
    assert "rm " not in str(caught.value)
