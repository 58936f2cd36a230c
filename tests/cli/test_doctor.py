"""`dimorph doctor`: its findings, the problems that it reports, and the commands that mend them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dimorph.cli import doctor
from dimorph.store.store import Store
from support.cli import Run


def test_doctor_of_a_healthy_machine(run: Run, store: Path) -> None:
    shown = run("doctor").stdout
    assert shown.endswith("no problems\n")
    for line in (
        rf"ok +python +{sys.version.split()[0]} ",
        r"ok +tvm-ffi +0\.1\.\S+; artifacts are made for tvm-ffi 0\.1 ",
        rf"ok +setting store +{re.escape(str(store))} \(DIMORPH_STORE",
        r"ok +setting policy +auto \(default; DIMORPH_POLICY changes it\)",
        r"ok +compiler +/\S+: .* \(used: the first .*\); a trial compile succeeded",
        r"ok +targets +this CPU runs \S+",
        r"ok +store +",
        r"(ok|absent) +zig +",
        r"(ok|absent) +gpu +",
        r"(ok|absent) +nvrtc +",
        r"ok +numpy +\d",
        r"(ok|absent) +torch +",
    ):
        assert re.search(rf"^{line}", shown, re.M), line


def test_doctor_imports_nothing_heavy(root: Path) -> None:
    script = """
        import sys
        from dimorph.cli import doctor
        list(doctor.examine())
        print(sorted({"torch", "numpy", "tvm_ffi", "ml_dtypes"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def _wrong(run: Run, topic: str) -> tuple[str, str]:
    """Return the problem that `doctor` reports for a topic, and the command that mends it."""
    shown = run("doctor", code=1).stdout
    assert shown.splitlines()[-1] == "1 problem"
    found = re.search(rf"^wrong  {topic} +(.*(?:\n(?! +->).*)*?)\n +-> (.*)$", shown, re.M)
    assert found, shown
    return found[1], found[2]


def test_doctor_of_an_unsafe_store(run: Run, filled: Store) -> None:
    filled.root.chmod(0o777)
    problem, mend = _wrong(run, "store")
    assert str(filled.root) in problem and "writable by world" in problem
    assert mend == f"chmod go-w {filled.root}"
    subprocess.run(mend, shell=True, check=True)
    assert "no problems" in run("doctor").stdout


def test_doctor_of_a_corrupt_store(run: Run, filled: Store) -> None:
    file = next(filled.root.rglob("meta.json"))
    file.chmod(0o600)
    file.write_text("{}")
    problem, mend = _wrong(run, "store")
    assert "1 of them cannot be used" in problem
    assert "1 that could not be used" in run(*mend.split()[1:]).stdout
    assert not file.parent.exists()
    assert "no problems" in run("doctor").stdout


def test_doctor_of_a_full_disk(run: Run, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(doctor, "_LITTLE_SPACE", shutil.disk_usage(filled.root).total)
        (found,) = (one for one in doctor.examine() if one.topic == "store")
    assert found.state == "wrong" and "nearly full" in found.text
    monkeypatch.setenv("DIMORPH_STORE", str(filled.root))
    program, *arguments = found.mend.replace("100MB", "0MB").split()
    assert program == "dimorph" and "removed 3 artifacts" in run(*arguments).stdout


def test_doctor_of_a_setting_that_there_is_not(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_POLICI", "aot")
    problem, mend = _wrong(run, "settings")
    assert (
        "DIMORPH_POLICI: there is no such setting; the nearest is DIMORPH_POLICY" in problem
        and mend == "unset DIMORPH_POLICI"
    )


def test_doctor_of_flags_that_no_shell_splits(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXXFLAGS", "'-DX")
    problem, mend = _wrong(run, "settings")
    assert "DIMORPH_CXXFLAGS: expected flags as a shell splits them" in problem and mend == "unset DIMORPH_CXXFLAGS"


def test_doctor_without_the_compiler_that_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXX", "no-such-compiler")
    problem, mend = _wrong(run, "compiler")
    assert "no-such-compiler: there is no such program" in problem and mend == "unset DIMORPH_CXX"


def test_doctor_of_a_compiler_that_cannot_compile(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "g++"
    broken.parent.mkdir()
    real = shutil.which("g++")
    broken.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) echo no headers here; exit 1;; esac\nexec {real} "$@"\n')
    broken.chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(broken))
    problem, mend = _wrong(run, "compiler")
    assert "a trial compile failed (1): no headers here" in problem and "apt-get install g++" in mend


@pytest.mark.parametrize(("level", "problem"), [("x86-64-v9", "x86-64-v9"), ("armv8", "this CPU runs only x86-64")])
def test_doctor_of_a_target_that_does_not_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, level: str, problem: str
) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("armv8 is wrong on x86-64 only")
    monkeypatch.setenv("DIMORPH_TARGET", level)
    text, mend = _wrong(run, "targets")
    assert problem in text and mend == "unset DIMORPH_TARGET"


def test_doctor_of_a_shared_store_that_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "gone"))
    problem, _ = _wrong(run, "shared store")
    assert f"{tmp_path / 'gone'} is not there" in problem
