"""Commands that messages print: each one is run, and does what the message says."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.kernels import PICK

# A program that asks for what is not there, and says what the message told it.
ASK = """
import json, sys, dimorph as dm
try:
    {load}
except dm.MissingSpecialization as error:
    print(json.dumps([error.command, str(error)]))
"""
DECLARE = """
import dimorph as dm
kernel = dm.Kernel(name="pick", entry="pick.cc", case=("pick_case.cc",), root={root!r}, axes=(
    dm.int_axis("width", "WIDTH", [1, 2]), dm.int_axis("depth", "DEPTH", [1, 2])))
"""
LOAD = "kernel.load(width=1, depth=1, policy='aot')"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "sources"
    shutil.copytree(PICK.root, place, ignore=shutil.ignore_patterns("__*", "_dimorph"))
    return place


def _asked(*command: str, text: str | None = None) -> tuple[str | None, str]:
    done = subprocess.run([sys.executable, *command], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed, message = json.loads(done.stdout.strip().splitlines()[-1])
    return printed, message


def _run(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "dimorph"
    done = subprocess.run([sys.executable, "-m", "dimorph", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_that_asks_for_what_is_not_built(guarded: bool, root: Path, store: Path) -> None:
    script = root / "script.py"
    body = ASK.format(load=LOAD) if guarded else f"{LOAD}\n"
    script.write_text(DECLARE.format(root=str(root)) + body)
    if guarded:
        command, message = _asked(str(script))
        assert command is not None and f"build it: {command}" in message
    else:
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        command = done.stderr.strip().splitlines()[-1].partition("build it: ")[2]
    _run(command)
    assert (root / "_dimorph").is_dir() and not (store / "manifest.json").exists()
    assert subprocess.run([sys.executable, str(script)], check=False).returncode == 0


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("how", ["exec", "standard input", "-c"])
def test_a_kernel_that_no_file_declares(how: str, root: Path) -> None:
    text = DECLARE.format(root=str(root)) + ASK.format(load=LOAD)
    if how == "exec":
        command, message = _asked("-c", f"exec({text!r}, {{'__name__': 'notebook'}})")
    elif how == "-c":
        command, message = _asked("-c", text)
    else:
        command, message = _asked("-", text=text)
    assert command is None
    assert "build it: " not in message and "move its declaration into a module" in message


@pytest.mark.usefixtures("store")
def test_a_kernel_that_no_variable_holds(root: Path) -> None:
    script = root / "script.py"
    inner = (DECLARE.format(root=str(root)) + ASK.format(load=LOAD)).replace("\n", "\n    ")
    script.write_text(f"def main():\n    {inner}\nmain()\n")
    command, message = _asked(str(script))
    assert command is None and "bind it at the module level, or call its build()" in message
    script.write_text(
        script.read_text()
        .replace("except dm", "    kernel.build()\n    except dm")
        .replace(LOAD, f"kernel.build(); {LOAD}; print(json.dumps([None, 'built']))")
        .replace("        kernel.build()\n    except", "    except")
    )
    assert _asked(str(script))[1] == "built"


@pytest.mark.usefixtures("store")
def test_a_variant_that_only_the_caller_knows(tmp_path: Path) -> None:
    text = """
import dimorph as dm, json, sys
from dimorph.attention.kernels import attention_cpu
mine = dm.Variant("Mine", "mine.h", root=sys.argv[1])
values = dict(dtype="float32", head_dims=(64, 64), variant=mine)
""" + ASK.format(load="attention_cpu.load(policy='aot', **values)")
    (tmp_path / "mine.h").write_text(
        "template <typename Params> struct Mine {\\n"
        "  static float LogitsTransform(const Params&, float logit, int, int, int, int) { return logit; }\\n};\\n"
    )
    command, message = _asked("-c", text, str(tmp_path))
    assert command is None and "build it: " not in message and "call build() of the kernel" in message


def test_a_place_that_is_refused_is_named_first(root: Path, store: Path) -> None:
    script = root / "script.py"
    script.write_text(DECLARE.format(root=str(root)) + ASK.format(load=LOAD))
    store.mkdir()
    store.chmod(0o777)
    command, message = _asked(str(script))
    assert "mend the place that was refused" in message.splitlines()[-1]
    store.chmod(0o700)
    assert command
    _run(command)
    assert subprocess.run([sys.executable, str(script)], capture_output=True, check=False).stdout == b""


@pytest.mark.usefixtures("store")
def test_a_compiler_that_is_not_there_is_named_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = root / "script.py"
    script.write_text(DECLARE.format(root=str(root)) + ASK.format(load="kernel.load(width=1, depth=1)"))
    with monkeypatch.context() as lacking:
        lacking.setenv("DIMORPH_CXX", "nothing-of-this-name")
        command, message = _asked(str(script))
    assert command and "no such program" in message.splitlines()[0]
    assert message.splitlines()[-1].startswith("  once there is a compiler, build it: ")
    _run(command)
    assert (root / "_dimorph" / "manifest.json").is_file()
