"""Two artifacts of one file in one process: each gets static variables of its own, whatever the system offers."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

import pytest

from dimorph.runtime import library


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "some.so"
    made.write_bytes(b"content" * 1000)
    return made


def _check(file: Path) -> None:
    first, second = (library._copied(file) for _ in range(2))
    assert first != second and Path(first).read_bytes() == Path(second).read_bytes() == file.read_bytes()


def test_a_python_for_an_old_c_library_makes_files_in_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in dir(os) if name.startswith("MFD_")] + ["memfd_create"]:
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_: pytest.fail("a file was made"))
    _check(file)


def test_another_processor_and_an_old_kernel_make_files_without_names(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def refused(*_: object) -> int:
        raise OSError("no such system call")

    monkeypatch.setattr(os, "memfd_create", refused)
    _check(file)
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(library, "_MEMFD_CREATE", {})
    _check(file)
    monkeypatch.setattr(library, "_MEMFD_CREATE", {os.uname().machine: 100_000})
    assert ctypes.CDLL(None).syscall(100_000) == -1, "the number of no system call"
    _check(file)
    assert not list((tmp_path / "temporary").iterdir())
