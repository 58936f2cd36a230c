"""The choice of the host compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import host


def _settings(cxx: str | None = None, path: str | None = None) -> Settings:
    return Settings(store=Path("unused"), cxx=cxx, path=os.environ["PATH"] if path is None else path)


def _program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("present", "found", "dialect"),
    [
        (["g++", "clang++", "c++"], "g++", "gcc"),
        (["clang++", "c++"], "clang++", "clang"),
        (["c++"], "c++", "gcc"),
    ],
)
def test_order_on_path(tmp_path: Path, present: list[str], found: str, dialect: str) -> None:
    for name in present:
        _program(tmp_path / name)
    toolchain = host.find(_settings(path=str(tmp_path)))
    assert (toolchain.command, toolchain.dialect) == ((str(tmp_path / found),), dialect)


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("x86_64-linux-gnu-g++-12", "gcc"),
        ("clang++-18", "clang"),
        ("zig", "zig"),
        ("zig-0.13", "zig"),
        ("my-compiler", "gcc"),
    ],
)
def test_a_named_compiler_wins_and_its_name_tells_the_dialect(tmp_path: Path, name: str, dialect: str) -> None:
    program = _program(tmp_path / "somewhere" / name)
    _program(tmp_path / "g++")
    for cxx, path in ((str(program), str(tmp_path)), (name, f"{tmp_path}:{program.parent}")):
        if cxx != "zig":
            toolchain = host.find(_settings(cxx, path))
            assert (toolchain.command[0], toolchain.dialect) == (str(program), dialect)
            assert toolchain.command[1:] == (("c++",) if dialect == "zig" else ())


def test_a_link_has_the_dialect_of_what_it_leads_to(tmp_path: Path) -> None:
    _program(tmp_path / "real" / "clang-18")
    (tmp_path / "c++").symlink_to(tmp_path / "real" / "clang-18")
    toolchain = host.find(_settings(path=str(tmp_path)))
    assert (toolchain.command, toolchain.dialect) == ((str(tmp_path / "c++"),), "clang")


def test_a_named_compiler_that_is_missing_is_not_replaced(tmp_path: Path) -> None:
    _program(tmp_path / "g++")
    with pytest.raises(ToolchainError, match=r"DIMORPH_CXX=g\+\+-99: there is no such program"):
        host.find(_settings("g++-99", str(tmp_path)))
    (tmp_path / "not-executable").write_text("")
    with pytest.raises(ToolchainError, match=r"DIMORPH_CXX=.*not-executable"):
        host.find(_settings(str(tmp_path / "not-executable")))


def _ziglang(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a ziglang package that fails if it is imported."""
    program = _program(directory / "ziglang" / "zig")
    (directory / "ziglang" / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.setattr("sys.path", [str(directory)])
    return program


def test_the_ziglang_package_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _ziglang(tmp_path / "site", monkeypatch)
    empty = tmp_path / "bin"
    empty.mkdir()
    toolchain = host.find(_settings(path=str(empty)))
    assert (toolchain.command, toolchain.dialect) == ((str(program), "c++"), "zig")
    _program(empty / "c++")
    assert host.find(_settings(path=str(empty))).dialect == "gcc"
    assert host.find(_settings("zig", str(empty))) == toolchain


def test_none_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ToolchainError, match=r"(?s)no C\+\+ compiler.*apt-get install g\+\+.*pip install ziglang"):
        host.find(_settings(path=str(tmp_path)))
    with pytest.raises(ToolchainError, match=r"DIMORPH_CXX=zig: .*pip install ziglang"):
        host.find(_settings("zig", str(tmp_path)))
    on_path = _program(tmp_path / "zig")
    assert host.find(_settings("zig", str(tmp_path))).command == (str(on_path), "c++")


def test_finding_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert host.find(_settings()).command
