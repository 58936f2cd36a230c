"""Artifacts, the results of builds: a directory of object files and the `meta.json` that describes them."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from dimorph import _lazy, records
from dimorph.errors import ArtifactCorrupt
from dimorph.records import Opener

VERSION = "0.1.0"
"""The version of Dimorph, which manifests record."""

FORMAT = 4
META_NAME = "meta.json"
KINDS = ("entry", "case", "device")

_HEX = re.compile(r"[0-9a-f]+")
_CHUNK = 1 << 18
_LATEST = 1 << 62  # nanoseconds since 1970: the year 2116


def is_hex(text: str, length: int) -> bool:
    """Return True if a text consists of `length` lower-case hexadecimal digits."""
    return len(text) == length and _HEX.fullmatch(text) is not None


def timestamp() -> str:
    """Return the current time in the format of `Meta.created`: ISO 8601 in UTC."""
    return _lazy.datetime.datetime.now(_lazy.datetime.timezone.utc).isoformat()


@dataclass(frozen=True)
class FileRecord:
    """Checksum (SHA-256, 64 hex digits) and size (bytes) of one file of an artifact."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        _require("sha256", isinstance(self.sha256, str) and is_hex(self.sha256, 64), "64 hex digits", self.sha256)
        _require("size", type(self.size) is int and self.size >= 0, "a number of bytes", self.size)


@dataclass(frozen=True)
class DeviceRecord:
    """The requirements of device code, and the compiler's report on it.

    Attributes:
        driver: the CUDA version of the oldest NVIDIA driver that loads the code, e.g. `13.0`.
        kernels: CUDA kernel -> `registers` (of a thread) and, in bytes, `stack`, `spill_stores`, `spill_loads` and
            `shared` (static). Empty for PTX, which is assembled only when the NVIDIA driver loads it.
        messages: the compiler's warnings and the assembler's advice (`C75..`).

    Raises:
        ValueError: a field is malformed; the message names it.
    """

    driver: str
    kernels: Mapping[str, Mapping[str, int]] = field(hash=False)
    messages: Sequence[str] = field(hash=False)

    def __post_init__(self) -> None:
        version = isinstance(self.driver, str) and re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", self.driver)
        _require("driver", bool(version), "a CUDA version", self.driver)
        whole = isinstance(self.kernels, Mapping) and all(
            isinstance(uses, Mapping) and all(type(value) is int for value in uses.values())
            for uses in self.kernels.values()
        )
        _require("kernels", whole, "kernels with what they use", self.kernels)
        texts = isinstance(self.messages, (list, tuple)) and all(isinstance(text, str) for text in self.messages)
        _require("messages", texts, "a list of messages", self.messages)

    @property
    def driver_version(self) -> tuple[int, int]:
        """The CUDA version `driver` as numbers, (major, minor)."""
        major, minor = self.driver.split(".")
        return int(major), int(minor)


@dataclass(frozen=True, kw_only=True)
class Meta:
    """The description of an artifact, as `meta.json` contains it.

    Attributes:
        format: the version of the format of this description.
        key: the content key, 64 hex digits.
        toolchain_id: the identity of the compiler, 16 hex digits.
        kind: `entry`, `case` or `device`.
        kernel: the name of the kernel.
        specialization: axis name -> value, as text (for an entry: of the axes that have one value).
        target: the target level compiled for, e.g. `x86-64-v3`; for device code, the architecture.
        toolchain: the name and version of the compiler, for people.
        ffi_abi: the FFI ABI that the objects were made for; compared when they are loaded.
        files: file name -> checksum and size. If empty, `Store.publish` fills it in.
        created: the time of the build, ISO 8601 with its offset from UTC (see `timestamp`). It is the modification time
            of `meta.json` and no part of the content, so that equal builds are equal bytes.
        device: the requirements of device code; None for host code.
        warnings: the compiler's warnings about the author's sources, each with its file and line.

    Raises:
        ValueError: a field is malformed; the message names it.
    """

    key: str
    toolchain_id: str
    kind: str
    kernel: str
    specialization: Mapping[str, str] = field(hash=False)
    target: str
    toolchain: str
    ffi_abi: str
    created: str = field(default="1970-01-01T00:00:00+00:00", compare=False)
    files: Mapping[str, FileRecord] = field(default_factory=dict, hash=False)
    device: DeviceRecord | None = None
    warnings: tuple[str, ...] = ()
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
        _require("device", (self.device is not None) == (self.kind == "device"), "it of device code", self.device)
        texts = isinstance(self.warnings, tuple) and all(isinstance(text, str) for text in self.warnings)
        _require("warnings", texts, "a list of warnings", self.warnings)
        self.created_at()

    def created_at(self) -> _lazy.datetime.datetime:
        """Return `created` as a datetime with its offset from UTC.

        Raises:
            ValueError: the text is not ISO 8601 with an offset from UTC.
        """
        try:
            moment = _lazy.datetime.datetime.fromisoformat(self.created)
        except ValueError as error:
            raise ValueError(f"created: expected ISO 8601, got {self.created!r}") from error
        _require("created", moment.tzinfo is not None, "an offset from UTC", self.created)
        # Times at the ends of the calendar cannot be compared across offsets.
        _require("created", 1970 <= moment.year < 9999, "a year from 1970", self.created)
        return moment

    def created_ns(self) -> int:
        """Return `created` as nanoseconds since 1970, for the modification time of a file."""
        datetime = _lazy.datetime
        since = self.created_at() - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return since // datetime.timedelta(microseconds=1) * 1000

    def with_files(self, files: Mapping[str, FileRecord]) -> Meta:
        """Return the same description with other files."""
        return replace(self, files=dict(files))

    def to_json(self) -> str:
        """Return the text of `meta.json`, sorted so that equal descriptions are equal bytes."""
        content = asdict(self)
        del content["created"]
        return _lazy.json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = META_NAME, created_ns: int = 0) -> Meta:
        """Parse the text that `to_json` returned.

        Args:
            text: the text.
            where: its file, for messages.
            created_ns: the time of the build, in nanoseconds since 1970.

        Raises:
            ArtifactCorrupt: the text is not JSON, has another format version, or a field is missing, unknown or
                malformed; the message starts with `where`.
        """
        with records.errors_in(where):
            raw = _lazy.json.loads(text)
            if isinstance(raw, dict):  # first: another version may well have other fields
                _require("format", raw.get("format") == FORMAT, str(FORMAT), raw.get("format"))
            _require_fields("the description", raw, cls)
            meta = records.parse(cls, {**raw, "created": _text_of(created_ns)}, "the description")
            _require("files", bool(meta.files), "file names with records", meta.files)
            return meta


class Artifact(NamedTuple):
    """An immutable directory of object files with its description."""

    path: Path
    meta: Meta

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={text}" for name, text in self.meta.specialization.items())
        what = f"{self.meta.kernel} {self.meta.kind}" + f" ({values})" * bool(values)
        return f"<Artifact {what}, {self.meta.target}, in {self.path}>"

    @classmethod
    def load(cls, directory: Path, opener: Opener = records.open_regular) -> Artifact:
        """Read the description in `directory`; the object files are read by `verify` only.

        Raises:
            ArtifactCorrupt: `meta.json` is malformed.
            OSError: `meta.json` cannot be read; FileNotFoundError if it is missing.
        """
        where = directory / META_NAME
        return cls(directory, Meta.from_json(records.read(where, opener), str(where), where.lstat().st_mtime_ns))

    @property
    def file(self) -> Path:
        """The path of the object to load: the only file, or among several the one named after the kind.

        Raises:
            ArtifactCorrupt: there is no object, or more than one.
        """
        return self.path / self.object_name()

    def object_name(self) -> str:
        """Return the name of the object to load; see `file`."""
        names = list(self.meta.files)
        if len(names) > 1:
            suffixes = (".cubin", ".ptx") if self.meta.kind == "device" else (".so",)
            # Others may be copies of libraries that the object needs.
            named = [name for name in names if name in [self.meta.kind + suffix for suffix in suffixes]]
            names = named or [name for name in names if name.endswith(suffixes)]
        if len(names) != 1:
            raise ArtifactCorrupt(f"{self.path}: expected one object file, found {sorted(self.meta.files)}")
        return names[0]

    def verify(self, opener: Opener = records.open_regular) -> None:
        """Compare every file with its recorded size and checksum.

        Raises:
            ArtifactCorrupt: a file differs; the message names it with the expected and the actual values.
            OSError: a file cannot be read; FileNotFoundError if it is missing.
        """
        for name, record in self.meta.files.items():
            actual = describe(self.path / name, opener, size=record.size)
            if actual != record:
                raise ArtifactCorrupt(f"{self.path / name}: expected {record}, actual {actual}")


def describe(path: Path, opener: Opener = records.open_regular, size: int | None = None) -> FileRecord:
    """Return size and checksum of a file.

    Args:
        path: the file.
        opener: opens the file.
        size: the expected size in bytes; a file of another size is refused without hashing it. None: any size.

    Raises:
        ArtifactCorrupt: the file does not have the expected size.
        OSError: the file cannot be read.
    """
    with open(path, "rb", buffering=0, opener=opener) as stream:
        actual = stream.seek(0, 2)
        if size is not None and actual != size:
            raise ArtifactCorrupt(f"{path}: expected {size} bytes, actual {actual} bytes")
        stream.seek(0)
        if sys.version_info >= (3, 11):
            return FileRecord(_lazy.hashlib.file_digest(stream, "sha256").hexdigest(), actual)
        checksum = _lazy.hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            checksum.update(chunk)
        return FileRecord(checksum.hexdigest(), actual)


def check_file_name(function: str, name: object) -> None:
    """Refuse a name that could lead out of the artifact's directory, or that is the description's.

    Raises:
        ValueError: `name` is not a plain file name, or is `meta.json`; the message starts with `function`.
    """
    plain = isinstance(name, str) and name not in ("", ".", "..", META_NAME) and not set(name) & {"/", "\0"}
    if not plain:
        raise ValueError(f"{function}: expected a plain file name other than {META_NAME}, got {name!r}")


def _text_of(created_ns: int) -> str:
    """Return a time in the format of `Meta.created`; one that no build can have is 1970."""
    seconds = created_ns // 1000 / 1e6 if 0 <= created_ns < _LATEST else 0  # exact to a microsecond
    return _lazy.datetime.datetime.fromtimestamp(seconds, _lazy.datetime.timezone.utc).isoformat()


def _require_fields(name: str, raw: object, owner: type[Any]) -> None:
    wanted = {f.name for f in fields(owner) if f.compare}
    _require(name, isinstance(raw, dict) and set(raw) == wanted, f"the fields {sorted(wanted)}", raw)


def _require(name: str, condition: bool, expected: str, actual: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {reprlib.repr(actual)}")
