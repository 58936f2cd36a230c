"""The identity of a compiler: a hash of the contents of all its files that determine its output.

These are the program of the command line (such as `g++`), the programs that it starts (compiler proper, assembler,
linker), and the few system headers that contain the versions of the C and C++ libraries: inline code of these libraries
becomes part of the output, and clang uses whichever C++ library is newest. Paths are not hashed: an equal compiler in
another directory has the same identity.

The result is kept in a small file, with inode, size and modification time of every file that was hashed, and of those
that a wrapper script names. While these are unchanged, a later call starts no process and reads none of the files.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dimorph import _lazy, records
from dimorph._lazy import logger
from dimorph.errors import ToolchainError, no_descriptors

_log = logger("dimorph")
_FORMAT = 2
# Variables that cannot change what a compiler makes.
_HARMLESS = re.compile("LD_LIBRARY_PATH|HOME|USER|LOGNAME|TERM|CCACHE_DIR|SCCACHE_DIR|.*LICENSE.*")
# Memos that this process has read: file -> its stamp and content. Each unit of a load asks for the compiler.
_read: dict[Path, tuple[object, Any]] = {}
_TICK = 20_000_000  # nanoseconds by which the clock of a file system may be late
_LARGE = 64_000_000  # bytes; no file of a host compiler is that large


class Identity(NamedTuple):
    """The identity of a compiler.

    Attributes:
        id: 16 hexadecimal digits.
        description: name and version for people, e.g. `g++ (Debian 12.2.0-14+deb12u1) 12.2.0`; not part of the id.
    """

    id: str
    description: str


@dataclass(frozen=True)
class _Memo:
    """The content of the file that keeps an identity; of each file that was hashed it has the `_stamp`."""

    format: int
    id: str
    description: str
    files: list[tuple[str, int, int, int]]


def identify(
    command: Sequence[str],
    dialect: str,
    path: str,
    memo_dir: Path | None,
    variables: Sequence[tuple[str, str]] = (),
    *,
    keep: bool = True,
) -> Identity:
    """Return the identity of the compiler that `command` starts.

    Args:
        command: the compiler program and its fixed first arguments; of CUDA's compilers, the files they consist of.
        dialect: `gcc`, `clang`, `zig`, `nvrtc` or `nvcc`.
        path: the PATH in which the program finds the programs that it starts.
        memo_dir: the directory for results, created if missing; None or an unwritable directory: results are not kept.
        variables: the variables of the environment that the program gets besides PATH.
        keep: False to keep no result, but to use one that is there.

    Raises:
        ToolchainError: the program cannot be run, or its C++ compiler proper is missing.
    """
    memo = memo_dir and _memo(command, dialect, path, memo_dir, variables)
    if memo and (found := _recall(memo)):
        return found
    from dimorph.toolchain import probe, scripts  # here, because only an unknown compiler needs them

    began = time.time_ns() - _TICK
    files = [command[0], *probe.parts(command, dialect, path, variables)]
    try:
        # Taken before the contents are read, so that a file replaced in between does not match its stamp later.
        stamps = [_stamp(file) for file in files]
        # A wrapper script may choose the compiler by what stands in other files; those that it writes choose nothing.
        programs = [one for one in command if one.startswith("/")]
        named = scripts.named(programs, {**dict(variables), "PATH": path})
        stamps += [stamp for file, there in named if there and (stamp := _stamp(file))[3] < began]
        digest = _hash(dialect, files, [one for one in variables if not _HARMLESS.fullmatch(one[0])])
    except OSError as error:
        if no_descriptors(error):
            raise
        raise ToolchainError(
            f"{command[0]} cannot be identified, because a file of it cannot be read: {error}"
        ) from error
    result = Identity(digest, probe.describe(command, dialect, path, variables))
    if memo is not None and keep:
        content = {"format": _FORMAT, "id": result.id, "description": result.description, "files": stamps}
        _remember(memo, content)
    return result


def known(
    command: Sequence[str], dialect: str, path: str, memo_dir: Path, variables: Sequence[tuple[str, str]] = ()
) -> Identity | None:
    """Return what `identify` returned before, if it was kept and the compiler is unchanged; starts no process."""
    return _recall(_memo(command, dialect, path, memo_dir, variables))


def _memo(
    command: Sequence[str], dialect: str, path: str, memo_dir: Path, variables: Sequence[tuple[str, str]]
) -> Path:
    asked = [list(command), dialect, path, *([list(variables)] if variables else ())]
    return memo_dir / f"{_lazy.hashlib.sha256(_lazy.json.dumps(asked).encode()).hexdigest()[:16]}.json"


def _hash(dialect: str, files: Sequence[str], variables: Sequence[tuple[str, str]]) -> str:
    from dimorph.toolchain.workers import side_by_side

    digests = side_by_side([partial(_digest, file) for file in files], os.cpu_count() or 1)
    whole = _lazy.hashlib.sha256(f"{_FORMAT} {dialect} {len(files)}\n".encode())
    for digest in digests:
        whole.update(digest)
    if variables:
        whole.update(_lazy.json.dumps(sorted(variables)).encode())
    return whole.hexdigest()[:16]


def _digest(file: str) -> bytes:
    buffer = memoryview(bytearray(1 << 18))
    with Path(file).open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = _lazy.hashlib.sha256(str(size).encode())
        # Of a large library such as NVRTC's (140 MB, 0.15 s to hash) only a sixteenth is hashed: enough to tell two
        # builds apart.
        skipped = 15 * len(buffer) if size > _LARGE else 0
        while count := stream.readinto(buffer):
            content.update(buffer[:count])
            if skipped:
                stream.seek(skipped, os.SEEK_CUR)
    return content.digest()


def _stamp(file: str) -> tuple[str, int, int, int]:
    # Follows links: a link that is switched to another compiler leads to another inode.
    status = os.stat(file)  # noqa: PTH116 (done for each file in each process: Path.stat takes twice as long)
    return file, status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=16)  # each search reads the same few memos again
def _parsed(text: bytes) -> _Memo:
    with records.errors_in("the identity of a compiler"):
        return records.parse(_Memo, _lazy.json.loads(text), "memo")


def _recall(memo: Path) -> Identity | None:
    """Return the identity kept in a memo if every file is unchanged; None also for a memo that cannot be read."""
    try:
        stamp = _stamp(str(memo))
        if memo not in _read or _read[memo][0] != stamp:
            _read[memo] = stamp, _parsed(records.read(memo, records.open_own))
        kept = _read[memo][1]
        unchanged = kept.files and all(_stamp(stamp[0]) == stamp for stamp in kept.files)
        if unchanged and kept.format == _FORMAT and re.fullmatch("[0-9a-f]{16}", kept.id):
            return Identity(kept.id, kept.description)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.debug("%s: not usable, so the compiler is identified again: %s", memo, error)
    return None


def _remember(memo: Path, content: Mapping[str, object]) -> None:
    import tempfile

    try:
        for directory in reversed(memo.parents):
            directory.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=memo.parent) as private:
            written = Path(private, memo.name)
            written.touch(0o600)
            written.write_text(_lazy.json.dumps(content))
            written.replace(memo)
    except OSError as error:
        # Harmless: the next process hashes the files again.
        _log.debug("%s: the compiler's identity cannot be kept: %s", memo, error)
