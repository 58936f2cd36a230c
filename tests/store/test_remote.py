"""Remote stores: artifacts are fetched once, verified, and kept; a store that fails costs one time-out."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography, of the extra `remote`, is not installed")
pytest.importorskip("aiohttp", reason="aiohttp, of the extra `remote`, is not installed")

from dimorph.errors import ArtifactCorrupt, DimorphError, StoreRefused
from dimorph.store import fetched, mark, pack, remote
from dimorph.store.export import export
from dimorph.store.fetched import RemoteStore, kept_stores
from dimorph.store.layers import private_store
from dimorph.store.pack import Signer
from dimorph.store.remote import Remote, Unreachable
from dimorph.store.store import Store
from support.remote import Server, serving
from support.store import content_of, key_of, make_meta, publish, result_of, start_child, tree


@pytest.fixture(autouse=True)
def new_process() -> None:
    """Forget what this process knows of remote stores."""
    forget()


def forget() -> None:
    for known in (fetched._absent, fetched._elsewhere, fetched._refused, fetched._fresh, remote._left_alone):
        known.clear()


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("key") / "kernels.pem")


@pytest.fixture
def origin(tmp_path: Path, sources: Path, signer: Signer) -> Path:
    """A directory with the packs of two artifacts, signed."""
    made = Store(tmp_path / "origin")
    for key in (1, 2):
        publish(made, sources, key=key)
    directory = tmp_path / "remote"
    export(made, Remote(f"file://{directory}", None), signer)
    return directory


@pytest.fixture
def server(origin: Path) -> Iterator[Server]:
    with serving(origin) as running:
        yield running


Opened = Callable[..., RemoteStore]


@pytest.fixture
def opened(store: Store, server: Server, signer: Signer) -> Opened:
    """Return a function that refers to the served store as a load does, by default with its public key."""

    def make(url: str = server.url, key: str | None = signer.public_key, seconds: float = 5.0) -> RemoteStore:
        return RemoteStore(Remote(url, key), store.root, seconds, private_store)

    return make


def test_fetched_once_and_kept(opened: Opened, server: Server, store: Store) -> None:
    found = opened().find(key_of(1))
    assert found
    assert found.file.read_bytes() == content_of(1)
    assert found.path.is_relative_to(store.root)
    asked = len(server.asked)
    forget()
    assert opened().find(key_of(1)) == found
    assert len(server.asked) == asked
    assert [one.verify() for one in kept_stores(store)] == [[]]
    assert store.find(key_of(1)) is None  # an artifact of the user's own store is one that he compiled
    assert mark.is_marked(store.root)


@pytest.mark.parametrize("protocol", ["file", "memory"])
@pytest.mark.parametrize("is_signed", [True, False])
def test_protocols(opened: Opened, origin: Path, signer: Signer, protocol: str, is_signed: bool) -> None:
    url = f"file://{origin}"
    if protocol == "memory":
        url = f"memory://kernels-{os.urandom(8).hex()}"
        export(Store(origin.with_name("origin")), Remote(url, None), signer if is_signed else None)
    found = opened(url, signer.public_key if is_signed else None).find(key_of(2))
    assert found
    assert found.file.read_bytes() == content_of(2)
    assert opened(url, None).find(key_of(3)) is None


def test_a_second_hit_is_as_fast_as_a_local_one(opened: Opened) -> None:
    opened().find(key_of(1))
    seconds = []
    for _ in range(5):
        forget()
        began = time.perf_counter()
        assert opened().find(key_of(1))
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.01, seconds


def test_another_public_key_gets_nothing_that_was_kept_before(opened: Opened, origin: Path) -> None:
    assert opened(key=None).find(key_of(1))
    for file in origin.rglob("*.sig"):
        file.unlink()
    with pytest.raises(StoreRefused, match=r"expected a signature by .* found none"):
        opened().find(key_of(1))


def test_a_toolchain_that_is_not_there(opened: Opened) -> None:
    assert opened().find(key_of(1), "f" * 16) is None


# What is not an artifact


def zipped(change: Callable[[dict[str, bytes]], object]) -> Callable[[bytes], bytes]:
    """Return a function that changes the files in a pack."""

    def changed(content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        change(files)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return stream.getvalue()

    return changed


def claiming(size: int) -> Callable[[dict[str, bytes]], object]:
    def change(files: dict[str, bytes]) -> None:
        raw = json.loads(files["meta.json"])
        raw["files"]["case.so"]["size"] = size
        files["meta.json"] = json.dumps(raw).encode()

    return change


BAD = {
    "garbage": lambda _: b"garbage\0" * 100,
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "a page of a proxy": lambda _: b"<html>Please log in</html>",
    "without a description": zipped(lambda files: files.pop("meta.json")),
    "without its object": zipped(lambda files: files.pop("case.so")),
    "with another file": zipped(lambda files: files.update({"../../other.so": b"x"})),
    "with another object": zipped(lambda files: files.update({"case.so": b"other" * 200})),
    "with a wrong size": zipped(claiming(1 << 40)),
    "another artifact": None,
}


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("is_signed", [True, False])
def test_bad_content(
    opened: Opened,
    origin: Path,
    server: Server,
    signer: Signer,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    is_signed: bool,
) -> None:
    """Not even the owner of the key can make a load use it, as he might sign a file by mistake."""
    file, change = origin / pack.file_name(key_of(1)), BAD[fault]
    content = change(file.read_bytes()) if change else (origin / pack.file_name(key_of(2))).read_bytes()
    file.write_bytes(content)
    file.with_name(f"{file.name}.sig").write_bytes(signer.sign(content))
    there = opened() if is_signed else opened(key=None)
    refused(there, server, store, caplog, "not an artifact|expected")


def refused(there: RemoteStore, server: Server, store: Store, caplog: pytest.LogCaptureFixture, why: str) -> None:
    """Check that nothing is kept, and that one warning says why, however often it is asked for."""
    with pytest.raises(StoreRefused, match=why) as caught:
        there.find(key_of(1))
    assert there.remote.name in str(caught.value)
    asked = len(server.asked)
    for _ in range(2):
        with pytest.raises(StoreRefused, match=why):
            there.find(key_of(1))
    assert len(server.asked) == asked
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1, warnings
    assert "nothing of it is kept" in warnings[0]
    assert not [name for name in tree(store.root) if name.endswith((".so", ".json", ".zip"))]
    assert there.find(key_of(2))  # the others serve


@pytest.mark.parametrize("fault", ["missing", "empty", "short", "of another key", "of another file", "text"])
def test_bad_signatures(
    opened: Opened,
    origin: Path,
    server: Server,
    signer: Signer,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    tmp_path: Path,
) -> None:
    file = origin / pack.file_name(key_of(1))
    signature, other = file.with_name(f"{file.name}.sig"), Signer(tmp_path / "other.pem")
    right = signature.read_bytes()
    wrong = {
        "empty": b"",
        "short": right[:-1],
        "of another key": other.sign(file.read_bytes()),
        "of another file": signer.sign(b"another file"),
        "text": right.hex().encode(),
    }
    signature.unlink()
    if fault in wrong:
        signature.write_bytes(wrong[fault])
    why = f"expected a signature by {signer.public_key}, {'found none' if fault == 'missing' else 'got another one'}"
    refused(opened(), server, store, caplog, why)


def test_any_bytes_are_refused_with_one_kind_of_error(origin: Path) -> None:
    """Every byte of a pack, changed: it is refused, or the byte did not matter, and the checksums hold."""
    content = (origin / pack.file_name(key_of(1))).read_bytes()
    refused_ones = 0
    for at in range(0, len(content), 3):
        changed = bytearray(content)
        changed[at] ^= 0x55
        try:
            meta, files = pack.unpacked(bytes(changed), key_of(1), "here")
        except ArtifactCorrupt:
            refused_ones += 1
        else:
            assert (meta.key, files) == (key_of(1), {"case.so": content_of(1)})
    assert refused_ones > len(content) / 6


# Servers that fail


@pytest.mark.parametrize("fault", ["silent", "drip", "half", "redirect", "error", "down"])
def test_a_server_that_fails_costs_one_time_out(
    opened: Opened, server: Server, store: Store, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    limit = 0.3
    opened().find(key_of(2))  # whatever is imported for it
    server.fault = "" if fault == "down" else fault
    there = opened("http://127.0.0.1:9" if fault == "down" else server.url, seconds=limit)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        there.find(key_of(1))
    assert time.monotonic() - began < 10 * limit
    asked, began = len(server.asked), time.monotonic()
    for key in range(3, 40):
        with pytest.raises(Unreachable, match="left alone"):
            there.find(key_of(key))
    assert time.monotonic() - began < limit
    assert len(server.asked) == asked
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "left alone for 5 minutes" in warning
    assert ("DIMORPH_REMOTE_TIMEOUT" in warning) == (fault in ("silent", "drip")), warning
    assert key_of(1) not in str(tree(store.root))


def test_a_store_is_asked_again_after_some_minutes(opened: Opened, server: Server) -> None:
    server.fault = "error"
    with pytest.raises(Unreachable):
        opened().find(key_of(1))
    server.fault = ""
    remote._left_alone[server.url] = time.monotonic() - 1
    assert opened().find(key_of(1))


@pytest.mark.parametrize("name", ["fsspec", "cryptography.hazmat.primitives.asymmetric"])
def test_a_missing_package_is_named(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(OSError):
        opened().find(key_of(1))
    assert "pip install 'dimorph[remote]'" in caplog.text


# Many processes, and killed ones


def test_processes_at_once_fetch_once(opened: Opened, server: Server) -> None:
    gate, go = os.pipe()

    def fetch() -> bool:
        os.close(go)
        os.read(gate, 1)
        return opened().find(key_of(1)) is not None

    children = [start_child(fetch) for _ in range(8)]
    os.close(go)
    assert [result_of(child) for child in children] == [True] * 8
    os.close(gate)
    assert sorted(server.asked) == sorted(f"/{pack.file_name(key_of(1))}{end}" for end in ("", ".sig"))


def test_a_killed_fetch_leaves_nothing_that_is_found(opened: Opened, server: Server, store: Store) -> None:
    server.fault = "drip"
    for number in range(3):
        pid, answer = start_child(lambda: opened(seconds=30.0).find(key_of(1)) is not None)
        while len(server.asked) <= number:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(answer)
    server.fault = ""
    assert not [one for kept in kept_stores(store) for one in kept.entries()]
    began = time.monotonic()
    assert opened().find(key_of(1))
    assert time.monotonic() - began < 3
    assert [kept.verify() for kept in kept_stores(store)] == [[]]


def test_threads_at_once_fetch_once(opened: Opened, server: Server) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(opened().find(key_of(1)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(found)
    assert len(server.asked) == 2


def test_a_store_that_cannot_be_written(opened: Opened, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimorph.store.layers._fallback", [])
    store.root.parent.mkdir(exist_ok=True)
    store.root.write_text("a file")
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        found = opened().find(key_of(1))
    assert found
    assert found.file.read_bytes() == content_of(1)
    assert opened().find(key_of(1)) == found


# Addresses, keys and exports


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/srv/kernels", "expected URLs"),
        ("https://host/store?token=1", "without a query"),
        ("https://host/store#", "64 hex digits after a URL"),
        ("https://host/store#ed25519=abc", "64 hex digits after a URL"),
        (f"https://host/store#rsa={'0' * 64}", "64 hex digits after a URL"),
        ("http://host/store", "can replace code"),
        ("ftp://me:secret@host/store", "can replace code"),
    ],
)
def test_addresses_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"DIMORPH_REMOTE_STORES: .*{why}") as caught:
        Remote.parse(text)
    assert "secret" not in str(caught.value)


def test_addresses() -> None:
    key = "0f" * 32
    assert Remote.parse(f"http://host/store/#ed25519={key}") == Remote("http://host/store", key)
    assert Remote.parse("s3://bucket/a") == Remote("s3://bucket/a", None)
    assert Remote.parse("https://me:secret@host/a").name == "https://host/a"


def test_a_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "kernels.pem"
    first = Signer(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Signer(file).public_key == first.public_key
    file.write_text("-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----\n")
    with pytest.raises(DimorphError, match=r"kernels\.pem: expected a private key"):
        Signer(file)


def test_an_export_writes_only_what_is_new(origin: Path, sources: Path, signer: Signer) -> None:
    made, there = Store(origin.with_name("origin")), Remote(f"file://{origin}", None)
    before = tree(origin)
    assert export(made, there, signer).written == []
    publish(made, sources, key=3)
    name = pack.file_name(key_of(3))
    assert sorted(export(made, there, signer).written) == [name, f"{name}.sig"]
    assert sorted({*tree(origin)} - {*before}) == [name, f"{name}.sig"]


def test_an_export_refuses_what_is_damaged(origin: Path, signer: Signer, tmp_path: Path) -> None:
    made = Store(origin.with_name("origin"))
    for artifact in made.entries():
        artifact.path.joinpath("case.so").chmod(0o600)  # type: ignore[union-attr]
        artifact.path.joinpath("case.so").write_bytes(b"spoiled")
    with pytest.raises(ArtifactCorrupt, match="cannot be used"):
        export(made, Remote(f"file://{tmp_path}/new", None), signer)
    assert not (tmp_path / "new").exists()


def test_equal_artifacts_are_equal_packs(tmp_path: Path, sources: Path) -> None:
    packs = [pack.packed(publish(Store(tmp_path / name), sources)) for name in ("a", "b")]
    assert packs[0] == packs[1]
    assert pack.unpacked(packs[0], key_of(1), "here").meta.key == make_meta(1).key
