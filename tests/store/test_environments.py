"""Stores in the environments that people have: overlays, odd masks, directories that cannot be read or written."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.cli.explain import explain
from dimorph.declare.instantiations import instantiate
from dimorph.errors import MissingSpecialization
from dimorph.plan.unit import entry_unit
from dimorph.resolve.search import search
from dimorph.resolve.wider import serving_set
from dimorph.store import locks, mark
from dimorph.store.layers import PACKAGED, packaged_store, shared_store
from dimorph.store.store import Store
from support.kernels import SCALE
from support.store import IS_ROOT, ME, STRANGER, content_of, in_child, key_of, needs_root, publish, tool_of, tree

# Overlays, as in containers


@pytest.fixture
def overlay(tmp_path: Path, sources: Path) -> Iterator[Path]:
    """A store of a lower layer of an overlay, with one good and one bad entry."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not IS_ROOT or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting is not permitted here; test_a_directory_that_cannot_be_renamed stands in for it")
    for name in ("lower", "upper", "work", "merged"):
        (disk / name).mkdir(mode=0o700)
    lower = Store(disk / "lower" / "store")
    publish(lower, sources)
    with publish(lower, sources, key=2).file.open("r+b") as stream:
        stream.write(b"spoiled")
    options = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
    mounted = subprocess.run(["mount", "-t", "overlay", "-o", options, "o", str(disk / "merged")], check=False)
    try:
        if mounted.returncode:
            pytest.skip("mounting an overlay is not permitted here")
        yield disk / "merged" / "store"
    finally:
        subprocess.run(["umount", str(disk / "merged")], check=False)
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_pruning_an_overlay(overlay: Path) -> None:
    store = Store(overlay)
    assert len(store.prune(0, None)) == 2
    assert tree(store.root) == [mark.NAME, "tmp"]


def test_repairing_and_rebuilding_on_an_overlay(overlay: Path, sources: Path) -> None:
    store = Store(overlay)
    assert store.find(key_of(2)) is None
    assert not (store.root / "00" / key_of(2)).exists()
    assert publish(store, sources, key=2).file.read_bytes() == content_of(2)
    assert store.remove(key_of(1)) == 1
    assert publish(store, sources).file.read_bytes() == content_of(1)
    assert store.verify() == []


def test_replacing_bad_content_on_an_overlay(overlay: Path, sources: Path) -> None:
    store = Store(overlay)
    assert publish(store, sources, key=2).file.read_bytes() == content_of(2)
    assert store.verify() == []


@pytest.fixture
def no_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if len(path.name) == 16:  # an entry
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)


@pytest.mark.usefixtures("no_rename")
@pytest.mark.parametrize("act", ["prune", "remove", "find", "publish"])
def test_a_directory_that_cannot_be_renamed(store: Store, sources: Path, act: str) -> None:
    artifact = publish(store, sources)
    if act in ("find", "publish"):
        artifact.file.chmod(0o600)
        artifact.file.write_bytes(b"spoiled")
    acts: dict[str, Callable[[], object]] = {
        "prune": lambda: store.prune(0, None),
        "remove": lambda: store.remove(key_of(1)),
        "find": lambda: store.find(key_of(1)),
        "publish": lambda: publish(store, sources),
    }
    acts[act]()
    assert tree(store.root / "00") == [] or act == "publish"
    assert publish(store, sources).file.read_bytes() == content_of(1)


@pytest.mark.usefixtures("no_rename")
def test_an_entry_that_goes_file_by_file_is_never_found_in_part(
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = publish(store, sources)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(OSError, match="Input/output"):
        store.remove(key_of(1))
    monkeypatch.undo()
    assert artifact.file.exists()
    assert Store(store.root, writable=False).find(key_of(1)) is None


# Locks


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE])
def test_a_lock_file_that_cannot_be_removed(
    store: Store, sources: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    unlink = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".lock"):
            raise OSError(code, os.strerror(code), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    with store.lock(key_of(1)) as held:
        assert held
        artifact = publish(store, sources)
    assert store.find(key_of(1)) == artifact
    with store.lock(key_of(1)) as held:  # free all the same
        assert held
    monkeypatch.undo()
    assert store.sweep() == 0
    assert tree(store.root / "locks") == tree(store.root / "tmp") == []


def test_a_file_system_on_which_no_lock_can_be_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of files differ between `stat` by name and by descriptor: the wait for a lock must end."""
    monkeypatch.setattr(locks, "_is_at", lambda _path, _fd: False)
    with store.lock(key_of(1)) as held:
        assert held  # by a lease
    with store.work_dir() as work:
        assert work.is_dir()


def test_a_pipe_in_place_of_a_lock(store: Store) -> None:
    with store.lock(key_of(1)):
        pass
    os.mkfifo(store.root / "locks" / f"{key_of(1)}.lock")
    with store.lock(key_of(1)) as held:
        assert not held


# Directories that cannot be written


CODES = [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR, errno.ELOOP]
CODES += [errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESTALE, errno.ENODEV, errno.EMLINK, errno.ENXIO]


@pytest.mark.parametrize("code", CODES, ids=[errno.errorcode[code] for code in CODES])
def test_every_reason_why_a_store_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, shared_store: Path
) -> None:
    """A load goes on in a private store: what it would build is put there by hand, so that nothing is compiled."""
    mkdir, store = Path.mkdir, tmp_path / "store"
    monkeypatch.setattr("dimorph.store.layers._fallback", [])
    monkeypatch.setattr("dimorph.resolve.build._compile", lambda *_: pytest.fail("compiled"))

    def fail(path: Path, *arguments: object, **named: object) -> None:
        if path.is_relative_to(store):
            raise OSError(code, os.strerror(code), str(path))
        mkdir(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", fail)
    monkeypatch.setattr("dimorph.resolve.build._find", lambda *_: None)
    monkeypatch.setattr(
        "dimorph.resolve.build._build_in",
        lambda where, *_: SimpleNamespace(path=where.toolchain_dir(), meta=SimpleNamespace(warnings=())),
    )
    from dimorph.resolve.build import Job, build
    from dimorph.resolve.levels import compiler, target_levels

    unit, config = entry_unit(instantiate(SCALE)), replace(settings.current(), store=store)
    with pytest.warns(RuntimeWarning, match="built for this process only"):
        (done,) = build([Job(unit, target_levels(config)[0], compiler(unit, config))], config, Store(store))
    assert not done.path.is_relative_to(store)


@needs_root
@pytest.mark.parametrize("layer", ["packaged", "shared", "user"])
@pytest.mark.parametrize("level", ["store", "above"])
def test_a_place_that_may_not_be_entered(open_path: Path, layer: str, level: str) -> None:
    """Every place is passed over with a reason, and the search goes on to the others."""
    closed = open_path / "closed"
    root = closed / {"packaged": f"kernel/{PACKAGED}", "shared": "store", "user": "store"}[layer]
    publish(Store(root, private=False), open_path / "sources")
    closed.chmod(0o755)
    (root if level == "store" else root.parent).chmod(0)
    kernel = replace(SCALE, root=closed / "kernel") if layer == "packaged" else SCALE
    unit = replace(entry_unit(instantiate(SCALE)), kernel=kernel)
    config = replace(
        settings.current(),
        store=root if layer == "user" else open_path / "none",
        shared_stores=(root,) if layer == "shared" else (),
    )
    instantiations = replace(instantiate(SCALE), kernel=kernel)

    def searched() -> list[object]:
        found = search(unit, config, "aot")
        try:
            serving_set(instantiations, config, "aot")
        except dm.DeclarationError:  # the sources themselves cannot be read
            assert layer == "packaged"
        return list(found) if isinstance(found, list) else ["found"]

    why = in_child(searched, uid=ME)
    name = {"packaged": "packaged", "shared": "shared store", "user": "store"}[layer]
    (line,) = [line for line in why if line.startswith(f"{name} (")]
    assert "not there" in line or "Permission denied" in line or "refused" in line, line


# Masks


@pytest.mark.parametrize("mask", [0o077, 0o177, 0o007, 0o022, 0])
def test_a_built_set_can_be_read_by_others_whatever_the_mask(tmp_path: Path, sources: Path, mask: int) -> None:
    tmp_path.chmod(0o755)

    def build() -> list[str]:
        os.umask(mask)
        store = Store(tmp_path / "new" / "out", private=False)
        publish(store, sources)
        store.sweep()
        wrong = []
        for path in (store.root.parent, *store.root.parent.rglob("*")):
            bits = stat.S_IMODE(path.lstat().st_mode)
            if bits != (0o755 if path.is_dir() else 0o444):
                wrong.append(f"{path}: {bits:o}")
        return wrong

    assert in_child(build) == []


@needs_root
def test_another_user_finds_a_set_that_was_built_under_a_private_mask(open_path: Path) -> None:
    def build() -> None:
        os.umask(0o077)
        publish(Store(open_path / "out", private=False), open_path / "sources")

    (open_path / "sources").mkdir()
    os.chown(open_path, STRANGER, STRANGER)
    os.chown(open_path / "sources", STRANGER, STRANGER)
    in_child(build, uid=STRANGER)
    for make in (shared_store, lambda path: Store(path, private=False, beside_code=True)):
        assert in_child(lambda make=make: make(open_path / "out").find(key_of(1)) is not None, uid=ME)  # type: ignore[misc]


def test_a_private_store_stays_private(tmp_path: Path, sources: Path) -> None:
    def build() -> list[int]:
        os.umask(0)
        publish(Store(tmp_path / "own"), sources)
        return [stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in (tmp_path / "own").rglob("*")]

    assert set(in_child(build)) == {0}


# The policy aot, and explain


def state(root: Path) -> list[tuple[str, int, int]]:
    return [(str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in [root, *sorted(root.rglob("*"))]]


@pytest.mark.parametrize("damage", ["object", "meta", "none", "old"])
@pytest.mark.parametrize("act", ["load", "explain", "explain aot"])
def test_nothing_is_written(damage: str, act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "own"
    config = replace(settings.current(), store=store)
    SCALE.load(policy="jit", settings=config, dtype="float32", width=7)
    for artifact in list(Store(store).entries()):
        if damage == "object":
            artifact.path.joinpath("meta.json").with_name(next(iter(artifact.meta.files))).unlink()  # type: ignore[union-attr]
        elif damage == "meta":
            artifact.path.joinpath("meta.json").chmod(0o600)
            artifact.path.joinpath("meta.json").write_text("{")
        if damage != "none":
            os.utime(artifact.path, (0, 0))
    shutil.rmtree(store / "tmp")
    shutil.rmtree(store / "locks")
    before = state(store)
    one = instantiate(SCALE, {"dtype": "float32", "width": 7})
    if act == "load":
        try:
            SCALE.load(policy="aot", settings=config, dtype="float32", width=7)
        except MissingSpecialization:
            assert damage in ("object", "meta")
    else:
        explain(one, config, "aot" if act == "explain aot" else "auto")
    assert state(store) == before


def test_explain_makes_no_store(tmp_path: Path) -> None:
    explain(
        instantiate(SCALE, {"dtype": "float32", "width": 7}), replace(settings.current(), store=tmp_path / "s"), "auto"
    )
    assert tree(tmp_path) == []
    assert packaged_store(tmp_path).find(key_of(1), tool_of(1)) is None


_WORKERS = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
sys.path[:0] = {path!r}
from support.kernels import PICK

def work():
    assert PICK.load(width=1, depth=1).pick(1, 1) == 1001

if __name__ == "__main__":
    worker = multiprocessing.get_context({how!r}).Process(target=work)
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""


@pytest.mark.parametrize("how", ["fork", "forkserver", "spawn"])
def test_workers_leave_no_private_store(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # a short path: the fork server binds a socket in it
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("DIMORPH_STORE", "/proc/nowhere/store")  # cannot be made
    script = tmp_path / "workers.py"
    script.write_text(_WORKERS.format(path=[path for path in sys.path if path], how=how))
    assert subprocess.run([sys.executable, str(script)], check=False).returncode == 0
    left = [path.name for path in temporary.glob("dimorph-*")]
    shutil.rmtree(temporary)
    assert not left
