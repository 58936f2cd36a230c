"""Stores and projects in directories of any name: kernels are built there, and loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dimorph as dm
from dimorph.store import layers
from support.kernels import PICK

NAMES = [
    *("$ORIGIN", "$LIB", "${PLATFORM}", "a${ORIGIN}b", "$HOME $$ $(x) `x`", "%s%d%%", "-dash=equals", "~tilde", "#@"),
    *("a quote\" apo' back\\slash end\\", "com,ma co:lon semi;colon", "[0]*?{a,b}!&(x)"),
    *("tab\t return\r form\f \x1c \x85 \u2028", "caf\u00e9 " + os.fsdecode(b"\xff")),
]
SCRIPT = """
import sys, dimorph as dm
from pathlib import Path
kernel = dm.Kernel("pick", entry="pick.cc", case=["pick_case.cc"], root=sys.argv[1],
    axes=[dm.int_axis("width", "WIDTH", [1, 2]), dm.int_axis("depth", "DEPTH", [1])])
module = kernel.load(width=1)
print(module.pick(1, 1), module.resolutions[0].place.partition(" ")[0])
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_store_and_a_project_of_any_name(
    name: str, tmp_path: Path, copy_of: Callable[..., dm.Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = (tmp_path / name).joinpath(name)
    root.parent.mkdir()
    copy_of(PICK).root.rename(root)
    environ = {**os.environ, "DIMORPH_STORE": str(tmp_path / name / f"s{name}"), "DIMORPH_LOG": "off"}
    for place in ("built", "store"):
        command = [sys.executable, "-W", "error", "-c", SCRIPT, root]
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
        assert done.stdout.decode() == f"1001 {place}\n", done.stderr.decode("utf-8", "replace")


@pytest.mark.parametrize("name", ["$ORIGIN", "$LIB", "line\nbreak"])
def test_what_is_built_ahead_into_any_directory(name: str, tmp_path: Path, copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    root = tmp_path / name
    kernel.root.rename(root)
    moved = dm.Kernel("pick", entry="pick.cc", case=["pick_case.cc"], axes=PICK.axes, root=root)
    if "\n" in name:
        with pytest.raises(dm.StoreRefused, match=r"line\\nbreak/_dimorph' has a line break in its path"):
            moved.build(width=1, depth=1)
        return
    moved.build(width=1, depth=1)
    module = moved.load(policy="aot", width=1, depth=1)
    assert module.pick(1, 1) == 1001
    assert module.resolutions[0].place.startswith("packaged")


def test_a_store_with_a_line_break_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_fallback", [])  # it warns once a process
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "line\nbreak"))
    with pytest.warns(RuntimeWarning, match=r"store refused: '.*line\\nbreak' has a line break in its path"):
        assert PICK.load(width=1, depth=1).pick(1, 1) == 1001
