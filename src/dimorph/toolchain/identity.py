"""Which compiler it is: a content hash of everything in it that decides what it produces.

Hashed are the driver, the programs behind it (the compiler proper, assembler, linker) and the few system
headers that carry the versions of the C and C++ libraries: their inline code ends up in what is built, and
clang takes whichever C++ library is newest. Paths are left out: an equal compiler elsewhere is the same one.

The result is kept in a small file, with inode, size and modification time of every file that was hashed.
While those hold, asking again starts no process and reads none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dimorph import _lazy
from dimorph._lazy import logger

_log = logger("dimorph")
_FORMAT = 2
_LARGE = 64_000_000  # bytes; no compiler of the host is that large in one file


class Identity(NamedTuple):
    """A compiler's identity.

    Attributes:
        id: 16 hexadecimal digits.
        description: for people, e.g. `g++ (Debian 12.2.0-14+deb12u1) 12.2.0`; not part of the id.
    """

    id: str
    description: str


def identify(command: Sequence[str], dialect: str, path: str, memo_dir: Path | None) -> Identity:
    """The identity of the compiler that `command` starts.

    Args:
        command: the driver and its fixed first arguments; of CUDA's compilers, the files that they consist of.
        dialect: `gcc`, `clang`, `zig`, `nvrtc` or `nvcc`.
        path: the PATH that the driver finds its programs with.
        memo_dir: where results are kept, created if missing; with None or an unwritable one nothing is.

    Raises:
        ToolchainError: the driver cannot be run, or it lacks its C++ compiler.
    """
    memo = None
    if memo_dir is not None:
        name = _lazy.hashlib.sha256(_lazy.json.dumps([list(command), dialect, path]).encode()).hexdigest()[:16]
        memo = memo_dir / f"{name}.json"
        if known := _recall(memo):
            return known
    from dimorph.toolchain import probe  # with all that starts processes, which a compiler known already does not need

    files = [command[0], *probe.parts(command, dialect, path)]
    # Taken before the contents are read, so that a file replaced meanwhile does not match its own stamp.
    stamps = [_stamp(file) for file in files]
    result = Identity(_hash(dialect, files), probe.describe(command, dialect, path))
    if memo is not None:
        content = {"format": _FORMAT, "id": result.id, "description": result.description, "files": stamps}
        _remember(memo, content)
    return result


def _hash(dialect: str, files: Sequence[str]) -> str:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_digest, files))
    whole = _lazy.hashlib.sha256(f"{_FORMAT} {dialect} {len(files)}\n".encode())
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()[:16]


def _digest(file: str) -> bytes:
    buffer = memoryview(bytearray(1 << 18))
    with Path(file).open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = _lazy.hashlib.sha256(str(size).encode())
        # Of a library such as NVRTC's (140 MB, 0.15 s to hash) a sixteenth: no two builds of one agree in that.
        skipped = 15 * len(buffer) if size > _LARGE else 0
        while count := stream.readinto(buffer):
            content.update(buffer[:count])
            if skipped:
                stream.seek(skipped, os.SEEK_CUR)
    return content.digest()


def _stamp(file: str) -> list[str | int]:
    # Follows links: one that is switched to another compiler leads to another inode.
    status = os.stat(file)  # noqa: PTH116 (done for each file in each process: Path.stat takes twice as long)
    return [file, status.st_ino, status.st_size, status.st_mtime_ns]


def _recall(memo: Path) -> Identity | None:
    """What is kept, if every file is still the same; a memo that cannot be understood counts as none."""
    try:
        kept = _lazy.json.loads(memo.read_bytes())
        unchanged = kept["files"] and all(_stamp(stamp[0]) == stamp for stamp in kept["files"])
        if unchanged and kept["format"] == _FORMAT and re.fullmatch("[0-9a-f]{16}", kept["id"]):
            return Identity(kept["id"], str(kept["description"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        _log.debug("%s: not usable, so the compiler is identified again: %s", memo, error)
    return None


def _remember(memo: Path, content: Mapping[str, object]) -> None:
    import tempfile

    try:
        for directory in reversed(memo.parents):
            directory.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=memo.parent) as private:
            written = Path(private, memo.name)
            written.write_text(_lazy.json.dumps(content))
            written.replace(memo)
    except OSError as error:
        # Costs the next process the hashing again, and nothing else.
        _log.debug("%s: the compiler's identity cannot be kept: %s", memo, error)
