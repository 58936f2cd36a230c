"""The choice of the host compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import host, targets


def _settings(cxx: str | None = None, path: str | None = None, **others: Any) -> Settings:
    return Settings(store=Path("unused"), cxx=cxx, path=os.environ["PATH"] if path is None else path, **others)


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


@pytest.mark.parametrize("variable", ["DIMORPH_CXX", "CXX"])
def test_programs_that_start_the_compiler(tmp_path: Path, variable: str) -> None:
    for name in ("ccache", "g++", "clang++-15"):
        _program(tmp_path / name)
    for text, names, dialect in (
        ("ccache g++", ["ccache", "g++"], "gcc"),
        (f"'{tmp_path / 'ccache'}' clang++-15", ["ccache", "clang++-15"], "clang"),
    ):
        found = host.find(_settings(text, str(tmp_path)) if variable == "DIMORPH_CXX" else _by_cxx(text, tmp_path))
        assert found.command == tuple(str(tmp_path / name) for name in names)
        assert found.dialect == dialect


def _by_cxx(text: str, path: Path) -> Settings:
    return _settings(None, str(path), default_cxx=text)


def test_cxx_counts_after_our_own_variable(tmp_path: Path) -> None:
    for name in ("g++", "clang++-15", "other-g++"):
        _program(tmp_path / name)
    assert host.find(_by_cxx("clang++-15", tmp_path)).command == (str(tmp_path / "clang++-15"),)
    both = _settings("other-g++", str(tmp_path), default_cxx="clang++-15")
    assert host.find(both).command == (str(tmp_path / "other-g++"),)


def test_flags_beside_the_compiler(tmp_path: Path) -> None:
    """CXX is written for other builds; in our own variable a flag that is dropped would be a surprise."""
    _program(tmp_path / "g++")
    assert host.find(_by_cxx("g++ -pthread -std=gnu++14", tmp_path)).command == (str(tmp_path / "g++"),)
    with pytest.raises(ToolchainError, match="give -m32 in DIMORPH_CXXFLAGS"):
        host.find(_settings("g++ -m32", str(tmp_path)))


@pytest.mark.parametrize("text", ["ccache g++-99", "ccache-99 g++", "'unclosed", "-m32"])
def test_words_of_which_one_is_missing_are_not_replaced(tmp_path: Path, text: str) -> None:
    for name in ("g++", "ccache"):
        _program(tmp_path / name)
    for used in (_settings(text, str(tmp_path)), _by_cxx(text, tmp_path)):
        with pytest.raises(ToolchainError, match=r"CXX=.*(there is no such program|as a shell splits|expected)"):
            host.find(used)


@pytest.mark.parametrize("text", ["zig", "zig c++", "python3 -m ziglang c++"])
def test_the_ways_to_name_zig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    program = _ziglang(tmp_path / "site", monkeypatch)
    for used in (_settings(text, str(tmp_path)), _by_cxx(text, tmp_path)):
        assert host.find(used)[:2] == ((str(program), "c++"), "zig")


def test_a_path_with_blanks_is_one_program(tmp_path: Path) -> None:
    program = _program(tmp_path / "with blanks" / "g++")
    assert host.find(_settings(str(program), str(tmp_path))).command == (str(program),)


def test_condas_compilers_have_a_prefix(tmp_path: Path) -> None:
    names = [f"{os.uname().machine}-conda-linux-gnu-{kind}" for kind in ("clang++", "c++")]
    for name, dialect in zip(names, ("clang", "gcc"), strict=True):
        program = _program(tmp_path / name)
        assert host.find(_settings(path=str(tmp_path)))[:2] == ((str(program),), dialect)


def test_one_compiler_under_two_names_is_one_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    _program(tmp_path / "g++")
    (tmp_path / "c++").symlink_to("g++")
    _program(tmp_path / "clang++")
    found = [one.command[0] for one in host.candidates(_settings(path=str(tmp_path)))]
    assert found == [str(tmp_path / "g++"), str(tmp_path / "clang++")]


@pytest.mark.parametrize(
    ("description", "old"),
    [
        ("g++ (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)", "GCC 4 "),
        ("x86_64-conda-linux-gnu-c++ (conda-forge gcc 10.4.0-19) 10.4.0", "GCC 10 "),
        ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0", None),
        ("g++-11 (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0", None),
        ("clang version 3.4.2 (tags/RELEASE_34/dot2-final)", "clang 3 "),
        ("Ubuntu clang version 14.0.0-1ubuntu1.1", None),
        ("zig 0.13.0", None),
        ("fake++ 1.0", None),
    ],
)
def test_a_compiler_that_is_too_old(description: str, old: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    found = host.too_old(host.HostCompiler(("/usr/bin/some",), "gcc", ""), description)
    assert (found is None) == (old is None)
    assert old is None or f"/usr/bin/some is {old}" in str(found)


def test_a_level_of_another_machine_needs_a_compiler_for_it(tmp_path: Path) -> None:
    here = os.uname().machine
    level = targets.by_name("armv8" if here == "x86_64" else "x86-64-v3")
    for name, fits in (("g++", False), (f"{level.machine}-linux-gnu-g++", True), ("zig", True)):
        compiler = host.find(_settings(str(_program(tmp_path / name)), str(tmp_path)))
        if fits:
            assert compiler.compile_command(Path("a.cc"), Path("a.so"), target=level)
        else:
            with pytest.raises(ToolchainError, match=rf"compiles for {here}, and the target level {level.name}"):
                compiler.compile_command(Path("a.cc"), Path("a.so"), target=level)
        with pytest.raises(ToolchainError, match=f"is for {level.machine}, and nothing compiled for it can be loaded"):
            compiler.check(level)
