"""The record of use: a file with a line for each specialization that programs loaded, to build ahead exactly those.

Each line is a JSON object, and lines of one specialization add up, so any number of processes append to one file, and
merging is addition. A line is written by one call under a lock of the file. The number of calls in it has a fixed width
and is written over in place, so a file does not grow with time. A process that is killed leaves whole lines, or the
beginning of its last one, which readers pass over and the next writer removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from dimorph import _lazy, records
from dimorph._fork import no_fork
from dimorph.declare.reference import Reference
from dimorph.errors import ArtifactCorrupt
from dimorph.store.artifact import VERSION
from dimorph.store.locks import UNSUPPORTED

FORMAT = 1
# The largest record that is read: a line for a specialization has about 600 bytes.
_LIMIT = 1 << 30
_WIDTH = 19  # digits of a number of calls
_BEGIN = '{"calls": '


@dataclass(frozen=True)
class Use:
    """The use of one entry or one case by programs: its values, how often it was called, and where it came from.

    Attributes:
        kind: `entry` for the values that a load asked for, `case` for one specialization.
        kernel: the name of the kernel.
        found: how another process finds the kernel.
        values: axis name -> its values, as text; none for a choice axis whose value `choose` computes.
        variants: name -> how another process finds it, for the variants that the kernel does not declare.
        target: the target level that it was loaded for.
        archs: of a case with device code, the GPU architectures that it was loaded for.
        debug, cxxflags: the settings that are part of its key.
        origins: where it came from (`built`, `packaged`, `store`, `shared store`) -> the number of processes.
        seconds: the longest time that a process took to find or build it, and to load it.
        calls: how often functions of the case were called; 0 for an entry.
    """

    kind: str
    kernel: str
    found: Reference
    values: Mapping[str, list[str]]
    variants: Mapping[str, Reference]
    target: str
    archs: list[str]
    debug: bool
    cxxflags: list[str]
    origins: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    calls: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("entry", "case"):
            raise ValueError(f"kind: expected entry or case, got {self.kind!r}")
        if self.kind == "case" and (wide := [name for name, texts in self.values.items() if len(texts) > 1]):
            raise ValueError(f"values: expected one of each axis of a case, got several of {wide[0]}")

    @property
    def identity(self) -> str:
        """The text that is the same for two lines of a record if their counts add up."""
        variants = {name: _place(found) for name, found in self.variants.items()}
        alike = replace(self, found=_place(self.found), variants=variants, origins={}, seconds=0.0, calls=0)
        return _lazy.json.dumps(asdict(alike), sort_keys=True)

    @property
    def label(self) -> str:
        """Kernel, kind and values, for people."""
        values = ", ".join(f"{name}={'|'.join(texts)}" for name, texts in self.values.items() if texts)
        return f"{self.kernel} {self.kind}" + (f" ({values})" if values else "")

    def __add__(self, other: Use) -> Use:
        origins = dict(self.origins)
        for origin, count in other.origins.items():
            origins[origin] = origins.get(origin, 0) + count
        seconds, calls = max(self.seconds, other.seconds), self.calls + other.calls
        return replace(self, origins=origins, seconds=seconds, calls=calls)

    def line(self) -> bytes:
        """Return its line, with the number of calls first, in a field of fixed width."""
        rest = asdict(self)
        calls = rest.pop("calls")
        return f"{_BEGIN}{calls:<{_WIDTH}}, {_lazy.json.dumps(rest)[1:]}\n".encode()


def _place(found: Reference) -> Reference:
    """Return what tells kernels apart: the module if there is one, because its file lies elsewhere on each machine."""
    return Reference(module=found.module) if found.module else found


class Writer:
    """A record that this process appends to.

    Raises:
        ArtifactCorrupt: the file is no record, or one of another format.
        OSError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            check(path)
        with no_fork:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                # Linux appends whatever is written to a descriptor with O_APPEND, wherever it is to go.
                self._in_place = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            except BaseException:
                os.close(self._fd)
                raise
        try:
            self.append(b"")
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes) -> int:
        """Append a line, to an empty file after a header; return its offset in the file.

        Raises:
            OSError: the disk is full, or fails.
        """
        locked = _lock(self._fd)
        try:
            size = os.fstat(self._fd).st_size
            if locked and size and os.pread(self._fd, 1, size - 1) != b"\n":
                size = self._whole_lines(size)
                os.ftruncate(self._fd, size)
            _write(self._fd, line if size else _header() + line)
            return os.lseek(self._fd, 0, os.SEEK_CUR) - len(line)
        finally:
            if locked:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def count(self, offset: int, calls: int) -> None:
        """Write the number of calls of the line at an offset over the one that is there, unless the file was edited."""
        if os.pread(self._fd, len(_BEGIN), offset) == _BEGIN.encode():
            os.pwrite(self._in_place, f"{calls:<{_WIDTH}}".encode(), offset + len(_BEGIN))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
        os.close(self._in_place)

    def _whole_lines(self, size: int) -> int:
        """Return the size of the file without the unfinished line at its end, which a killed process has left."""
        start = size
        while start:
            start = max(0, start - 65536)
            at = os.pread(self._fd, min(65536, size - start), start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
        return 0


def _lock(fd: int) -> bool:
    """Lock an open file; return False where the file system has no locks, and each write alone has to be whole."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def _write(fd: int, line: bytes) -> None:
    written = os.write(fd, line)
    if written < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _header() -> bytes:
    return (_lazy.json.dumps({"format": FORMAT, "dimorph": VERSION, "what": "a record of use"}) + "\n").encode()


def check(path: Path) -> None:
    """Refuse a file that is no record of this format.

    Raises:
        ArtifactCorrupt: the message names the file, what it is, and what to do.
        OSError: it cannot be read.
    """
    with _opened(path) as stream:
        first = stream.readline(4096)
    if first:
        _check_header(first, path)


def _opened(path: Path) -> BinaryIO:
    """Open a record to read it; a pipe, which would be waited for, is none.

    Raises:
        OSError: the file cannot be opened, or is no regular file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "expected a regular file", str(path))
    return path.open("rb")


def _check_header(first: bytes, path: Path) -> None:
    if not first.endswith(b"\n") and _header().startswith(first):
        return  # of a process that was killed at once
    try:
        raw = records.decode(first, str(path))
    except ArtifactCorrupt as error:
        raise ArtifactCorrupt(f"{path}: expected a record of use, which begins with its format: {error}") from error
    if not isinstance(raw, dict) or raw.get("what") != "a record of use":
        raise ArtifactCorrupt(f"{path}: expected a record of use, got another file; name a new one")
    if raw.get("format") != FORMAT:
        made = str(raw.get("dimorph"))[:40]
        raise ArtifactCorrupt(
            f"{path}: format: expected {FORMAT}, got {str(raw.get('format'))[:40]}; Dimorph {made} wrote this record, "
            f"and this is {VERSION}: read it with {made}, or record again into a new file"
        )


def read(path: Path) -> list[Use]:
    """Return what a record says, lines of one specialization added up, in the order in which they first came.

    Raises:
        ArtifactCorrupt: the file is no record, has another format, or a line that is none; the message names the line.
        OSError: the file cannot be read.
    """
    with _opened(path) as stream:
        text = stream.read(_LIMIT + 1)
    if len(text) > _LIMIT:
        raise ArtifactCorrupt(f"{path}: expected at most {_LIMIT} bytes, got more: record again into a new file")
    lines = text.split(b"\n")
    unfinished = lines.pop()  # what follows the last end of a line
    if unfinished and not lines:
        _check_header(unfinished, path)
    found: dict[str, Use] = {}
    for number, line in enumerate(lines, 1):
        if number == 1:
            _check_header(line + b"\n", path)
            continue
        use = _parsed(line, f"{path}:{number}")
        before = found.get(use.identity)
        found[use.identity] = before + use if before else use
    return list(found.values())


def _parsed(line: bytes, where: str) -> Use:
    try:
        raw = records.decode(line, where)
        with records.errors_in(where):
            return records.parse(Use, raw, "a line")
    except ArtifactCorrupt as error:
        raise ArtifactCorrupt(f"{error}; the line was edited or damaged: remove it, or record again") from error


def write(path: Path, uses: Iterable[Use]) -> None:
    """Write a record in place of a file, sorted so that equal records are equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    ordered = sorted(uses, key=lambda use: (use.found.module or use.found.file, use.kind == "case", use.identity))
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as stream:
            stream.writelines([_header(), *(use.line() for use in ordered)])
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)


def merged(records_of: Iterable[Iterable[Use]]) -> list[Use]:
    """Return the sum of several records."""
    found: dict[str, Use] = {}
    for one in records_of:
        for use in one:
            before = found.get(use.identity)
            found[use.identity] = before + use if before else use
    return list(found.values())
