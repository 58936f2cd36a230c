"""Commands that messages print: each one is run, and does what the message says."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.kernels import FUNCTOR, PICK

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
@pytest.mark.parametrize(
    ("loaded", "call", "built"),
    [
        # A value that the load has fixed beyond the declared ones; two values of one call, named one after the other.
        ("width=[1, 2], depth=7", "9, 7", "width=9 depth=7"),
        ("", "9, 9", "width=9 depth=9"),
    ],
)
def test_the_command_for_a_value_of_a_call(loaded: str, call: str, built: str, root: Path) -> None:
    """Each command brings the call further, until it is served."""
    axes = ", ".join(f"dm.int_axis('{name}', '{name.upper()}', [1, 2], accepts=bool)" for name in ("width", "depth"))
    script = root / "script.py"
    script.write_text(
        f"import dimorph as dm\nkernel = dm.Kernel(name='pick', axes=[{axes}])\nif __name__ == '__main__':\n"
        f"    kernel.build(width=[1, 2], depth=[1, 2, 7])\n    module = kernel.load({loaded})\n"
        + ASK.format(load=f"module.pick({call}); print(json.dumps(['there', '']))").replace("\n", "\n    ")
    )
    environ = {**os.environ, "DIMORPH_POLICY": "aot"}
    commands = []
    while len(commands) < 4:
        words = [sys.executable, str(script)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        command = json.loads(done.stdout.strip().splitlines()[-1])[0]
        if command == "there":
            break
        _run(command)
        commands.append(command.partition(":pick ")[2].partition(" --out")[0])
    assert command == "there" and built in commands


# A kernel of one variant, and others that it does not declare.
VARIANTS = """
import dimorph as dm
def variant(name, struct="Plain"):
    return dm.Variant(name, header="variants.h", struct=struct)
kernel = dm.Kernel(name="functor", axes=[dm.variant_axis("variant", "FUNCTOR", default=variant("Plain"))])
mine = variant("Mine")
held = [variant("Held"), dm.Variant("Both", header="variants.h", parts=(mine, variant("Part")))]
"""


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("which", ["mine", "held[0]", "held[1]"])
def test_a_variant_that_nobody_declared(which: str, tmp_path: Path) -> None:
    """One that a variable holds is named by its file, another one is described."""
    package = tmp_path / "functors"
    shutil.copytree(FUNCTOR.root, package, ignore=shutil.ignore_patterns("*.py", "__*", "_dimorph"))
    (package / "kernels.py").write_text(VARIANTS)
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(package)!r}); from kernels import *\n"
        + ASK.format(load=f"kernel.load(policy='aot', variant={which}); print(json.dumps(['there', '']))")
    )
    command, message = _asked(str(script))
    assert command is not None and f"build it: {command}" in message
    if which == "held[1]":  # of no struct that could be compiled
        _run(command.replace("dimorph build", "dimorph explain").partition(" --out ")[0])
    else:
        _run(command)
        assert _asked(str(script))[0] == "there"


@pytest.mark.usefixtures("store")
def test_a_variant_whose_header_is_gone(tmp_path: Path) -> None:
    text = """
import dimorph as dm, json, sys, pathlib
from dimorph.attention.kernels import attention_cpu
from dimorph.resolve.missing import missing_values
mine = dm.Variant("Mine", "mine.h", root=sys.argv[1])
try:
    raise missing_values(attention_cpu, {"variant": "Mine"}, {}, {"Mine": mine}, "a test", {})
except dm.MissingSpecialization as error:
    print(json.dumps([error.command, str(error)]))
"""
    command, message = _asked("-c", text, str(tmp_path))
    assert command is None and "build it: " not in message and "there is no header" in message


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
