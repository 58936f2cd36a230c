"""Stores under attack by another user: owners, modes, links, pipes, devices, parents, and swaps during a load.

Every case is tried in a child process that is neither root nor the attacker. It must end at once, find nothing that the
attacker could have made, and change nothing outside the store. The cases are the rows of tables, so that one more trick
is one more line.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import resource
import signal
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dimorph import settings
from dimorph.errors import ArtifactCorrupt, StoreRefused
from dimorph.store import manifest
from dimorph.store.layers import memo_dir, packaged_store, private_store, shared_store, user_store
from dimorph.store.manifest import Manifest
from dimorph.store.store import Store
from dimorph.store.trust import Trust
from dimorph.toolchain import host
from support.store import ME, STRANGER, in_child, key_of, needs_root, publish, tool_of, tree

pytestmark = needs_root

TEAM = 5432  # a group that is nobody's own


@dataclass
class Place:
    """A store of the child, `grand/parent/store`, with one artifact, a memo and a manifest."""

    grand: Path

    @property
    def parent(self) -> Path:
        return self.grand / "parent"

    @property
    def root(self) -> Path:
        return self.parent / "store"

    def path(self, name: str) -> Path:
        entry = self.root / "00" / key_of(1) / tool_of(1)
        return {
            "grand": self.grand,
            "parent": self.parent,
            "root": self.root,
            "shard": entry.parent.parent,
            "key": entry.parent,
            "entry": entry,
            "object": entry / "case.so",
            "meta": entry / "meta.json",
            "tmp": self.root / "tmp",
            "locks": self.root / "locks",
            "toolchains": self.root / "toolchains",
            "memo": memo_of(self.root),
            "manifest": self.root / "manifest.json",
        }[name]


def memo_of(root: Path) -> Path:
    files = sorted(root.glob("toolchains/*.json"))
    return files[0] if files else root / "toolchains" / f"{1:016x}.json"


@pytest.fixture(scope="module")
def memo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The memo of the compiler's identity.

    Made with every module that the children need, which they may not be allowed to import.
    """
    import concurrent.futures.thread
    import tempfile

    assert concurrent.futures.thread and tempfile
    root = tmp_path_factory.mktemp("warm")
    store = Store(root / "store")
    publish(store, root)
    store.prune(0, None)
    host.find(settings.current()).identity(memo_dir(store))
    return memo_of(store.root)


@pytest.fixture
def right(memo: Path) -> str:
    """The identity of the compiler."""
    return str(json.loads(memo.read_text())["id"])


@pytest.fixture
def place(open_path: Path, memo: Path) -> Place:
    made, content = Place(open_path / "grand"), memo.read_text()

    def build() -> None:
        os.umask(0o022)
        store = Store(made.root)
        publish(store, open_path / "sources")
        with store.lock(key_of(1)), store.work_dir():
            pass
        store.toolchain_dir().joinpath(memo.name).write_text(content)
        made.path("manifest").write_text(Manifest({}).to_json())

    os.chown(open_path, ME, ME)
    in_child(build, uid=ME)
    for directory in (made.grand, made.parent, made.root):
        directory.chmod(0o755)
    return made


# What may be done to a path of the store, by the attacker or by carelessness.


def foreign(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o444)
    os.chown(path, STRANGER, -1)


def mode(bits: int, group: int = -1) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        os.chown(path, -1, group)
        path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)

    change.__name__ = f"mode_{bits:o}_{group}"
    return change


def link_to_own(path: Path) -> None:
    """Move the path away and link to it: the content is the user's own, but a link can be switched."""
    away = path.with_name(f"{path.name}-away")
    path.rename(away)
    path.symlink_to(away)
    os.chown(path, STRANGER, -1, follow_symlinks=False)


def link_to(target: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)
        os.chown(path, ME, ME, follow_symlinks=False)

    change.__name__ = f"link_to_{Path(target).name}"
    return change


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)
    os.chown(path, ME, ME)


def device(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    os.chown(path, ME, ME)


def huge(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 1 << 40)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    os.chown(path, ME, ME)


DIRECTORIES = ("root", "shard", "key", "entry")
FILES = ("object", "meta")
OPENED = [foreign, mode(0o020, TEAM), mode(0o002), mode(0o022), mode(0o1002)]
ODD = [link_to("/dev/zero"), link_to("/dev/stdin"), link_to("/proc/self/environ"), fifo, device, huge, directory]
# A sticky directory above the store is fine, and so is the group of the user alone.
ABOVE = [foreign, mode(0o020, TEAM), mode(0o002), mode(0o022), mode(0o020, 0), link_to_own]

CASES = [(where, harm) for where in (*DIRECTORIES, *FILES) for harm in OPENED]
CASES += [(where, harm) for where in FILES for harm in ODD]
CASES += [(where, harm) for where in ("shard", "key", "entry", *FILES) for harm in (link_to_own,)]
PARENTS = [(where, harm) for where in ("grand", "parent") for harm in ABOVE]


def named(value: object) -> str:
    return getattr(value, "__name__", str(value))


def survive(act: Callable[[], object]) -> str:
    """Return the name of an act's error, or its result as text; end a process that hangs or eats memory."""
    signal.alarm(10)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    try:
        return str(act())
    except (OSError, ArtifactCorrupt) as error:
        return type(error).__name__


def outside(place: Place) -> list[tuple[str, int, int]]:
    """Return every path outside the store, with size and owner."""
    return [
        (str(path), path.lstat().st_size, path.lstat().st_uid)
        for path in sorted(place.grand.parent.rglob("*"))
        if not path.is_relative_to(place.root)
    ]


@pytest.mark.parametrize(("where", "harm"), [*CASES, *PARENTS], ids=named)
def test_an_artifact_is_not_found(place: Place, where: str, harm: Callable[[Path], None]) -> None:
    assert in_child(lambda: str(Store(place.root).find(key_of(1))), uid=ME) != "None"
    harm(place.path(where))
    before = outside(place)
    found = in_child(lambda: survive(lambda: Store(place.root).find(key_of(1), tool_of(1))), uid=ME)
    # A file of the wrong size or kind is bad content; all else is a refusal.
    assert found in (("StoreRefused", "None") if where in FILES else ("StoreRefused",)), found
    if harm is not huge:
        assert found == "StoreRefused"
    assert outside(place) == before


@pytest.mark.parametrize(("where", "harm"), PARENTS, ids=named)
@pytest.mark.parametrize("act", ["publish", "sweep", "prune", "lock", "toolchain_dir"])
def test_below_such_a_parent_nothing_is_written(
    place: Place, where: str, harm: Callable[[Path], None], act: str
) -> None:
    harm(place.path(where))
    before = tree(place.grand)

    def attempt() -> object:
        store = Store(place.root)
        if act == "publish":
            return publish(store, place.grand.parent / "sources", key=2)
        if act == "lock":
            with store.lock(key_of(1)):
                return "locked"
        return store.prune(0, None) if act == "prune" else getattr(store, act)()

    assert in_child(lambda: survive(attempt), uid=ME) == "StoreRefused"
    assert tree(place.grand) == before


@pytest.mark.parametrize("where", ["tmp", "locks", "toolchains"])
@pytest.mark.parametrize("harm", [foreign, mode(0o020, TEAM), mode(0o002), link_to_own], ids=named)
def test_directories_for_work(place: Place, where: str, harm: Callable[[Path], None]) -> None:
    away = place.grand.parent / "victim"
    away.mkdir()
    (away / f"{1:016x}.json").write_text("{}")
    os.chown(away, ME, ME)
    harm(place.path(where))

    def attempt() -> object:
        store = Store(place.root)
        if where == "toolchains":
            return memo_dir(store)
        with store.lock(key_of(2)), store.work_dir():
            return "worked"

    assert in_child(lambda: survive(attempt), uid=ME) in ("StoreRefused", "None")
    assert tree(away) == [f"{1:016x}.json"]


# Identities of compilers


FORGED = {"format": 2, "id": "deadbeefdeadbeef", "description": "mallory", "files": []}


def forged(path: Path) -> None:
    driver = host.find(settings.current()).command[0]
    status = Path(driver).stat()
    stamp = [driver, status.st_ino, status.st_size, status.st_mtime_ns]
    path.write_text(json.dumps({**FORGED, "files": [stamp]}))


def forged_open(path: Path) -> None:
    forged(path)
    path.chmod(0o666)


def forged_foreign(path: Path) -> None:
    forged(path)
    os.chown(path, STRANGER, STRANGER)


def forged_link(path: Path) -> None:
    real = path.parents[3] / "forged.json"
    forged(real)
    path.unlink()
    path.symlink_to(real)


@pytest.mark.parametrize("harm", [*ODD, forged_open, forged_foreign, forged_link, fifo], ids=named)
def test_a_memo_is_not_believed(place: Place, right: str, harm: Callable[[Path], None]) -> None:
    harm(place.path("memo"))

    def identified() -> object:
        return host.find(settings.current()).identity(memo_dir(Store(place.root))).id

    assert in_child(lambda: survive(identified), uid=ME) == right


@pytest.mark.parametrize("harm", [foreign, mode(0o020, TEAM), mode(0o002)], ids=named)
@pytest.mark.parametrize("trick", [forged, *ODD], ids=named)
def test_no_memo_of_a_refused_store_is_touched(
    place: Place, right: str, harm: Callable[[Path], None], trick: Callable[[Path], None]
) -> None:
    trick(place.path("memo"))
    harm(place.root)
    before = [(path, os.lstat(path)) for path in sorted(place.root.rglob("*"))]

    def identified() -> object:
        return host.find(settings.current()).identity(memo_dir(Store(place.root))).id

    assert in_child(lambda: survive(identified), uid=ME) == right
    after = [(path, os.lstat(path)) for path in sorted(place.root.rglob("*"))]
    assert [(p, s.st_ino, s.st_mtime_ns) for p, s in after] == [(p, s.st_ino, s.st_mtime_ns) for p, s in before]


# Manifests of shared and packaged layers


@pytest.mark.parametrize(
    ("where", "harm"),
    [("manifest", harm) for harm in (*ODD, foreign, mode(0o002), mode(0o020, TEAM), link_to_own)]
    + [("root", harm) for harm in (foreign, mode(0o002), mode(0o020, TEAM))],
    ids=named,
)
@pytest.mark.parametrize("layer", [shared_store, lambda root: Store(root, private=False, beside_code=True)])
def test_a_manifest_is_not_read(
    place: Place, where: str, harm: Callable[[Path], None], layer: Callable[[Path], Store]
) -> None:
    harm(place.path(where))
    result = in_child(lambda: survive(lambda: manifest.read(layer(place.root))), uid=ME)
    assert result in ("StoreRefused", "ArtifactCorrupt", "IsADirectoryError"), result


# Parents that are fine


@pytest.mark.parametrize(
    ("where", "owner", "bits"),
    [
        ("grand", 0, 0o755),
        ("grand", 0, 0o1777),
        ("grand", ME, 0o1777),
        ("grand", 0, 0o1775),
        ("parent", 0, 0o711),
        ("parent", 0, 0o3777),
        ("parent", ME, 0o700),
    ],
)
def test_safe_parents(place: Place, where: str, owner: int, bits: int) -> None:
    os.chown(place.path(where), owner, TEAM)
    place.path(where).chmod(bits)
    assert in_child(lambda: str(Store(place.root).find(key_of(1))), uid=ME) != "None"


@pytest.mark.parametrize(
    ("name", "members", "accepted"),
    [("me", [], True), ("me", ["me"], True), ("me", ["me", "mallory"], False), ("team", [], False)],
)
def test_the_group_of_one_user_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, members: list[str], accepted: bool
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("me", "x", uid, TEAM, "", "/", "/bin/sh")))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, members)))
    os.chown(place.parent, ME, TEAM)
    place.parent.chmod(0o775)
    found = in_child(lambda: survive(lambda: Store(place.root).find(key_of(1)) is not None), uid=ME)
    assert found == ("True" if accepted else "StoreRefused")
    monkeypatch.setattr(os, "listxattr", lambda _path: ["system.posix_acl_access"])  # an entry for somebody else
    assert in_child(lambda: survive(lambda: Store(place.root).find(key_of(1))), uid=ME) == "StoreRefused"


def test_directories_above_packages_are_those_of_the_code(place: Place) -> None:
    """Whoever can write there can replace the Python code that declares the kernel, and has run."""
    package = place.parent / "package"
    in_child(lambda: str(publish(Store(package / "_dimorph", private=False), place.grand.parent / "sources")), uid=ME)
    for harm in (mode(0o002), foreign):
        harm(place.grand)
        found = in_child(lambda: survive(lambda: packaged_store(package).find(key_of(1)) is not None), uid=ME)
        assert found == "True"
        found = in_child(lambda: survive(lambda: shared_store(package / "_dimorph").find(key_of(1))), uid=ME)
        assert found == "StoreRefused"


def test_a_shared_store_trusts_its_holder(open_path: Path) -> None:
    theirs = open_path / "account"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    root = theirs / "store"
    in_child(lambda: str(publish(Store(root, private=False), theirs / "sources")), uid=STRANGER)
    assert in_child(lambda: survive(lambda: shared_store(root).find(key_of(1)) is not None), uid=ME) == "True"
    assert in_child(lambda: survive(lambda: Store(root).find(key_of(1))), uid=ME) == "StoreRefused"
    os.chown(theirs, STRANGER + 1, -1)
    assert in_child(lambda: survive(lambda: shared_store(root).find(key_of(1))), uid=ME) == "StoreRefused"


# Swaps during a load


@pytest.mark.parametrize("held", ["foreign", "team"])
def test_a_swap_of_the_store_during_loads(place: Place, held: str) -> None:
    """The attacker exchanges the store with one of his own, again and again."""
    evil = place.parent / "evil"
    (foreign if held == "foreign" else mode(0o020, TEAM))(place.parent)
    os.chown(place.grand.parent, STRANGER, -1)
    in_child(lambda: str(publish(Store(place.grand.parent / "evil"), place.grand.parent / "theirs")), uid=STRANGER)
    (place.grand.parent / "evil").rename(evil)
    stop = threading.Event()

    def flip() -> None:
        spare = place.parent / "spare"
        while not stop.is_set():
            for one, two in ((place.root, spare), (evil, place.root), (place.root, evil), (spare, place.root)):
                one.rename(two)

    attacker = threading.Thread(target=flip)
    attacker.start()
    try:

        def load() -> list[str]:
            results = {survive(lambda: Store(place.root).find(key_of(1))) for _ in range(200)}
            return sorted(results)

        assert set(in_child(load, uid=ME)) <= {"StoreRefused", "None"}
    finally:
        stop.set()
        attacker.join()


@pytest.mark.parametrize("level", ["object", "meta", "entry", "key", "root"])
def test_a_swap_between_check_and_use(place: Place, level: str) -> None:
    """A link that replaces a path between two checks is not followed."""
    path = place.path(level)
    away = place.grand.parent / "away"

    def load() -> str:
        check = Trust.check

        def swap_after(self: Trust, checked: Path, *args: object, **named: object) -> None:
            check(self, checked, *args, **named)  # type: ignore[arg-type]
            if checked == path.parent and not away.exists():
                path.rename(away)
                path.symlink_to("/dev/zero" if level in FILES else "/proc/self")

        Trust.check = swap_after  # type: ignore[method-assign]
        return survive(lambda: Store(place.root).find(key_of(1), tool_of(1)))

    if level == "root":
        path.rename(away)
        path.symlink_to(away)
        os.chown(path, STRANGER, -1, follow_symlinks=False)
    os.chown(place.grand.parent, ME, ME)
    assert in_child(load, uid=ME) == "StoreRefused"


# Directories for temporary files


def test_a_directory_for_temporary_files_that_anybody_can_write(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = place.grand.parent / "loose"
    loose.mkdir()
    loose.chmod(0o777)

    def build() -> list[object]:
        monkeypatch.setattr("tempfile.tempdir", str(loose))
        monkeypatch.setattr("dimorph.store.layers._fallback", [])
        with pytest.warns(RuntimeWarning, match="built for this process only"):
            store = private_store(Store(place.root), StoreRefused("refused"))
        publish(store, place.grand.parent / "sources")
        return [store.root.is_relative_to(loose), store.find(key_of(1)) is not None]

    assert in_child(build, uid=ME) == [False, True]


def test_every_case_counts() -> None:
    """The tables together hold more than 150 cases."""
    assert len(CASES) + 6 * len(PARENTS) + 12 + 11 + 24 + 26 > 150


def test_a_root_that_is_a_device() -> None:
    for target in ("/dev/zero", "/dev/null", "/etc/passwd"):
        store = user_store(settings.current({"DIMORPH_STORE": target}))
        assert survive_here(store) == "StoreRefused"


def survive_here(store: Store) -> str:
    try:
        return str(store.find(key_of(1)))
    except OSError as error:
        return type(error).__name__
