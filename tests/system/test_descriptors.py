"""A process without free file descriptors: the error says so, with its number, and nothing else is blamed."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from dimorph.runtime import library
from support.kernels import PICK

SCRIPT = """
import os, resource, sys, warnings
import dimorph as dm
from support.kernels import PICK
warnings.simplefilter("error")
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (400, most))
for free in map(int, sys.argv[1:]):
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for descriptor in held[:free]:
        os.close(descriptor)
    try:
        said = str(PICK.load(width=1, depth=1).pick(1, 1))
    except Exception as error:
        said = f"{type(error).__name__} {getattr(error, 'errno', '')} {error}"
    for descriptor in held[free:]:
        os.close(descriptor)
    print(said)
module = PICK.load(width=2, depth=1)
print(module.pick(2, 1), {one.place.partition(" ")[0] for one in module.resolutions})
"""


def _loads(*free: int) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, free)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_build_without_descriptors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PICK.root.parents[1]), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DIMORPH_LOG", "off")
    *loads, later = _loads(0, 1, 2, 3, 4, 5, 6, 8, 10, 12)
    expected = f"OSError {errno.EMFILE} [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"
    assert [line for line in loads if not line.startswith(expected)] == []
    assert later == "2001 {'built'}", "no private store is left in use"
    # A hit needs few descriptors, and says what lacks if it gets none.
    hits = _loads(0, 1, 2, 3)
    assert all(line == "1001" or line.startswith(expected) for line in hits[:-1])
    assert hits[0].startswith(expected)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_dynamic_loader_without_descriptors(
    number: int, tmp_path: Path, warm_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PICK.load(width=1, depth=1)
    real = ctypes.CDLL

    def full(name: Any, *mode: Any) -> Any:
        if name and str(name).endswith(".so") and str(warm_store) in str(name):
            raise OSError(f"{name}: cannot open shared object file: {os.strerror(number)}")
        return real(name, *mode)

    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(ctypes, "CDLL", full)
    with pytest.raises(OSError, match="many open files") as caught:
        PICK.load(width=1, depth=1)
    assert caught.value.errno == number
    assert not isinstance(caught.value, dm.DimorphError)
    assert str(warm_store) in str(caught.value.filename)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_files_of_a_kernel_that_cannot_be_opened_for_that_reason(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_text", full)
    with pytest.raises(OSError, match="many open files") as caught:
        PICK.load(width=1, depth=1)
    assert caught.value.errno == number
    monkeypatch.undo()
    lost = dm.Kernel("lost", entry="lost.cc", case=[])
    with pytest.raises(dm.DeclarationError, match=r"entry .*lost\.cc: No such file or directory"):
        lost.load()
