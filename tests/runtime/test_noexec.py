"""Stores on a file system that is mounted noexec, from which no code can be mapped."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dimorph as dm
from dimorph.runtime import library
from dimorph.runtime.library import unloadable
from support.kernels import PICK
from support.store import IS_ROOT


@pytest.fixture
def mounted(store: Path) -> Iterator[None]:
    store.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "noexec,mode=0700", "tmpfs", str(store)]
    if not IS_ROOT or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting is not permitted here; test_what_cannot_be_mapped stands in for it")
    yield
    subprocess.run(["umount", "-l", str(store)], check=True)


@pytest.mark.usefixtures("mounted")
def test_a_store_that_is_mounted_noexec(copy_of: Callable[..., dm.Kernel], store: Path) -> None:
    module = copy_of(PICK).load()
    assert module.pick(1, 1) == 1001
    file = module.resolutions[0].artifact.file
    assert file.is_relative_to(store) and unloadable(module.resolutions[0].artifact) is None
    with pytest.raises(OSError, match="failed to map"):
        ctypes.CDLL(str(file))


def test_what_cannot_be_mapped(copy_of: Callable[..., dm.Kernel], store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, status = ctypes.CDLL, os.statvfs

    def refusing(path: Any, *args: Any) -> ctypes.CDLL:
        if str(path).startswith(str(store)):
            raise OSError(f"{path}: failed to map segment from shared object")
        return real(path, *args)

    monkeypatch.setattr(library, "_loaded", {})  # other tests may have loaded the same objects
    monkeypatch.setattr(library.ctypes, "CDLL", refusing)
    with pytest.raises(dm.LoadError, match="failed to map"):  # for another reason than noexec
        copy_of(PICK).load()
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=status(path).f_flag | os.ST_NOEXEC))
    assert copy_of(PICK).load().pick(1, 1) == 1001
