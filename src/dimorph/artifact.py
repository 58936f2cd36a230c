"""What a build leaves: a directory of object files and the `meta.json` that describes them. Pure data."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dimorph.errors import ArtifactCorrupt

FORMAT = 1
META_NAME = "meta.json"
KINDS = ("entry", "case")

Opener = Callable[[str, int], int]
"""As for the built-in `open`: path and flags in, file descriptor out. A store puts its checks there."""

_HEX = re.compile(r"[0-9a-f]+")
_CHUNK = 1 << 18


def is_hex(text: str, length: int) -> bool:
    """True for `length` lower-case hexadecimal digits."""
    return len(text) == length and _HEX.fullmatch(text) is not None


def timestamp() -> str:
    """Now, as `Meta.created` wants it: ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat()


@dataclass(frozen=True)
class FileRecord:
    """Checksum (SHA-256, 64 hex digits) and size (bytes) of one file of an artifact."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        _require("sha256", isinstance(self.sha256, str) and is_hex(self.sha256, 64), "64 hex digits", self.sha256)
        _require("size", type(self.size) is int and self.size >= 0, "a number of bytes", self.size)


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What `meta.json` says about an artifact.

    Attributes:
        format: version of this description.
        key: the content key, 64 hex digits.
        toolchain_id: identity of the compiler, 16 hex digits.
        kind: `entry` or `case`.
        kernel: name of the kernel.
        specialization: axis name -> printed value (for an entry: of the axes that have one value).
        target: the target level compiled for, e.g. `x86-64-v3`.
        toolchain: the compiler, in words.
        ffi_abi: the FFI ABI the objects were made for, compared when they are loaded.
        files: file name -> checksum and size. Left empty, `Store.publish` fills it in.
        created: when, ISO 8601 with its offset from UTC (see `timestamp`).

    Raises:
        ValueError: a field cannot mean anything; the message names it.
    """

    key: str
    toolchain_id: str
    kind: str
    kernel: str
    specialization: Mapping[str, str] = field(hash=False)
    target: str
    toolchain: str
    ffi_abi: str
    created: str
    files: Mapping[str, FileRecord] = field(default_factory=dict, hash=False)
    format: int = FORMAT

    def __post_init__(self) -> None:
        _require("format", type(self.format) is int and self.format == FORMAT, f"{FORMAT}", self.format)
        for name in ("key", "toolchain_id", "kind", "kernel", "target", "toolchain", "ffi_abi", "created"):
            value = getattr(self, name)
            _require(name, isinstance(value, str), "text", value)
        _require("key", is_hex(self.key, 64), "64 hex digits", self.key)
        _require("toolchain_id", is_hex(self.toolchain_id, 16), "16 hex digits", self.toolchain_id)
        _require("kind", self.kind in KINDS, " or ".join(KINDS), self.kind)
        axes = self.specialization
        _require(
            "specialization",
            isinstance(axes, Mapping) and all(isinstance(t, str) for pair in axes.items() for t in pair),
            "axis names with printed values",
            axes,
        )
        _require("files", isinstance(self.files, Mapping), "file names with records", self.files)
        for name in self.files:
            check_file_name("Meta", name)
        self.created_at()

    def created_at(self) -> datetime:
        """`created`, parsed."""
        try:
            moment = datetime.fromisoformat(self.created)
        except ValueError as error:
            raise ValueError(f"created: expected ISO 8601, got {self.created!r}") from error
        _require("created", moment.tzinfo is not None, "an offset from UTC", self.created)
        return moment

    def with_files(self, files: Mapping[str, FileRecord]) -> Meta:
        """The same description with these files."""
        return replace(self, files=dict(files))

    def to_json(self) -> str:
        """The text of `meta.json`: sorted, so that equal descriptions are equal bytes."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = META_NAME) -> Meta:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactCorrupt: not JSON, a field too many, missing or malformed, or another format version;
                the message starts with `where`.
        """
        try:
            raw = json.loads(text)
            if isinstance(raw, dict):  # first: another version may well have other fields
                _require("format", raw.get("format") == FORMAT, str(FORMAT), raw.get("format"))
            _require_fields("the description", raw, cls)
            listed = raw["files"]
            _require("files", isinstance(listed, dict) and bool(listed), "file names with records", listed)
            for name, record in listed.items():
                _require_fields(name, record, FileRecord)
            files = {name: FileRecord(**record) for name, record in listed.items()}
            return cls(**{**raw, "files": files})
        except (ValueError, RecursionError) as error:  # json raises RecursionError for "[[[[..."
            raise ArtifactCorrupt(f"{where}: {error}") from error


@dataclass(frozen=True)
class Artifact:
    """An immutable directory of object files with its description."""

    path: Path
    meta: Meta

    @classmethod
    def load(cls, directory: Path, opener: Opener | None = None) -> Artifact:
        """Reads the description in `directory`; the object files are not looked at (see `verify`).

        Raises:
            ArtifactCorrupt: `meta.json` is malformed.
            OSError: it cannot be read; FileNotFoundError when it is not there.
        """
        where = directory / META_NAME
        with open(where, "rb", buffering=0, opener=opener) as stream:
            text = stream.readall()
        return cls(directory, Meta.from_json(text, str(where)))

    @property
    def file(self) -> Path:
        """The object to load: the one file there is, or the one shared object among several.

        Raises:
            ValueError: there is no such one file.
        """
        names = list(self.meta.files)
        if len(names) > 1:
            names = [name for name in names if name.endswith(".so")]
        if len(names) != 1:
            raise ValueError(f"{self.path}: expected one object file, found {sorted(self.meta.files)}")
        return self.path / names[0]

    def verify(self, opener: Opener | None = None) -> None:
        """Compares every file with its recorded size and checksum.

        Raises:
            ArtifactCorrupt: one differs; the message names the file, what was expected and what is there.
            OSError: one cannot be read; FileNotFoundError when it is not there.
        """
        for name, record in self.meta.files.items():
            actual = describe(self.path / name, opener, size=record.size)
            if actual != record:
                raise ArtifactCorrupt(f"{self.path / name}: expected {record}, actual {actual}")


def describe(path: Path, opener: Opener | None = None, size: int | None = None) -> FileRecord:
    """Size and checksum of a file. With a `size` that is not the file's, raises instead of hashing.

    Raises:
        ArtifactCorrupt: the size is another one.
        OSError: the file cannot be read.
    """
    with open(path, "rb", buffering=0, opener=opener) as stream:
        actual = stream.seek(0, 2)
        if size is not None and actual != size:
            raise ArtifactCorrupt(f"{path}: expected {size} bytes, actual {actual} bytes")
        stream.seek(0)
        if sys.version_info >= (3, 11):
            return FileRecord(hashlib.file_digest(stream, "sha256").hexdigest(), actual)
        checksum = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            checksum.update(chunk)
        return FileRecord(checksum.hexdigest(), actual)


def check_file_name(function: str, name: object) -> None:
    """A file of an artifact stands in its directory: anything else could reach out of it.

    Raises:
        ValueError: `name` is not a plain file name, or is that of the description.
    """
    plain = isinstance(name, str) and name not in ("", ".", "..", META_NAME) and not set(name) & {"/", "\0"}
    if not plain:
        raise ValueError(f"{function}: expected a plain file name other than {META_NAME}, got {name!r}")


def _require_fields(name: str, raw: object, owner: type[Any]) -> None:
    wanted = {f.name for f in fields(owner)}
    _require(name, isinstance(raw, dict) and set(raw) == wanted, f"the fields {sorted(wanted)}", raw)


def _require(name: str, condition: bool, expected: str, actual: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {reprlib.repr(actual)}")
