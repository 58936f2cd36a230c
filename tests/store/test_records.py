"""Corrupt records: whatever a disk made of one, the only error is ArtifactCorrupt, and what is read can be used."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dimorph import records
from dimorph.cli import explain
from dimorph.declare.instantiations import instantiate
from dimorph.errors import ArtifactCorrupt
from dimorph.plan.key_diff import differences
from dimorph.plan.key_record import KeyRecord
from dimorph.store import manifest
from dimorph.store.artifact import Artifact, FileRecord, Meta, describe
from dimorph.store.manifest import AxisRecord, Built, Manifest, Record, Row
from support.kernels import SCALE
from support.store import key_of, make_meta, tool_of

MUTATIONS = 5000
TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"0", b"-1", b"1e999", b"NaN", b"{}", b"[]"]
TOKENS += [b"9" * 30, b"9" * 5000, b'"\\ud800"', b'"\\u0000"', b'"../x"', b"\xff", b"\\", b'""', b"0.5", b"-Infinity"]
VALUES = [None, True, 0, -1, 1.5, 10**25, "", "x", "../../etc", "\ud800", "9" * 5000, [], {}, [[]], {"": None}, ["x"]]


def mutated(chance: random.Random, text: bytes) -> bytes:
    """Return a text with bytes changed, moved or replaced by tokens, or with one value of its JSON replaced."""
    if chance.random() < 0.5:
        raw = json.loads(text)
        for _ in range(chance.randint(1, 2)):
            replace_one(chance, raw)
        return json.dumps(raw).encode()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice([0, 1, 1, 5, 100]))
        text = text[:at] + chance.choice([*TOKENS, bytes([chance.randrange(256)]), text[end : end + 20]]) + text[end:]
    return text[: chance.choice([len(text), len(text), chance.randrange(len(text) + 1)])] or b" "


def replace_one(chance: random.Random, raw: Any) -> None:
    """Replace, add or remove a value somewhere in a JSON value."""
    where = raw
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(where[key], (dict, list)) and where[key] and chance.random() < 0.8:
            where = where[key]
            continue
        action = chance.randrange(4)
        if action == 0:
            del where[key]
        elif action == 1 and isinstance(where, dict):
            where[chance.choice(["x", "", key + "x"])] = where.pop(key)
        else:
            where[key] = deepcopy(chance.choice(VALUES))
        return


def tried(text: bytes, chance: random.Random, use: Callable[[bytes], object]) -> None:
    """Use many mutations of a record; fail at an error that is not typed, and if none or all of them are refused."""
    outcomes = {"read": 0, "refused": 0}
    for number in range(MUTATIONS):
        changed = mutated(chance, text)
        try:
            use(changed)
            outcomes["read"] += 1
        except ArtifactCorrupt:
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number}: {changed[:2000]!r}") from error
    assert min(outcomes.values()) > MUTATIONS // 100, outcomes


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    return random.Random(seed)


META = make_meta().with_files({"case.so": FileRecord("ab" * 32, 1000), "affine_config.h": FileRecord("cd" * 32, 10)})
DEVICE = json.dumps(
    {
        **json.loads(META.to_json()),
        "kind": "device",
        "files": {"device.cubin": {"sha256": "ab" * 32, "size": 7}},
        "device": {"driver": "13.0", "kernels": {"k": {"registers": 40, "stack": 0}}, "messages": ["C7510"]},
    }
)
ROW = Row(
    kind="case",
    kernel="scale",
    values={"dtype": "float32", "width": "7"},
    target="x86-64-v3",
    key=key_of(1),
    toolchain_id=tool_of(1),
    compiler="g++ 12",
    ffi_abi="tvm-ffi 0.1",
    glibc="2.17",
    driver=None,
    bytes=1000,
)


def listed() -> Manifest:
    values = {"dtype": ["float32", "float64"], "width": ["7", "64"]}
    built = Built(
        {"width": ["7", "64"]}, values, [{"dtype": "float32", "width": "7"}], ["x86-64-v3"], [], False, [], []
    )
    axes = {"dtype": AxisRecord("dtype", ["DType"], ["float32"], False)}
    record = Record("scale", "0" * 16, "scale.cc", ["scale_case.cc"], [], ["scale"], axes, [built, built])
    built.artifacts.append(ROW)
    return Manifest({manifest.identity(SCALE): record})


@pytest.mark.parametrize("text", [META.to_json(), DEVICE], ids=["host", "device"])
def test_descriptions(text: str, chance: random.Random, tmp_path: Path) -> None:
    good = make_meta()

    def use(changed: bytes) -> None:
        meta = Meta.from_json(changed)
        artifact = Artifact(tmp_path, meta)
        _ = artifact.file
        explain.describe(artifact).encode()
        repr(meta).encode()
        assert Meta.from_json(meta.to_json()) == meta
        max([good, meta], key=lambda one: (one.created_at(), one.toolchain_id))
        if meta.device:
            _ = meta.device.driver_version

    tried(text.encode(), chance, use)


def test_manifests(chance: random.Random) -> None:
    again = listed().kernels[manifest.identity(SCALE)].built[0]
    sets = [instantiate(SCALE, {"dtype": "float32", "width": 7}), instantiate(SCALE)]

    def use(changed: bytes) -> None:
        read = Manifest.from_json(changed)
        read.to_json().encode()
        manifest.place(SCALE, Path("/x"))
        read.name(SCALE, Path("/x"))
        for record in (read.kernels[name] for name in read.names(SCALE)):
            for built in record.built:
                for one in sets:
                    manifest.holding(built.values, one)
        manifest.with_built(read, SCALE, Path("/x"), [b for r in read.kernels.values() for b in r.built], again)

    use(listed().to_json().encode())
    tried(listed().to_json().encode(), chance, use)


def test_sets_of_manifests(chance: random.Random) -> None:
    def use(changed: bytes) -> None:
        for values in manifest._sets.__wrapped__(changed, "manifest").values():
            for one in values:
                manifest.holding(one, instantiate(SCALE))

    tried(listed().to_json().encode(), chance, use)


def test_records_of_keys(chance: random.Random, tmp_path: Path) -> None:
    now = KeyRecord("header\n", "x86-64-v3", "unit\n", ("-O2", "-g"), {"a.h": "12", "b.h": "34"})
    files = {name: FileRecord("ab" * 32, 1) for name in ("case.so", "affine_config.h", "inputs.json")}
    artifact = Artifact(tmp_path, make_meta().with_files(files))
    (tmp_path / "affine_config.h").write_text("header\n")
    inputs = tmp_path / "inputs.json"

    def use(changed: bytes) -> None:
        inputs.write_bytes(changed)
        "".join(differences(KeyRecord.recorded(artifact), now)).encode()

    tried(now.to_json().encode(), chance, use)


def test_the_config_header_is_read_like_a_record(tmp_path: Path) -> None:
    names = {name: FileRecord("ab" * 32, 1) for name in ("case.so", "affine_config.h")}
    header = tmp_path / "affine_config.h"
    header.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactCorrupt, match=r"affine_config\.h"):
        KeyRecord.recorded(Artifact(tmp_path, make_meta().with_files(names)))
    outside = tmp_path.parent / "secret_config.h"
    outside.write_text("secret")
    with pytest.raises(ValueError, match=r"'\.\./secret_config\.h'"):
        make_meta().with_files({**names, "../secret_config.h": FileRecord("ab" * 32, 1)})
    with pytest.raises(ArtifactCorrupt, match="expected a config header among its files"):
        KeyRecord.recorded(Artifact(tmp_path, make_meta().with_files({"case.so": names["case.so"]})))


# The reader itself


@dataclass(frozen=True)
class Inner:
    number: int
    flag: bool = False


@dataclass(frozen=True)
class Outer:
    name: str
    pair: tuple[str, int]
    inner: list[Inner]
    maybe: Inner | None = None


def test_a_record_becomes_its_dataclass() -> None:
    raw = {"name": "n", "pair": ["a", 1], "inner": [{"number": 3}, {"number": 4, "flag": True}], "maybe": None}
    assert records.parse(Outer, raw, "it") == Outer("n", ("a", 1), [Inner(3), Inner(4, True)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "name: expected text, got 1"),
        ({"name": "\udc80"}, "name: expected text"),
        ({"pair": ["a"]}, "pair: expected a list of 2"),
        ({"pair": ["a", 1.0]}, "expected a number"),
        ({"inner": {}}, "inner: expected a list"),
        ({"inner": [{"number": True}]}, "number: expected a number"),
        ({"inner": [{"number": 1 << 63}]}, "number: expected a number of 64 bits"),
        ({"maybe": {"number": 1, "flag": 0}}, "flag: expected true or false"),
        ({"other": 1}, "it: expected the fields"),
    ],
)
def test_a_value_of_another_type_is_named(change: dict[str, object], message: str) -> None:
    raw = {"name": "n", "pair": ["a", 1], "inner": [], **change}
    with pytest.raises(ValueError, match=message):
        records.parse(Outer, raw, "it")


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"x" * 100)
    assert records.read(path) == b"x" * 100
    os.truncate(path, records.LIMIT + 1)
    with pytest.raises(ArtifactCorrupt, match="expected at most"):
        records.read(path)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "link", tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (records.read, describe):
            with pytest.raises(OSError, match=r"symbolic links|regular file|directory"):
                read(other)
    (tmp_path / "meta.json").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="symbolic links"):
        Artifact.load(tmp_path)


def test_a_manifest_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert manifest.read(tmp_path / "nowhere") == Manifest({})
