"""What a store suffers, seen through `Kernel.load`: nothing is lost and nothing wrong is ever loaded."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED
from dimorph.store.store import Broken, Store
from support.kernels import PICK, WIDE
from support.store import STRANGER, in_child, needs_root, start_child

Copier = Callable[..., dm.Kernel]


@pytest.fixture
def kernel(copy_of: Copier) -> dm.Kernel:
    return copy_of(PICK)


def _use(kernel: dm.Kernel, width: int = 1, depth: int = 2) -> dict[str, Any]:
    """Loads and calls in a new process, which has nothing loaded yet; what came of it."""

    def child() -> dict[str, Any]:
        signal.alarm(30)  # an endless attempt must end
        records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
        log = logging.getLogger("dimorph")
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            module = kernel.load(width=width, depth=depth)
            answer = module.pick(width, depth)
        return {
            "answer": answer,
            "places": [resolution.place.partition(" (")[0] for resolution in module.resolutions],
            "paths": [str(resolution.artifact.path) for resolution in module.resolutions],
            "why": "; ".join(reason for resolution in module.resolutions for reason in resolution.passed),
            "log": "\n".join(records),
            "warnings": [str(w.message) for w in warned if issubclass(w.category, RuntimeWarning)],
        }

    return dict(in_child(child))


def _entries(store: Path) -> list[Artifact]:
    """The entries, all of which must be whole."""
    found = list(Store(store).entries())
    assert not [item for item in found if isinstance(item, Broken)]
    artifacts = [item for item in found if isinstance(item, Artifact)]
    for artifact in artifacts:
        artifact.verify()
    return artifacts


# --- Killed ---


def test_50_builds_killed_at_any_moment_leave_nothing_wrong(copy_of: Copier, store: Path) -> None:
    widths = range(100, 155)
    kernel = copy_of(WIDE, axes=[dm.int_axis("width", "WIDTH", widths), dm.int_axis("depth", "DEPTH", [3])])

    def build(width: int) -> int:
        facts = np.zeros(1, np.int64)
        kernel.load().wide(width, 3, facts)
        return int(facts[0])

    took = []
    for width in widths[50:]:
        began = time.monotonic()
        assert in_child(lambda width=width: build(width)) == width * 3
        took.append(time.monotonic() - began)
    # The first one also builds the entry and finds out which compiler it is, and any may have been held up by others.
    usual = min(took[1:])
    randomly, killed = random.Random(50), 0
    for first in range(0, 50, 2):
        children = [start_child(lambda width=width: build(width)) for width in widths[first : first + 2]]
        began, moments = time.monotonic(), sorted(randomly.uniform(0, 1.3 * usual) for _ in children)
        for (pid, pipe), moment in zip(children, moments, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            os.close(pipe)
            killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert killed >= 20, "they ended before they were killed"
    assert {artifact.meta.specialization.get("width", "entry") for artifact in _entries(store)} <= {
        "entry",
        *map(str, widths),
    }
    assert in_child(lambda: [build(width) for width in widths]) == [width * 3 for width in widths]
    assert len(_entries(store)) == 1 + len(widths)
    _wait_for_orphans(store)
    Store(store).sweep()
    assert list((store / "tmp").iterdir()) == list((store / "locks").iterdir()) == []


def _wait_for_orphans(store: Path) -> None:
    """The compilers of the killed go on for a moment."""
    for _ in range(100):
        if str(store) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout:
            return
        time.sleep(0.1)


# --- No room ---


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of a given size, or gives it another."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def sized(size: str) -> Path:
        nonlocal mounted
        options = f"size={size}" if not mounted else f"remount,size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield sized
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", ["4k", "32k", "100k", "170k"])
def test_a_full_disk_costs_a_warning_and_nothing_else(
    kernel: dm.Kernel, disk: Callable[[str], Path], size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = disk(size) / "store"
    monkeypatch.setenv("DIMORPH_STORE", str(store))
    used = _use(kernel)
    assert used["answer"] == 1002
    kept_here = [path.startswith(str(store)) for path in used["paths"]]
    assert len(used["warnings"]) == (0 if all(kept_here) else 1)
    if not all(kept_here):
        assert str(store) in used["warnings"][0]
    _entries(store)
    disk("16m")
    assert _use(kernel)["answer"] == 1002
    again = _use(kernel)
    assert (again["answer"], again["places"], again["warnings"]) == (1002, ["store", "store"], [])


def test_sizes_above_reach_every_step(kernel: dm.Kernel, store: Path) -> None:
    """Guards them: what is kept fits on none of those disks, and on the large one."""
    _use(kernel)
    size = sum(file.stat().st_blocks * 512 for file in store.rglob("*") if file.is_file())
    assert 170 * 1024 <= size < 16 * 1024 * 1024


# --- No right to write, no home ---


@pytest.fixture(scope="module")
def open_kernel() -> Iterator[dm.Kernel]:
    """A kernel whose sources every user can read."""
    with tempfile.TemporaryDirectory(prefix="dimorph-test-") as name:
        Path(name).chmod(0o755)
        root = Path(name) / "sources"
        shutil.copytree(PICK.root, root, ignore=shutil.ignore_patterns("__pycache__"))
        kernel = dm.Kernel(name="pick", entry="pick.cc", case=["pick_case.cc"], axes=PICK.axes, root=root)
        # Everything that is imported late, as another user cannot read Python's own files here.
        config = replace(settings.current(), store=Path(name) / "warm")
        kernel.load(width=1, depth=1, settings=config)
        yield kernel


def _as_stranger(environment: dict[str, str], work: Callable[[], Any]) -> Any:
    def child() -> Any:
        for name in ("HOME", "DIMORPH_STORE", "XDG_CACHE_HOME", "TMPDIR"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        signal.alarm(30)
        tempfile.tempdir = None
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            answer = work()
        return [answer, len([w for w in warned if issubclass(w.category, RuntimeWarning)])]

    return in_child(child, uid=STRANGER)


def _values(kernel: dm.Kernel, *calls: tuple[int, int]) -> Callable[[], list[int]]:
    return lambda: [int(kernel.load(width=w, depth=d).pick(w, d)) for w, d in calls]


@needs_root
def test_a_store_that_may_not_be_written_costs_one_warning(open_kernel: dm.Kernel) -> None:
    store = open_kernel.root.parent / "store"
    store.mkdir(mode=0o700)
    os.chown(store, STRANGER, STRANGER)
    environment = {"DIMORPH_STORE": str(store)}
    assert _as_stranger(environment, _values(open_kernel, (1, 1))) == [[1001], 0]
    before = len(list(store.rglob("*")))
    for directory, _, _ in os.walk(store):
        Path(directory).chmod(0o500)
    assert _as_stranger(environment, _values(open_kernel, (1, 1))) == [[1001], 0], "what is there serves"
    assert _as_stranger(environment, _values(open_kernel, (1, 2), (2, 2), (1, 2))) == [[1002, 2002, 1002], 1]
    assert len(list(store.rglob("*"))) == before


@needs_root
@pytest.mark.parametrize("home", ["/nonexistent/home", "/", "", "/dev/null", "/proc", None])
def test_a_home_that_is_not_there_costs_one_warning(open_kernel: dm.Kernel, home: str | None) -> None:
    environment = {} if home is None else {"HOME": home}
    (answer, warned) = _as_stranger(environment, _values(open_kernel, (1, 1), (1, 2)))
    assert answer == [1001, 1002]
    assert warned <= 1
    own = Path(f"/tmp/dimorph-{STRANGER}")
    if own.is_dir() and own.stat().st_uid == STRANGER:
        shutil.rmtree(own)


@pytest.mark.parametrize("place", ["/dev/null/store", "/proc/store", "/sys/store"])
def test_a_store_where_nothing_can_be_made_costs_one_warning(
    kernel: dm.Kernel, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMORPH_STORE", place)
    used = _use(kernel)
    assert used["answer"] == 1002 and len(used["warnings"]) == 1
    assert place in used["warnings"][0]


def test_a_home_behind_a_link_is_as_good_as_any(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to("real")
    monkeypatch.delenv("DIMORPH_STORE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _use(kernel)["places"] == ["built", "built"]
    used = _use(kernel)
    assert (used["places"], used["warnings"]) == (["store", "store"], [])
    assert _entries(tmp_path / "real" / ".cache" / "dimorph")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    assert _use(kernel)["places"] == ["store", "store"]


# --- Bad content ---


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def _flip_first(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


DAMAGE = {f.__name__.strip("_"): f for f in (_truncate, _empty, _flip, _flip_first, _longer)} | {"removed": os.unlink}


@pytest.mark.parametrize("damage", list(DAMAGE))
@pytest.mark.parametrize("kind", ["entry", "case"])
@pytest.mark.parametrize("file", ["object", "meta.json"])
def test_a_damaged_artifact_is_built_anew(kernel: dm.Kernel, store: Path, file: str, kind: str, damage: str) -> None:
    _use(kernel)
    (artifact,) = [a for a in _entries(store) if a.meta.kind == kind]
    name = artifact.file if file == "object" else artifact.path / file
    name.chmod(0o600)
    DAMAGE[damage](name)
    used = _use(kernel)
    assert used["answer"] == 1002
    assert sorted(used["places"]) == ["built", "store"] and used["warnings"] == []
    assert "content is bad" in used["log"]
    assert len(_entries(store)) == 2
    assert _use(kernel)["places"] == ["store", "store"]


@pytest.mark.parametrize("shared", [False, True], ids=["packaged", "shared"])
def test_a_damaged_artifact_of_somebody_else_is_passed_over_and_left(
    kernel: dm.Kernel, store: Path, shared: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _use(kernel)
    place = tmp_path / "shared" if shared else kernel.root / PACKAGED
    store.rename(place)
    if shared:
        monkeypatch.setenv("DIMORPH_SHARED_STORES", str(place))
    (artifact,) = [a for a in _entries(place) if a.meta.kind == "case"]
    artifact.file.chmod(0o600)
    _flip(artifact.file)
    used = _use(kernel)
    assert used["answer"] == 1002
    assert used["places"] == ["shared store" if shared else "packaged", "built"]
    assert "content is bad" in used["log"]
    assert artifact.file.exists()


def test_a_whole_artifact_under_another_key_is_not_taken_for_it(kernel: dm.Kernel, store: Path) -> None:
    """A directory copied by hand: its checksums agree, but it is not what was asked for."""
    _use(kernel, 1, 1)
    _use(kernel, 2, 2)
    one, two = (
        [a for a in _entries(store) if a.meta.specialization.get("width") == w and a.meta.kind == "case"] for w in "12"
    )
    shutil.rmtree(one[0].path)
    shutil.copytree(two[0].path, one[0].path)
    assert _use(kernel, 1, 1)["answer"] == 1001
    assert _use(kernel, 2, 2)["answer"] == 2002


def test_a_store_that_is_removed_under_a_running_module_is_made_again(kernel: dm.Kernel, store: Path) -> None:
    module = kernel.load()
    assert module.pick(1, 1) == 1001
    shutil.rmtree(store)
    assert [module.pick(1, 1), module.pick(2, 1), module.pick(30, 1)] == [1001, 2001, 30001]
    assert len(_entries(store)) == 3


def test_an_entry_pruned_between_finding_and_loading_is_built_again(
    kernel: dm.Kernel, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(kernel)
    find = Store.find
    pruned: list[Path] = []

    def find_and_lose(self: Store, key: str, toolchain_id: str | None = None) -> Artifact | None:
        found = find(self, key, toolchain_id)
        if found and len(pruned) < 2:
            pruned.append(found.path)
            shutil.rmtree(found.path)
        return found

    monkeypatch.setattr(Store, "find", find_and_lose)
    assert _use(kernel)["answer"] == 1002


# --- Not ours ---


def _chown(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def _open_to_group(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def _open_to_world(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _linked(path: Path) -> None:
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    path.symlink_to(away)


UNSAFE = {"foreign": _chown, "group": _open_to_group, "world": _open_to_world, "link": _linked}
LEVELS = {
    "root": lambda store, artifact: store,
    "prefix": lambda store, artifact: artifact.path.parent.parent,
    "key": lambda store, artifact: artifact.path.parent,
    "entry": lambda store, artifact: artifact.path,
    "object": lambda store, artifact: artifact.file,
    "meta": lambda store, artifact: artifact.path / "meta.json",
}


@needs_root
@pytest.mark.parametrize("level", list(LEVELS))
@pytest.mark.parametrize("unsafe", list(UNSAFE))
def test_what_others_may_have_written_is_refused_and_the_call_works(
    kernel: dm.Kernel, store: Path, unsafe: str, level: str
) -> None:
    _use(kernel)
    (artifact,) = [a for a in _entries(store) if a.meta.kind == "case"]
    content = {file: file.read_bytes() for file in artifact.path.iterdir()}
    spoilt = LEVELS[level](store, artifact)
    UNSAFE[unsafe](spoilt)
    used = _use(kernel)
    assert used["answer"] == 1002
    if (level, unsafe) == ("root", "link"):
        assert used["places"] == ["store", "store"], "a linked root is resolved once, and fine"
        return
    assert used["places"][1] == "built"
    assert "refused" in used["why"] and str(spoilt) in used["why"]
    assert len(used["warnings"]) == 1 and str(spoilt) in used["warnings"][0]
    assert not used["paths"][1].startswith(str(store)), "built privately"
    assert {file: file.read_bytes() for file in content} == content, "what is refused is left as it is"
