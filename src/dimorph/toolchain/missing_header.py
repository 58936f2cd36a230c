"""Say how it goes where a compiler, by its nature, does not see a header of this machine."""

from __future__ import annotations

import re
from pathlib import Path

# In the words of clang and zig, and of NVRTC.
_MISSING = re.compile(r"""fatal error: '([^'\n]+)' file not found|error: cannot open source file "([^"\n]+)\"""")
_SYSTEM = (Path("/usr/include"), Path("/usr/local/include"))
_WHY = {
    "zig": "zig compiles for an old glibc and sees no header of this machine{found}: put the header into a directory "
    "that the kernel's include_dirs name, or name another compiler in DIMORPH_CXX, e.g. g++, whose objects need the "
    "glibc of this machine",
    "nvrtc": "NVRTC sees CUDA's headers and no other of this machine{found}: put the header into a directory that the "
    "kernel's include_dirs name, take the one of CUDA's C++ library, e.g. <cuda/std/array>, or name an nvcc in "
    "DIMORPH_NVCC",
}


def advice(dialect: str, output: str) -> str:
    """Return why a compile did not find a header, and how it goes; empty if its output has no such message.

    Args:
        dialect: the dialect of the compiler; GCC, clang and nvcc see the headers of the machine, so they have none.
        output: what the compiler printed.
    """
    missing = _MISSING.search(output) if dialect in _WHY else None
    if missing is None:
        return ""
    name = missing[1] or missing[2]
    there = next((path for path in (directory / name for directory in _SYSTEM) if path.is_file()), None)
    return _WHY[dialect].format(found=f", such as {there}" if there else "")
