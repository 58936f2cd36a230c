"""A directory is marked when it becomes a store, and nothing that a store did not make is ever deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import dimorph as dm
from dimorph.cli.commands import dimorph
from dimorph.errors import StoreRefused
from dimorph.store import mark
from dimorph.store.store import Store
from support.kernels import SCALE
from support.store import STRANGER, key_of, needs_root, publish, tree

OURS = "123-0123456789abcdef.another-machine"


def contents(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def make(root: Path, *names: str) -> Path:
    """Make files, and directories for the names that end with a slash."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(f"the user's {name}")
    root.mkdir(exist_ok=True, parents=True)
    root.chmod(0o700)
    return root


FOREIGN = [
    ("tmp/results/run1.txt",),
    ("locks/keys/private.key",),
    ("tmp/mine.lock", "tmp/notes"),
    ("tmp/old.d/f",),
    ("locks/0.lock",),
    (f"tmp/{OURS}/file", "thesis.txt"),
    (f"locks/{key_of(1)}.lock", "data/x"),
    ("manifest.json", "index.html"),
    ("toolchains/my-gcc/bin/gcc",),
    ("ab/notes.txt",),
    ("swept/file",),
    (".git/config",),
    ("tmp/",),
    ("locks/",),
    ("toolchains/",),
    ("manifest.json",),
    ("swept",),
    (f"{key_of(1)[:2]}/{key_of(1)}/",),
    (f"{key_of(1)[:2]}/{key_of(1)}",),
    (f"{key_of(1)[:2]}/{key_of(1)}/blob",),
    (f"{key_of(1)[:2]}/{key_of(1)}/{1:016x}/",),
    (f"{key_of(1)[:2]}/{key_of(1)}/{1:016x}/blob", "tmp/"),
]


@pytest.mark.parametrize("names", FOREIGN)
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("act", ["publish", "lock", "work_dir", "sweep", "prune", "is_due", "toolchain_dir"])
def test_a_directory_of_somebody_is_refused(
    tmp_path: Path, sources: Path, names: tuple[str, ...], private: bool, act: str
) -> None:
    root = make(tmp_path / "mine", *names)
    before = contents(root)
    store = Store(root, private=private)

    def locked() -> None:
        with store.lock(key_of(1)):
            pass

    def worked() -> None:
        with store.work_dir():
            pass

    acts: dict[str, Callable[[], object]] = {
        "publish": lambda: publish(store, sources),
        "lock": locked,
        "work_dir": worked,
        "sweep": store.sweep,
        "prune": lambda: [store.prune(0, None), store.sweep()],
        "is_due": lambda: store.is_due("swept", 1.0),
        "toolchain_dir": store.toolchain_dir,
    }
    with pytest.raises(StoreRefused, match="is no store of Dimorph and holds other things") as caught:
        acts[act]()
    assert any(name.startswith(str(caught.value).partition("(")[2].partition(")")[0]) for name in names)
    assert contents(root) == before


def test_a_new_or_empty_directory_becomes_a_store(tmp_path: Path, sources: Path) -> None:
    empty = make(tmp_path / "empty")
    for root in (empty, tmp_path / "new"):
        publish(Store(root), sources)
        assert (root / mark.NAME).read_bytes() == mark.TEXT


def test_a_store_without_a_mark_is_taken_over(store: Store, sources: Path) -> None:
    """Older versions made no mark."""
    artifact = publish(store, sources)
    assert store.is_due("swept", 1.0) is False
    with store.lock(key_of(1)):
        store.toolchain_dir().joinpath(f"{1:016x}.json").touch()
    (store.root / mark.NAME).unlink()
    again = Store(store.root)
    publish(again, sources, key=2)
    assert again.find(key_of(1)) == artifact
    assert mark.is_marked(store.root)


def test_a_store_without_a_mark_holds_nothing_else(store: Store, sources: Path) -> None:
    publish(store, sources)
    (store.root / mark.NAME).unlink()
    other = key_of(1)[:2], "a" * 64
    make(store.root, "/".join([*other, "blob"]))
    with pytest.raises(StoreRefused, match=rf"holds other things \({'/'.join([*other, 'blob'])}\)"):
        Store(store.root).prune(0, None)
    assert (store.root / "/".join([*other, "blob"])).is_file()


def test_things_put_into_a_store_later_stay(store: Store, sources: Path) -> None:
    publish(store, sources)
    make(store.root, "README", "tmp/notes", "tmp/results/", "locks/my.key", "notes/x", f"locks/{key_of(1)}/x")
    before = contents(store.root)
    with store.lock(key_of(2)):
        pass
    assert store.sweep() == 0
    assert store.prune(0, None) != []
    after = contents(store.root)
    assert {name for name in before if name not in after} == {name for name in before if name.partition("/")[0] == "00"}


@pytest.mark.parametrize(
    "name", ["12-0123456789abcdef", "x-0123456789abcdef.h", "12-0123456789ABCDEF.h", "12-0123.h", "1-2.h", "data"]
)
def test_only_exact_names_are_swept(store: Store, name: str) -> None:
    with store.work_dir() as work:
        tmp = work.parent
    make(tmp / name, "file")
    os.utime(tmp / name, (0, 0))
    (tmp / OURS).mkdir()
    os.utime(tmp / OURS, (0, 0))
    assert store.sweep() == 1
    assert (tmp / name / "file").exists()


@needs_root
@pytest.mark.parametrize("through", ["root", "parent", "chain"])
def test_a_link_of_somebody_else_is_refused(open_path: Path, sources: Path, through: str) -> None:
    home = make(open_path / "home")
    open_path.chmod(0o1777)
    link = open_path / "link"
    if through == "chain":
        (open_path / "mine").symlink_to(link)
    link.symlink_to(home)
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    root = {"root": link, "parent": link / "store", "chain": open_path / "mine"}[through]
    for store in (Store(root), Store(root, private=False)):
        with pytest.raises(StoreRefused, match=f"{link} is a link of user {STRANGER}"):
            publish(store, sources)
        with pytest.raises(StoreRefused, match=f"{link} is a link of user {STRANGER}"):
            store.find(key_of(1))
    assert tree(home) == []


def test_the_root_is_found_as_the_system_finds_it(tmp_path: Path) -> None:
    make(tmp_path / "a" / "b")
    (tmp_path / "c").symlink_to("a/b")
    (tmp_path / "d").symlink_to(f"{tmp_path}/c/../")
    (tmp_path / "gone").symlink_to("nowhere/else")
    for name in ("a/../c", "d", "d/b/new/../x", "c/..", "gone/x", "./a//b", "d/../d/b"):
        assert Store(tmp_path / name).root == Path(os.path.realpath(tmp_path / name)), name


# The commands


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory of a user, with a kernel and results."""
    shutil.copytree(SCALE.root, tmp_path / "project", ignore=shutil.ignore_patterns("__*", "_dimorph"))
    made = make(tmp_path / "project", "tmp/results/thesis.txt", "tmp/old.d/f", "locks/keys/private.key")
    (made / "declared.py").write_text(
        "import dimorph as dm\n"
        'scale = dm.Kernel("scale", entry="scale.cc", case=["scale_case.cc"],\n'
        '    axes=[dm.dtype_axis("dtype", "DType", ["float32"]), dm.int_axis("width", "WIDTH", [7])])\n'
    )
    return made


@pytest.mark.parametrize("fails", [False, True])
def test_build_into_the_working_directory(project: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.chdir(project)
    if fails:
        (project / "scale_case.cc").write_text("syntax error")
    before = contents(project)
    done = CliRunner().invoke(dimorph, ["build", "declared.py", "--out", "."])
    assert done.exit_code == 1
    assert "is no store of Dimorph and holds other things" in done.output
    assert {name: text for name, text in contents(project).items() if "__pycache__" not in name} == before


@pytest.mark.parametrize("name", ["tmp", "locks"])
def test_an_empty_directory_beside_what_is_built_stays(tmp_path: Path, name: str, project: Path) -> None:
    out = make(tmp_path / "out", f"{name}/")
    done = CliRunner().invoke(dimorph, ["build", str(project / "declared.py"), "--out", str(out)])
    assert done.exit_code == 1
    assert f"is no store of Dimorph and holds other things ({name})" in done.output
    assert contents(out) == {name: None}


@pytest.mark.parametrize("arguments", [["--max-size", "0"], ["--max-age", "0d"]])
def test_prune_of_a_directory_of_somebody(project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("DIMORPH_STORE", str(project))
    before = contents(project)
    done = CliRunner().invoke(dimorph, ["cache", "prune", *arguments])
    assert done.exit_code == 1
    assert "is no store of Dimorph" in done.output
    assert contents(project) == before


def test_a_load_with_a_directory_of_somebody_as_store_builds_privately(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMORPH_STORE", str(project))
    monkeypatch.setattr("dimorph.store.layers._fallback", [])
    before = contents(project)
    with pytest.warns(RuntimeWarning, match="is no store of Dimorph and holds other things"):
        module = SCALE.load(dtype="float32")
    assert isinstance(module, dm.Module)
    assert contents(project) == before
