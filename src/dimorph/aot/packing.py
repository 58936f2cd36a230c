"""Pack a tree of files as a wheel for the systems that can load its objects."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipInfo

from dimorph._lazy import logger
from dimorph.errors import LoadError
from dimorph.store.artifact import KINDS
from dimorph.store.layers import PACKAGED
from dimorph.toolchain import elf

_log = logger("dimorph")

# manylinux2014, older than every glibc that a supported Python is built for; pip knows no tags much below it.
_OLDEST_GLIBC = (2, 17)
# The libraries of glibc, whose presence a manylinux tag guarantees.
_GLIBC_LIBRARIES = re.compile(r"(lib(c|m|dl|rt|pthread)\.so\.\d+|ld-linux[\w-]*\.so\.\d+)\Z")
# The C++ libraries must be linked statically: a process may already have loaded another wheel's older copy.
_CXX_LIBRARIES = re.compile(r"lib(stdc\+\+|gcc_s|c\+\+|c\+\+abi|unwind)\.so\b")


def platform(objects: Sequence[Path], tree: Path, machine: str) -> str:
    """Return the platform tag whose systems can load every object."""
    floors, foreign = [_OLDEST_GLIBC], set()
    for path in objects:
        needs = elf.needs(path)
        own = path.stem in KINDS  # a copy of a library is as its maker linked it
        if own and (cxx := [name for name in needs.libraries if _CXX_LIBRARIES.match(name)]):
            raise LoadError(
                f"{path.relative_to(tree)} needs {', '.join(cxx)}: expected the C++ library to be linked statically "
                "or not at all, because a process may have loaded an older one"
            )
        beside = {one.name for one in path.parent.iterdir()}
        foreign |= {name for name in needs.libraries if not _GLIBC_LIBRARIES.match(name) and name not in beside}
        floors += [needs.glibc] if needs.glibc else []
    if foreign:
        _log.warning("the wheel cannot be tagged manylinux, because it needs %s", ", ".join(sorted(foreign)))
        return f"linux_{machine}"
    major, minor = max(floors)
    return f"manylinux_{major}_{minor}_{machine}"


def pack(tree: Path, directory: Path, pure_name: str, tag: str, made: float) -> str:
    """Pack the tree as a wheel for a platform, byte for byte reproducibly; return the wheel's file name."""
    from wheel.wheelfile import WHEEL_INFO_RE, WheelFile  # type: ignore[import-untyped]

    parts = WHEEL_INFO_RE.match(pure_name)
    if parts is None or parts["plat"] != "any":
        raise ValueError(f"build_wheel: expected a pure wheel from the backend, got {pure_name}")
    pythons, abi = parts["pyver"], parts["abi"]
    stem = parts["namever"] + (f"-{parts['build']}" if parts["build"] else "")
    described = tree / f"{parts['namever']}.dist-info" / "WHEEL"
    info = message_from_bytes(described.read_bytes(), policy=policy.compat32)
    info.replace_header("Root-Is-Purelib", "false")
    del info["Tag"]
    for python in pythons.split("."):
        info["Tag"] = f"{python}-{abi}-{tag}"
    described.write_bytes(info.as_bytes())
    for path in tree.rglob("*"):
        if PACKAGED in path.parts and path.is_file():
            path.chmod(0o644)  # files of a store are read-only, but installers and uninstallers write them
        os.utime(path, (made, made))

    class Reproducible(WheelFile):  # type: ignore[misc]
        def writestr(self, entry: Any, data: Any, compress_type: int | None = None) -> None:
            if isinstance(entry, str):  # RECORD, which otherwise carries the time of packing
                entry = ZipInfo(entry, time.gmtime(made)[:6])
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
            super().writestr(entry, data, compress_type)

    name = f"{stem}-{pythons}-{abi}-{tag}.whl"
    with Reproducible(directory / name, "w") as archive:
        archive.write_files(str(tree))
    return name
