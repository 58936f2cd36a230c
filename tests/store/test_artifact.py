"""Artifacts: the description is parsed strictly, and the files are checked against it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimorph.errors import ArtifactCorrupt
from dimorph.store.artifact import META_NAME, Artifact, FileRecord, Meta, describe, timestamp
from dimorph.store.store import Store
from support.store import key_of, make_meta, publish

CONTENT = b"not really a shared object" * 100
RECORD = FileRecord(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
META = make_meta().with_files({"case.so": RECORD})


def write(directory: Path, meta: Meta = META, **files: bytes) -> Artifact:
    directory.mkdir(exist_ok=True)
    (directory / META_NAME).write_text(meta.to_json())
    for name, content in (files or {"case.so": CONTENT}).items():
        (directory / name.replace("_", ".")).write_bytes(content)
    return Artifact.load(directory)


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(META.to_json()), **changes})


def test_round_trip() -> None:
    assert Meta.from_json(META.to_json()) == META
    assert Meta.from_json(META.to_json().encode()) == META


def test_equal_descriptions_are_equal_bytes() -> None:
    turned = make_meta(specialization={"head_dim": "128", "dtype": "float32"}).with_files({"case.so": RECORD})
    assert turned.to_json() == META.to_json()
    assert hash(turned) == hash(META)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(), st.text(), max_size=3), st.text())
def test_any_text_survives(axes: dict[str, str], kernel: str) -> None:
    meta = make_meta(specialization=axes, kernel=kernel).with_files({"case.so": RECORD})
    assert Meta.from_json(meta.to_json()) == meta


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        (b"\xff\xfe\xfa", "decode"),
        ("[]", "the description"),
        ("null", "the description"),
        (changed(format=1), "format: expected 4, got 1"),
        (changed(format="1"), "format"),
        (changed(surplus=1), "the description: expected the fields"),
        (changed(key=key_of(1)[:-1]), "key: expected 64 hex digits"),
        (changed(key="A" * 64), "key"),
        (changed(key="1" * 63 + "\n"), "key"),
        (changed(toolchain_id="../../../../../.."), "toolchain_id"),
        (changed(kind="cubin"), "kind: expected entry or case or device"),
        (changed(kernel=None), "kernel: expected text"),
        (changed(specialization={"head_dim": 128}), "specialization"),
        (changed(specialization=["head_dim"]), "specialization"),
        (changed(created="2026-11-22T10:00:00+00:00"), "the description: expected the fields"),
        (changed(files={}), "files"),
        (changed(files=[]), "files"),
        (changed(files={"case.so": {"sha256": RECORD.sha256}}), "case.so: expected the fields"),
        (changed(files={"case.so": {"sha256": "0", "size": 1}}), "sha256"),
        (changed(files={"case.so": {"sha256": RECORD.sha256, "size": -1}}), "size"),
        (changed(files={"case.so": {"sha256": RECORD.sha256, "size": True}}), "size"),
        (changed(files={"../case.so": {"sha256": RECORD.sha256, "size": 1}}), "plain file name"),
        (changed(files={"..": {"sha256": RECORD.sha256, "size": 1}}), "plain file name"),
        (changed(files={"": {"sha256": RECORD.sha256, "size": 1}}), "plain file name"),
        (changed(files={META_NAME: {"sha256": RECORD.sha256, "size": 1}}), "plain file name"),
    ],
)
def test_malformed_description(text: str | bytes, named: str) -> None:
    with pytest.raises(ArtifactCorrupt, match=named) as caught:
        Meta.from_json(text, "here.json")
    assert str(caught.value).startswith("here.json: ")


@pytest.mark.parametrize("name", sorted(json.loads(META.to_json())))
def test_missing_field(name: str) -> None:
    raw = json.loads(META.to_json())
    del raw[name]
    with pytest.raises(ArtifactCorrupt, match=name):
        Meta.from_json(json.dumps(raw))


@settings(deadline=None)
@given(st.integers(0, len(META.to_json()) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_no_other_error(index: int, bit: int) -> None:
    text = bytearray(META.to_json().encode())
    text[index] ^= 1 << bit
    try:
        meta = Meta.from_json(bytes(text))
    except ArtifactCorrupt:
        return
    assert Meta.from_json(meta.to_json()) == meta


@given(st.integers(0, len(META.to_json()) - 3))
def test_a_truncated_description_is_corrupt(length: int) -> None:
    with pytest.raises(ArtifactCorrupt):
        Meta.from_json(META.to_json()[:length])


def test_constructor_names_the_field() -> None:
    with pytest.raises(ValueError, match="toolchain_id: expected 16 hex digits, got 'g'"):
        make_meta(toolchain_id="g")
    wrong: dict[Any, str] = {"yesterday": "", "2026-11-22T10:00:00": "expected an offset", 0: "expected text"}
    for created, why in wrong.items():
        with pytest.raises(ValueError, match=f"created: {why}"):
            make_meta(created=created)


def test_timestamp_is_accepted_and_ordered() -> None:
    first, second = make_meta(created=timestamp()), make_meta(created=timestamp())
    assert first.created_at() <= second.created_at()


@pytest.mark.parametrize("created", ["2026-11-22T10:00:00+00:00", "2026-11-22T10:00:00.123456+05:45"])
def test_the_time_is_that_of_the_file(store: Store, sources: Path, created: str) -> None:
    published = publish(store, sources, created=created)
    found = store.find(key_of(1))
    assert found == published
    assert found.meta.created_at() == published.meta.created_at() == datetime.fromisoformat(created)
    assert "created" not in (found.path / META_NAME).read_text()


@pytest.mark.parametrize("seconds", [-1, 1 << 33])
def test_a_file_of_an_impossible_time(tmp_path: Path, seconds: int) -> None:
    """The clock of the machine was wrong, which is no fault of the artifact."""
    write(tmp_path / "a")
    os.utime(tmp_path / "a" / META_NAME, (seconds, seconds))
    assert Artifact.load(tmp_path / "a").meta.created_at().year in (1970, 2242)


def test_verify(tmp_path: Path) -> None:
    write(tmp_path / "a").verify()


@pytest.mark.parametrize(
    ("content", "actual"),
    [
        (CONTENT[:-1], f"{len(CONTENT) - 1} bytes"),
        (b"", "0 bytes"),
        (CONTENT + b"x", f"{len(CONTENT) + 1} bytes"),
        (b"N" + CONTENT[1:], hashlib.sha256(b"N" + CONTENT[1:]).hexdigest()),
    ],
)
def test_verify_names_file_expected_and_actual(tmp_path: Path, content: bytes, actual: str) -> None:
    artifact = write(tmp_path / "a", case_so=content)
    expected = RECORD.sha256 if len(content) == len(CONTENT) else f"{len(CONTENT)} bytes"
    with pytest.raises(ArtifactCorrupt) as caught:
        artifact.verify()
    message = str(caught.value)
    assert str(artifact.path / "case.so") in message
    assert expected in message
    assert actual in message


def test_a_missing_file_is_not_hidden(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a")
    artifact.file.unlink()
    with pytest.raises(FileNotFoundError):
        artifact.verify()
    with pytest.raises(FileNotFoundError):
        Artifact.load(tmp_path / "nowhere")


def test_file(tmp_path: Path) -> None:
    def artifact(*names: str) -> Artifact:
        return Artifact(tmp_path, make_meta().with_files(dict.fromkeys(names, RECORD)))

    assert artifact("case.cubin").file == tmp_path / "case.cubin"
    assert artifact("case.cubin", "case.so").file == tmp_path / "case.so"
    with pytest.raises(ValueError, match=r"expected one object file, found \['a.so', 'b.so'\]"):
        _ = artifact("b.so", "a.so").file


def test_checksum_without_file_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    path.write_bytes(CONTENT * 200)  # several chunks
    expected = FileRecord(hashlib.sha256(CONTENT * 200).hexdigest(), len(CONTENT) * 200)
    assert describe(path) == expected
    monkeypatch.setattr(sys, "version_info", (3, 10))
    assert describe(path) == expected
