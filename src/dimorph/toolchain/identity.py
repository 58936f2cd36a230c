"""Which compiler it is: a content hash of everything in it that decides what it produces.

Hashed are the driver, the programs behind it (the compiler proper, assembler, linker) and the few system
headers that carry the versions of the C and C++ libraries: their inline code ends up in what is built, and
clang takes whichever C++ library is newest. Paths are left out: an equal compiler elsewhere is the same one.

The result is kept in a small file, with inode, size and modification time of every file that was hashed.
While those hold, asking again starts no process and reads none of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dimorph.errors import BuildError, ToolchainError
from dimorph.toolchain import process
from dimorph.toolchain.diagnostics import parse_make_rule

_log = logging.getLogger("dimorph")
_FORMAT = 2
_SECONDS = 10.0  # for one small question
_LARGE = 64_000_000  # bytes; no compiler of the host is that large in one file


@dataclass(frozen=True)
class Identity:
    """A compiler's identity.

    Attributes:
        id: 16 hexadecimal digits.
        description: for people, e.g. `g++ (Debian 12.2.0-14+deb12u1) 12.2.0`; not part of the id.
    """

    id: str
    description: str


def identify(command: Sequence[str], family: str, path: str, memo_dir: Path | None) -> Identity:
    """The identity of the compiler that `command` starts.

    Args:
        command: the driver and its fixed first arguments; of CUDA's compilers, the files that they consist of.
        family: `gcc`, `clang`, `zig`, `nvrtc` or `nvcc`.
        path: the PATH that the driver finds its programs with.
        memo_dir: where results are kept, created if missing; with None or an unwritable one nothing is.

    Raises:
        ToolchainError: the driver cannot be run, or it lacks its C++ compiler.
    """
    memo = None
    if memo_dir is not None:
        name = hashlib.sha256(json.dumps([list(command), family, path]).encode()).hexdigest()[:16]
        memo = memo_dir / f"{name}.json"
        if known := _recall(memo):
            return known
    env = {"PATH": path, "LC_ALL": "C"}
    files = [command[0], *_PARTS[family](command, path, env)]
    # Taken before the contents are read, so that a file replaced meanwhile does not match its own stamp.
    stamps = [_stamp(file) for file in files]
    result = Identity(_hash(family, files), _describe(command, family, env))
    if memo is not None:
        content = {"format": _FORMAT, "id": result.id, "description": result.description, "files": stamps}
        _remember(memo, content)
    return result


def _gcc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    programs = [_program(command, name, path, env) for name in ("cc1plus", "as", "ld")]
    if programs[0] is None:
        raise ToolchainError(
            f"{command[0]} has no C++ compiler behind it (cc1plus): install it, e.g. `apt-get install g++` "
            "or `dnf install gcc-c++`"
        )
    return [program for program in programs if program] + _headers(command, env)


def _clang_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # The driver may be a script or a link; it says which binary it compiles with.
    planned = _ask([*command, "-###", "-x", "c++", "-fsyntax-only", os.devnull], env)
    backend = re.search(r'^ *"([^"\n]+)" "-cc1"', planned, re.M)
    if backend is None:
        raise ToolchainError(f"{command[0]} does not say what it compiles with: {planned.strip()[:300]}")
    # The binary may be a shell around shared libraries, which hold the compiler; the loader lists them.
    traced = {**env, "LD_TRACE_LOADED_OBJECTS": "1"}
    loaded = process.run([backend[1]], timeout=_SECONDS, cwd=Path("/"), env=traced)
    libraries = re.findall(r"^\s*lib(?:clang|LLVM)\S* => (/\S+)", loaded.output, re.M)
    linker = _program(command, "ld", path, env)
    return [backend[1], *libraries, *([linker] if linker else []), *_headers(command, env)]


def _zig_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # One binary holds compiler, assembler and linker, and comes together with its headers and libraries.
    return []


def _nvrtc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    return list(command[1:])


def _nvcc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # It preprocesses with the host's compiler.
    host = shutil.which("g++", path=path)
    return [*command[1:], *(_gcc_parts((host,), path, env) if host else ())]


_PARTS = {
    "gcc": _gcc_parts,
    "clang": _clang_parts,
    "zig": _zig_parts,
    "nvrtc": _nvrtc_parts,
    "nvcc": _nvcc_parts,
}


def _program(command: Sequence[str], name: str, path: str, env: Mapping[str, str]) -> str | None:
    # The answer is a bare name where the driver leaves the search to PATH.
    return shutil.which(_ask([*command, f"-print-prog-name={name}"], env).strip(), path=path)


def _headers(command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    # <cstddef> reaches the version headers of both libraries and little else.
    rule = _ask([*command, "-M", "-x", "c++", "-include", "cstddef", os.devnull], env)
    return [str(file) for file in parse_make_rule(rule) if str(file) != os.devnull]


def _describe(command: Sequence[str], family: str, env: Mapping[str, str]) -> str:
    if family == "zig":
        return f"zig {_ask([command[0], 'version'], env).strip()}"
    if family == "nvrtc":
        # Its own library may not be named for the version; that of its built-in functions is.
        return f"NVRTC {re.sub(r'.*builtins[.]so[.]', '', command[1])}"
    if family == "nvcc":
        return f"nvcc{_ask([command[0], '--version'], env).rpartition('release')[2].partition('Build')[0].rstrip()}"
    return _ask([*command, "--version"], env).partition("\n")[0].strip()


def _ask(command: Sequence[str], env: Mapping[str, str]) -> str:
    # At the root, no file of the working directory can stand in for a header.
    try:
        answer = process.run(command, timeout=_SECONDS, cwd=Path("/"), env=env)
    except BuildError as error:
        raise ToolchainError(f"the compiler cannot be identified: {error}") from error
    if answer.exit_code != 0:
        raise ToolchainError(f"{shlex.join(command)} failed ({answer.exit_code}): {answer.output.strip()[:300]}")
    return answer.output


def _hash(family: str, files: Sequence[str]) -> str:
    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_digest, files))
    whole = hashlib.sha256(f"{_FORMAT} {family} {len(files)}\n".encode())
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()[:16]


def _digest(file: str) -> bytes:
    buffer = memoryview(bytearray(1 << 18))
    with Path(file).open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = hashlib.sha256(str(size).encode())
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
        kept = json.loads(memo.read_bytes())
        unchanged = kept["files"] and all(_stamp(stamp[0]) == stamp for stamp in kept["files"])
        if unchanged and kept["format"] == _FORMAT and re.fullmatch("[0-9a-f]{16}", kept["id"]):
            return Identity(kept["id"], str(kept["description"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        _log.debug("%s: not usable, so the compiler is identified again: %s", memo, error)
    return None


def _remember(memo: Path, content: Mapping[str, object]) -> None:
    try:
        for directory in reversed(memo.parents):
            directory.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=memo.parent) as private:
            written = Path(private, memo.name)
            written.write_text(json.dumps(content))
            written.replace(memo)
    except OSError as error:
        # Costs the next process the hashing again, and nothing else.
        _log.debug("%s: the compiler's identity cannot be kept: %s", memo, error)
