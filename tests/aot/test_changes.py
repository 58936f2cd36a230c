"""Why a build cannot reuse what its directory holds, and what it changes there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dimorph import aot, settings
from dimorph.aot.changes import changes
from dimorph.store.manifest import Built, Row
from support.compilers import counting_compiler
from support.skeletons import declared


def test_a_compile_that_would_read_something_else_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tmp_path / "read"
    read.touch()
    compiler = counting_compiler(tmp_path, before=f": {read}")
    monkeypatch.setenv("DIMORPH_CXX", str(compiler.driver))
    kernel = declared(root)

    def why(number: int) -> list[str]:
        config = replace(settings.current(), store=tmp_path / f"store-{number}")
        values = kernel.instantiations(dtype="float32", head_dim=64)
        return list(aot.build(values, tmp_path / "out", settings=config).steps[1].why)

    assert why(0) == ["the directory held no case of affine"]
    assert why(1) == []
    read.unlink()
    assert why(2) == [f"{tmp_path / 'out'}: {read}, which its compile read, is gone"]
    compiler.driver.write_text(compiler.driver.read_text() + "# another compiler\n")
    (told,) = why(3)
    assert told.startswith("the directory held it as made by g++ ")


def row(kind: str, key: str, size: int, **values: str) -> Row:
    return Row(kind, "k", values, "x86-64-v3", key * 64, "0" * 16, "g++", "abi", None, None, size)


def test_two_builds_of_a_set_are_compared() -> None:
    before = Built({}, {"a": ["1", "2"], "b": ["x"]}, [], ["x86-64-v3"], [], False, [], [row("case", "1", 1000, a="1")])
    assert list(changes(before, before)) == []
    rows = [row("case", "2", 1500, a="1"), row("case", "3", 1000, a="3"), row("entry", "4", 1000)]
    now = replace(before, values={"a": ["1", "3"], "c": ["y"]}, archs=["sm_80"], cxxflags=["-g"], artifacts=rows)
    assert list(changes(before, now)) == [
        "axis a: new: 3",
        "axis a: gone: 2",
        "axis b: gone: x",
        "axis c: new: y",
        "target: new: sm_80",
        "flags: none, now -g",
        "2 artifacts new",
        "1 artifact built again",
        "size: 1.0 kB, now 3.5 kB",
    ]
    assert list(changes(now, before))[-3:] == ["2 artifacts gone", "1 artifact built again", "size: 3.5 kB, now 1.0 kB"]
    assert list(changes(None, now)) == ["this set was not built into the directory before"]
