"""Libraries of others, made in a directory of the test: headers, a file for pkg-config, a Python package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from support.compilers import GXX

ENTRY = """\
#include <dimorph/entry.h>
#include "probe_config.h"
#include <answer.h>
int64_t probe() { return answer(); }
DIMORPH_EXPORT(probe)
"""


def headers(directory: Path, value: object = 1) -> Path:
    """Write the headers of a library, one of which is reached by a macro, and return their directory."""
    include = directory / "include"
    (include / "parts").mkdir(parents=True, exist_ok=True)
    (include / "answer.h").write_text(
        '#pragma once\n#define PART "parts/value.h"\n#include PART\ninline int answer() { int unused; return VALUE; }\n'
    )
    (include / "parts" / "value.h").write_text(f"#define VALUE {value}\n")
    return include


def pc_file(
    directory: Path, name: str, *, version: str = "1.0", cflags: str = "", libs: str = "", **lines: str
) -> Path:
    """Write a file for pkg-config and return its directory."""
    if not shutil.which("pkg-config"):
        pytest.skip("needs pkg-config: apt-get install pkg-config")
    directory.mkdir(parents=True, exist_ok=True)
    given = {"Name": name, "Description": name, "Version": version, "Cflags": cflags, "Libs": libs, **lines}
    (directory / f"{name}.pc").write_text("".join(f"{key}: {value}\n" for key, value in given.items() if value))
    return directory


def python_package(directory: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Lay out a Python package as pip installs it, with an entry point where it has files for pkg-config or CMake."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for file, text in files.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        module = ".".join(Path(file).parent.parts)
        if path.suffix == ".pc":
            (info / "entry_points.txt").write_text(f"[pkg_config]\n{path.stem} = {module}\n")
        elif path.suffix == ".cmake":
            found = path.stem.removesuffix("Config")
            (info / "entry_points.txt").write_text(f"[cmake.root]\n{found} = {module}\n")
    return directory


def probe(root: Path, *dependencies: dm.Dependency, entry: str = ENTRY, **fields: Any) -> dm.Kernel:
    """Declare a kernel without cases that returns what `answer()` of a library returns."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "probe.cc").write_text(entry)
    return dm.Kernel("probe", case=[], root=root, origin=root / "declared.py", dependencies=dependencies, **fields)


LINKED = """\
#include <dimorph/entry.h>
#include "probe_config.h"
extern "C" int answer();
int64_t probe() { return answer(); }
DIMORPH_EXPORT(probe)
"""


def shared_library(
    directory: Path, name: str = "answer", value: str = "1", *, soname: str | None = None, needs: Path | None = None
) -> Path:
    """Link a shared library that exports a function of its name, and return its path, which ends in .so.

    The file is a link to one that has the SONAME as its name, as packages of systems lay them out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    soname = f"lib{name}.so.1" if soname is None else soname
    file = directory / (soname or f"lib{name}.so")
    text = f'extern "C" int {name}() {{ return {value}; }}\n'
    if needs:
        text = f'extern "C" int {needs.stem.removeprefix("lib")}();\n{text}'
    named = [f"-Wl,-soname,{soname}"] if soname else []
    after = ["-x", "none", str(needs)] if needs else []
    command = [GXX, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(file), *named, *after]
    subprocess.run(command, input=text, text=True, check=True)
    link = directory / f"lib{name}.so"
    if soname and not link.is_symlink():
        link.symlink_to(soname)
    return link


def static_library(directory: Path, name: str = "answer", value: str = "1") -> Path:
    """Make a static library that has a function of its name, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    text = f'extern "C" int {name}() {{ return {value}; }}\n'
    command = [GXX, "-c", "-fPIC", "-x", "c++", "-", "-o", str(directory / f"{name}.o")]
    subprocess.run(command, input=text, text=True, check=True)
    file = directory / f"lib{name}.a"
    file.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", str(file), str(directory / f"{name}.o")], check=True)
    return file


def has_pkg_config(name: str) -> bool:
    """Return True if pkg-config is installed and knows a library."""
    program = shutil.which("pkg-config")
    return bool(program) and subprocess.run([str(program), "--exists", name], check=False).returncode == 0
