"""Programs and scripts that stand behind a compiler: a change of what they are, or of what they read, is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import dimorph as dm
from support.compilers import GXX
from support.reads import ASSEMBLED, DEFAULT, HEAD, TAIL, Tree, kernel_of, put, script, set_driver


@pytest.mark.parametrize("place", ["tools", "of the machine"])
def test_an_assembler_that_appears_in_the_compilers_own_directories_is_noticed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"probe.cc": HEAD + ASSEMBLED + TAIL, "/tools/x": ""})
    machine = subprocess.check_output([GXX, "-dumpmachine"], text=True).strip()
    where = tmp_path / "tools" / ("" if place == "tools" else machine)
    monkeypatch.setenv("COMPILER_PATH", str(tmp_path / "tools"))
    monkeypatch.setenv("DIMORPH_COMPILER_ENV", "COMPILER_PATH")
    kernel = dm.Kernel(name="probe", entry="probe.cc", case=[], root=tmp_path / "project")
    assert kernel.load().probe() == 1
    where.mkdir(exist_ok=True)
    script(where / "as", f'exec {shutil.which("as")} --defsym two=50 "$@"')
    assert kernel.load().probe() == 2


@pytest.mark.parametrize("first", ["missing", "there"])
def test_a_compiler_behind_one_of_its_name_is_noticed(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"probe.cc": f"{HEAD}{DEFAULT}{TAIL}"})
    caching, behind = tmp_path / "caching" / "g++", tmp_path / "behind" / "g++"
    for program in (caching, behind):
        program.parent.mkdir()
    script(caching, f'if test -x {behind}; then exec {behind} "$@"; fi; exec {GXX} "$@"')
    if first == "there":
        script(behind, f'exec {GXX} "$@"')
    monkeypatch.setenv("PATH", f"{caching.parent}:{behind.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CXX", raising=False)
    kernel = dm.Kernel(name="probe", entry="probe.cc", case=[], root=tmp_path / "project")
    assert kernel.load().probe() == 1
    script(behind, f'exec {GXX} -DVALUE=2 "$@"')
    assert kernel.load().probe() == 2


@dataclass(frozen=True)
class Wrapper:
    """A script that is the compiler, and what changes so that VALUE is 2; names as in `put`.

    Attributes:
        text: the script; GXX stands for the compiler, `exec` passes its arguments on.
        first: the files that it needs, when VALUE is 1.
        then: the files that are changed.
    """

    text: str
    first: Tree = field(default_factory=lambda: {"/flags": "-DVALUE=1\n"})
    then: Tree = field(default_factory=lambda: {"/flags": "-DVALUE=2\n"})


WRAPPERS = {
    "cat": Wrapper('exec GXX $(cat ROOT/flags) "$@"'),
    "redirection": Wrapper('read -r more <ROOT/flags\nexec GXX $more "$@"'),
    "quoted": Wrapper('more="$(cat \'ROOT/flags\')"\nexec GXX $more "$@"'),
    "response_file": Wrapper('exec GXX @ROOT/flags "$@"'),
    "option_with_a_file": Wrapper(
        'exec GXX -imacros ROOT/flags.h "$@"',
        {"/flags.h": "#define VALUE 1\n"},
        {"/flags.h": "#define VALUE 2\n"},
    ),
    "sourced": Wrapper(
        '. ROOT/setup.sh\nexec GXX $MORE "$@"', {"/setup.sh": "MORE=-DVALUE=1\n"}, {"/setup.sh": "MORE=-DVALUE=2\n"}
    ),
    "read_by_what_is_sourced": Wrapper(
        '. ROOT/setup.sh\nexec GXX $MORE "$@"', {"/setup.sh": "MORE=$(cat ROOT/flags)\n", "/flags": "-DVALUE=1"}
    ),
    "beside_the_script": Wrapper(
        'exec GXX $(cat "$(dirname "$0")/flags") "$@"', {"/driver/flags": "-DVALUE=1"}, {"/driver/flags": "-DVALUE=2"}
    ),
    "name_with_an_at_sign": Wrapper(
        'exec GXX @ROOT/a@b.rsp "$@"', {"/a@b.rsp": "-DVALUE=1"}, {"/a@b.rsp": "-DVALUE=2"}
    ),
    "name_with_a_blank": Wrapper(
        'exec GXX $(cat "ROOT/my flags") "$@"', {"/my flags": "-DVALUE=1"}, {"/my flags": "-DVALUE=2"}
    ),
    "name_with_signs": Wrapper(
        'exec GXX $(cat ROOT/v1,2/x:f=g) "$@"', {"/v1,2/x:f=g": "-DVALUE=1"}, {"/v1,2/x:f=g": "-DVALUE=2"}
    ),
    "beneath_a_directory_in_a_variable": Wrapper(
        'CONF=ROOT/conf\nexec GXX $(cat $CONF/flags) "$@"', {"/conf/flags": "-DVALUE=1"}, {"/conf/flags": "-DVALUE=2"}
    ),
    "beneath_a_directory_of_another_text": Wrapper(
        '. ROOT/setup\nexec GXX $(cat "$CONF/a/flags") "$@"',
        {"/setup": "CONF=ROOT/conf\n", "/conf/a/flags": "-DVALUE=1"},
        {"/conf/a/flags": "-DVALUE=2"},
    ),
    "pattern": Wrapper(
        'exec GXX $(cat ROOT/conf.d/*.flags) "$@"', {"/conf.d/a.flags": "-DVALUE=1"}, {"/conf.d/a.flags": "-DVALUE=2"}
    ),
    "after_cd": Wrapper(
        'here=$PWD; cd ROOT/etc && more=$(cat flags); cd "$here" && exec GXX $more "$@"',
        {"/etc/flags": "-DVALUE=1"},
        {"/etc/flags": "-DVALUE=2"},
    ),
    "on_a_path_of_its_own": Wrapper(
        'PATH=ROOT/own:$PATH\nexec inner "$@"',
        {"/own/inner": '#!/bin/sh\nexec GXX "$@"\n'},
        {"/own/inner": '#!/bin/sh\nexec GXX -DVALUE=2 "$@"\n'},
    ),
    "in_the_home_directory": Wrapper(
        'exec GXX $(cat ~/flags) "$@"', {"/home/flags": "-DVALUE=1"}, {"/home/flags": "-DVALUE=2"}
    ),
    "in_the_home_directory_by_its_variable": Wrapper(
        'exec GXX $(cat "$HOME/etc/flags") "$@"', {"/home/etc/flags": "-DVALUE=1"}, {"/home/etc/flags": "-DVALUE=2"}
    ),
    "in_a_directory_of_its_own": Wrapper(
        'exec GXX $(cat "${0%/*}/etc/cxx.flags") "$@"',
        {"/driver/etc/cxx.flags": "-DVALUE=1"},
        {"/driver/etc/cxx.flags": "-DVALUE=2"},
    ),
    "script_of_a_script": Wrapper(
        'exec ROOT/second "$@"', {"/bin/x": "", "/second": '#!/bin/sh\nexec GXX $(cat ROOT/flags) "$@"\n', "/flags": ""}
    ),
    "script_on_path": Wrapper(
        'exec second "$@"',
        {"/bin/second": '#!/bin/sh\nexec GXX "$@"\n'},
        {"/bin/second": '#!/bin/sh\nexec GXX -DVALUE=2 "$@"\n'},
    ),
    "name_of_the_compiler": Wrapper(
        'exec $(cat ROOT/real) "$@"',
        {
            "/real": "ROOT/bin/one\n",
            "/bin/one": '#!/bin/sh\nexec GXX "$@"\n',
            "/bin/two": '#!/bin/sh\nexec GXX -DVALUE=2 "$@"\n',
        },
        {"/real": "ROOT/bin/two\n"},
    ),
    "link_to_the_flags": Wrapper(
        'exec GXX $(cat ROOT/flags) "$@"',
        {"/one": "-DVALUE=1", "/two": "-DVALUE=2", "/flags": Path("one")},
        {"/flags": Path("two")},
    ),
    "file_that_appears": Wrapper(
        'if test -e ROOT/opt; then set -- -DVALUE=2 "$@"; fi\nexec GXX "$@"', {"/x": ""}, {"/opt": ""}
    ),
    "program_that_appears": Wrapper(
        'if second=$(command -v second); then exec "$second" "$@"; fi\nexec GXX "$@"',
        {"/bin/x": ""},
        {"/bin/second": '#!/bin/sh\nexec GXX -DVALUE=2 "$@"\n'},
    ),
}


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_a_change_of_what_a_wrapper_script_reads_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = WRAPPERS[name]
    put(tmp_path, {"probe.cc": f"{HEAD}{DEFAULT}{TAIL}", "/driver/x": "", "/bin/y": "", **wrapper.first})
    compiler = tmp_path / "driver" / "g++"
    script(compiler, wrapper.text.replace("ROOT", str(tmp_path)).replace("GXX", GXX))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIMORPH_COMPILER_ENV", "HOME")
    monkeypatch.setenv("DIMORPH_CXX", str(compiler))
    kernel = dm.Kernel(name="probe", entry="probe.cc", case=[], root=tmp_path / "project")
    assert kernel.load().probe() == 1
    assert kernel.load().resolutions[0].place.startswith("store")
    put(tmp_path, wrapper.then)
    assert kernel.load().probe() == 2


def test_a_python_script_counts_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(tmp_path, DEFAULT)
    put(tmp_path, {"/driver/x": "", "/flags": "-DVALUE=1"})
    text = f"more = open('{tmp_path}/flags').read().split()\nos.execv('{GXX}', ['{GXX}', *more, *sys.argv[1:]])"
    (tmp_path / "driver" / "g++").write_text(f"#!{sys.executable}\nimport os, sys\n{text}\n")
    (tmp_path / "driver" / "g++").chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(tmp_path / "driver" / "g++"))
    assert kernel.load().probe() == 1
    put(tmp_path, {"/flags": "-DVALUE=2"})
    assert kernel.load().probe() == 2


def test_what_a_wrapper_script_writes_is_not_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, log = kernel_of(tmp_path, DEFAULT), tmp_path / "log"
    set_driver(tmp_path, monkeypatch, f"echo compiled >> {log}", "")
    kernel.load()
    log.write_text(log.read_text() + "another project\n")
    assert kernel.load().resolutions[0].place.startswith("store")
    assert log.read_text().splitlines() == ["compiled", "another project"]


def test_a_wrapper_script_that_switches_compilers_changes_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_of(tmp_path, DEFAULT)
    second = (
        f'#!/bin/sh\ncase "$*" in *-print-prog-name=cc1plus*) echo {tmp_path}/cc1plus;; *) exec {GXX} "$@";; esac\n'
    )
    found = subprocess.check_output([GXX, "-print-prog-name=cc1plus"], text=True).strip()
    shutil.copy(found, tmp_path / "cc1plus")
    with (tmp_path / "cc1plus").open("ab") as stream:
        stream.write(b"another version")
    put(tmp_path, {"/driver/x": "", "/real": GXX, "/bin/second": second})
    script(tmp_path / "driver" / "g++", f'exec $(cat {tmp_path}/real) "$@"')
    monkeypatch.setenv("DIMORPH_CXX", str(tmp_path / "driver" / "g++"))
    time.sleep(0.03)  # longer than the clock of a file system may be late
    first = kernel.load().resolutions[0].artifact.path.name
    put(tmp_path, {"/real": f"{tmp_path}/bin/second"})
    assert kernel.load().resolutions[0].artifact.path.name != first
