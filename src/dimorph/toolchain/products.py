"""Check that a compiler's output is whole and of the kind asked for, before it is published.

A compiler that was killed, a full disk, or a flag such as `-c` leave files that no process could ever load.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dimorph.toolchain.compiler import Level
from dimorph.toolchain.targets import Target

# Of the ELF format: sizes of the file header and of a program header, types of files and segments, machines.
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_RELOCATABLE, _SHARED = 1, 3
_DYNAMIC, _INTERPRETER = 2, 3
_MACHINES = {"x86_64": 62, "aarch64": 183}
_PTX = re.compile(rb"^\.target\s+(\w+)", re.M)


def fault(path: Path, target: Level) -> str | None:
    """Return why a file cannot be the output of a successful compile for a target; None if it can be.

    Args:
        path: the output, whose suffix says its kind: `.so`, `.cubin` or `.ptx`.
        target: the target level or architecture that it was compiled for.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            faults = _ptx_faults(stream.read(), target) if path.suffix == ".ptx" else _elf_faults(stream, size, target)
            return next(faults, None)
    except FileNotFoundError:
        return "there is no output"


def _elf_faults(stream: BinaryIO, size: int, target: Level) -> Iterator[str]:
    """Yield faults of an object file; after the first one, the others need not be true."""
    head = stream.read(_HEADER.size)
    if head[:4] != b"\x7fELF" or len(head) < _HEADER.size:
        yield f"the output is no object file: {size} bytes, which begin with {head[:16]!r}"
    if head[4:6] != b"\2\1":
        yield "the output is an object file of 32 bits or of big-endian order"
    _, kind, machine, _, _, at, sections, _, _, length, count, section_length, section_count, _ = _HEADER.unpack(head)
    stream.seek(at)
    table = stream.read(length * count)
    whole = length in (0, _SEGMENT.size) and len(table) == length * count
    segments = list(_SEGMENT.iter_unpack(table)) if whole else []
    ends = [offset + held for _, _, offset, _, _, held, _, _ in segments]
    end = max([at + length * count, sections + section_length * section_count, *ends])
    if end > size or sections == 0 or not whole:
        yield f"the output is cut off: {size} bytes of {end}"
    if kind == _RELOCATABLE:
        yield "the output is a relocatable object file, which was not linked; does a flag such as -c or -r ask for it?"
    if isinstance(target, Target):
        if _MACHINES.get(target.machine, machine) != machine:
            yield f"the output is for another machine than {target.machine} (ELF machine {machine})"
        kinds = {segment[0] for segment in segments}
        if kind != _SHARED or _DYNAMIC not in kinds or _INTERPRETER in kinds:
            yield "the output is no shared object; does a flag such as -static or -pie ask for another kind of file?"


def _ptx_faults(text: bytes, target: Level) -> Iterator[str]:
    """Yield faults of PTX; after the first one, the others need not be true."""
    found = _PTX.search(text)
    if found is None or b".version" not in text:
        yield f"the output is no PTX: {len(text)} bytes, which begin with {text[:16]!r}"
    expected = target.name.replace("compute_", "sm_")
    if found and found[1].decode() != expected:
        yield f"the output is PTX for {found[1].decode()}, not for {expected}"
    if text.rstrip(b"\0\n ")[-1:] not in (b"}", b";"):
        yield f"the output is cut off: {len(text)} bytes, which end with {text[-16:]!r}"
