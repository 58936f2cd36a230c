"""Projects whose kernel returns what its compile read, and compilers that are scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

import dimorph as dm
from support.compilers import GXX

HEAD = '#include <dimorph/entry.h>\n#include "probe_config.h"\n'
TAIL = "\nint64_t probe() { return VALUE; }\nDIMORPH_EXPORT(probe)\n"
ONE, TWO = "#define VALUE 1\n", "#define VALUE 2\n"
DEFAULT = "#ifndef VALUE\n#define VALUE 1\n#endif"
# An assembler that defines the symbol `two` makes VALUE 2.
ASM = (
    'asm(".section .rodata\\n.globl blob\\n.hidden blob\\n%s\\n.previous");\n'
    'extern "C" const char blob[] __attribute__((visibility("hidden")));\n#define VALUE (blob[0] - 48)'
)
ASSEMBLED = ASM % ".ifndef two\\n.set two, 49\\n.endif\\nblob: .byte two"

Tree = Mapping[str, "str | bytes | Path | None"]


def put(root: Path, files: Tree) -> None:
    """Write the files of a tree; see `Way` of test_reads for the names. None removes a file."""
    for name, content in files.items():
        path = root / name[1:] if name.startswith("/") else root / "project" / name
        old = path.stat() if path.exists() else None
        if path.is_symlink() or (content is None and path.exists()):
            path.unlink()
        if content is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
            continue
        text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        for word, value in (
            (b"ROOT", str(root)),
            (b"AS ", f"{shutil.which('as')} "),
            (b"LD ", f"{shutil.which('ld')} "),
            (b"GXX ", f"{GXX} "),
        ):
            text = text.replace(word, value.encode())
        path.write_bytes(text)
        if old and text.endswith(b"//old times"):
            os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        if text.startswith(b"#!"):
            path.chmod(0o755)
        if path.name == "v.c":
            target = path.with_name("v.o")
            subprocess.run([GXX, "-x", "c", "-c", "-fPIC", path, "-o", target], check=True)
            path.with_name("libv.a").unlink(missing_ok=True)
            subprocess.run(["ar", "rcs", path.with_name("libv.a"), target], check=True)


def script(path: Path, text: str) -> None:
    """Write a program for the shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def kernel_of(root: Path, text: str = '#include "v.h"') -> dm.Kernel:
    """Return a kernel whose entry has some lines that define VALUE."""
    put(root, {"probe.cc": HEAD + text + TAIL, "v.h": ONE})
    return dm.Kernel(name="probe", entry="probe.cc", case=[], root=root / "project")


def set_driver(root: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, more: str = "") -> None:
    """Make a script the compiler: it does something before and after each compile, and adds arguments."""
    driver = root / "driver" / "g++"
    driver.parent.mkdir()
    compiled = f'{before}\n{GXX} "$@" {more}\nstatus=$?\n{after}\nexit $status'
    driver.write_text(f'#!/bin/sh\ncase "$*" in *-shared*)\n{compiled};; esac\nexec {GXX} "$@"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(driver))
