"""A wheel with kernels built ahead of time: its tag, its content, and its use on a machine without a compiler.

The wheel of `tests/support/packages/rowmath` is built by a real front end, without isolation because Dimorph itself is
what is being tested, and installed into a new virtual environment beside a wheel of Dimorph.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest
from wheel.wheelfile import WheelFile  # type: ignore[import-untyped]

import dimorph as dm
from dimorph import wheel
from dimorph.toolchain import elf
from support.paths import ROWMATH
from support.wheels import Environment, build_wheel, environment_with

LEVELS = {"x86_64": ["x86-64-v2", "x86-64-v3"], "aarch64": ["armv8"]}[os.uname().machine]


def copy_project(place: Path, levels: list[str] = LEVELS) -> Path:
    project = place / "rowmath"
    shutil.copytree(ROWMATH, project, ignore=shutil.ignore_patterns("__pycache__", "_dimorph"))
    settings = project / "pyproject.toml"
    text = re.sub(r"^targets = .*$", f"targets = {json.dumps(levels)}", settings.read_text(), flags=re.M)
    settings.write_text(text)
    return project


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    place = tmp_path_factory.mktemp("built")
    return build_wheel(copy_project(place), place / "store")


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_with(tmp_path_factory.mktemp("environment"), built)


RUN = """
import hashlib, json, logging, sys
import numpy as np
import rowmath

x = np.random.default_rng(0).standard_normal((5, 64))
right, bits = True, hashlib.sha256()
for dtype in ("float32", "float64"):
    for width in (64, 32 * 4):
        a = np.tile(x, width // 64).astype(dtype)
        y, d = rowmath.rms_norm(a, 0.5), rowmath.row_dot(a, a)
        expected = a / np.sqrt((a.astype("float64") ** 2).mean(1, keepdims=True) + 0.5)
        right &= bool(np.allclose(y, expected, rtol=1e-5) and np.allclose(d, (a * a).sum(1), rtol=1e-4))
        bits.update(y.tobytes() + d.tobytes())
loaded = rowmath._loaded().resolutions
one = rowmath.kernels.rms_norm.load(dtype="float32", width=128)
y = np.empty_like(a, "float32")
one.rms_norm(a.astype("float32"), y, 0.5)
right &= bool((y == rowmath.rms_norm(a.astype("float32"), 0.5)).all())
cases = sorted(r.artifact.meta.files["case.so"].sha256 for r in loaded if r.unit.kind == "case")
places = sorted({r.place.partition(" (")[0] for r in (*loaded, *one.resolutions)})
modules = sorted({"torch", "elftools", "dimorph.resolve.build"} & set(sys.modules))
print(json.dumps({"right": right, "bits": bits.hexdigest(), "cases": cases, "places": places, "modules": modules}))
"""


def with_compiler(environment: Environment, store: Path) -> dict[str, str]:
    """Environment variables with a compiler on PATH and a store."""
    driver = shutil.which("g++") or shutil.which("clang++")
    assert driver, "the tests need g++ or clang++"
    return {"PATH": f"{environment.root / 'bin'}:{os.environ['PATH']}", "DIMORPH_STORE": str(store)}


@pytest.mark.parametrize("policy", ["aot", "auto"])
def test_it_runs_without_a_compiler_and_writes_nothing(policy: str, environment: Environment) -> None:
    before = environment.tree()
    result = environment.run(RUN, DIMORPH_POLICY=policy)
    assert result["right"]
    assert result["places"] == ["packaged"]
    assert result["modules"] == []
    assert environment.tree() == before
    assert not (environment.root / "no-home").exists()


def test_it_runs_with_a_compiler_and_still_writes_nothing(environment: Environment, tmp_path: Path) -> None:
    result = environment.run(RUN, **with_compiler(environment, tmp_path / "store"))
    assert result["right"]
    assert result["places"] == ["packaged"]
    assert not (tmp_path / "store").exists()


def test_both_modes_run_the_same_case_files_to_the_same_bits(environment: Environment, tmp_path: Path) -> None:
    compiler = with_compiler(environment, tmp_path / "store")
    aot_mode = environment.run(RUN, DIMORPH_TARGET=LEVELS[-1])
    jit_mode = environment.run(RUN, DIMORPH_TARGET=LEVELS[-1], DIMORPH_POLICY="jit", **compiler)
    assert jit_mode["places"] == ["built", "store"]
    assert jit_mode["right"]
    assert len(aot_mode["cases"]) == 4
    assert jit_mode["cases"] == aot_mode["cases"]
    assert jit_mode["bits"] == aot_mode["bits"]


MISSING = """
import json
import numpy as np
import dimorph as dm
import rowmath

def attempt(function):
    try:
        return {"result": function()}
    except dm.MissingSpecialization as error:
        return {"missing": error.missing, "command": error.command, "text": str(error)}

x = np.ones((2, 72), "float32")
def load():
    y = np.empty_like(x)
    rowmath.kernels.rms_norm.load(dtype="float32", width=72).rms_norm(x, y, 0.0)
    return y.tolist()
print(json.dumps([attempt(load), attempt(lambda: rowmath.rms_norm(x, 0.0).tolist())]))
"""


def test_what_was_not_built_fails_by_name_without_a_compiler(environment: Environment) -> None:
    loaded, called = environment.run(MISSING, DIMORPH_POLICY="aot")
    assert loaded["missing"] == {"dtype": "float32", "width": "72"}
    assert called["missing"]["width"] == "72"
    package = environment.packages / "rowmath"
    for error in (loaded, called):
        assert error["command"].startswith(f"dimorph build {package / 'kernels.py'}:rms_norm ")
        assert error["command"].endswith(f" width=72 --out {package / '_dimorph'}")
        assert error["command"] in error["text"]
    assert not (environment.root / "no-home").exists()


def test_what_was_not_built_is_compiled_where_there_is_a_compiler(environment: Environment, tmp_path: Path) -> None:
    before = environment.tree()
    results = environment.run(MISSING, **with_compiler(environment, tmp_path / "store"))
    assert [result["result"] for result in results] == [[[1.0] * 72] * 2] * 2
    assert (tmp_path / "store").is_dir()
    assert environment.tree() == before


EDITED = """
import json, logging
import numpy as np
import dimorph as dm
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("dimorph").addHandler(Keep())
logging.getLogger("dimorph").setLevel(logging.INFO)
import rowmath
try:
    value = rowmath.row_dot(np.ones((1, 4)), np.ones((1, 4))).tolist()
except dm.MissingSpecialization as error:
    value = str(error)
print(json.dumps([value, records, rowmath.__file__]))
"""


def test_a_wheel_whose_sources_were_edited_is_not_used_and_the_log_says_why(
    environment: Environment, tmp_path: Path
) -> None:
    edited = tmp_path / "edited" / "rowmath"
    shutil.copytree(environment.packages / "rowmath", edited)
    header = edited / "csrc" / "reduce.h"
    header.write_text(header.read_text().replace("T sum = 0", "T sum = 100"))
    reason = f"packaged ({edited / '_dimorph'}): nothing in it has the key of these sources"
    found, _, file = environment.run(EDITED, PYTHONPATH=str(edited.parent))
    assert Path(file).parent == edited
    assert reason in found
    assert "source changed: csrc/reduce.h" in found
    compiler = with_compiler(environment, tmp_path / "store")
    found, records, _ = environment.run(EDITED, PYTHONPATH=str(edited.parent), **compiler)
    assert found == [104.0]
    assert any("case" in line and reason in line for line in records)


# --- The wheel as a file ---


def test_its_tag_is_the_glibc_that_its_objects_need(built: Path, tmp_path: Path) -> None:
    match = re.fullmatch(r"rowmath-1\.0-py3-none-manylinux_2_(\d+)_(\w+)\.whl", built.name)
    assert match, built.name
    floor = int(match[1])
    assert match[2] == os.uname().machine
    with WheelFile(built) as archive:  # reading compares every file with RECORD
        described = archive.read("rowmath-1.0.dist-info/WHEEL").decode()
        names = archive.namelist()
        archive.extractall(tmp_path)
    assert f"Tag: py3-none-manylinux_2_{floor}_{match[2]}\n" in described
    assert "Root-Is-Purelib: false\n" in described
    recorded = json.loads((tmp_path / "rowmath" / "_dimorph" / "manifest.json").read_text())
    assert recorded["targets"] == sorted(LEVELS)

    objects = [tmp_path / name for name in names if name.endswith(".so")]
    assert len(objects) == (1 + 4 + 1 + 2 + 1) * len(LEVELS)
    needed = run("readelf", "-d", "-V", "-W", *map(str, objects))
    libraries = set(re.findall(r"NEEDED.*\[(.*)\]", needed))
    assert libraries <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert floor == max(17, *(int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", needed)))


def test_auditwheel_agrees(built: Path) -> None:
    shown = " ".join(run(sys.executable, "-m", "auditwheel", "show", str(built)).split())
    match = re.search(r'following platform tag: "manylinux_2_(\d+)_\w+"', shown)
    assert match, shown
    floor = int(re.findall(r"manylinux_2_(\d+)", built.name)[0])
    # auditwheel names the lowest policy that it knows, and versions know different ones.
    policies = (5, 12, 17, 24, 26, 27, 28, 31, *range(34, 100))
    assert int(match[1]) <= min(policy for policy in policies if policy >= floor)


def test_the_same_sources_make_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build_wheel(copy_project(tmp_path), tmp_path / "store")
    assert again.name == built.name
    assert again.read_bytes() == built.read_bytes()
    with ZipFile(again) as archive:
        assert {info.date_time for info in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        assert str(tmp_path).encode() not in b"".join(archive.read(name) for name in archive.namelist())


def test_its_manifest_is_that_of_its_own_sources(built: Path, tmp_path: Path) -> None:
    with ZipFile(built) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-m", "dimorph", "verify", "rowmath/kernels.py", "--out", "rowmath/_dimorph"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("x86-64-v3") >= 2 and "problem" not in done.stdout, done.stdout


# --- The hook ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose hook is called as front ends do: from the directory of the project."""
    project = copy_project(tmp_path, LEVELS[:1])
    monkeypatch.chdir(project)
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "store"))
    return project


def change(project: Path, old: str, new: str) -> None:
    file = project / "pyproject.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("rms_norm_case.cc", "rowmath/csrc/rms_norm_case.cc"),
        ("row_dot.cc", "csrc/row_dot.cc"),
        ("reduce.h", "reduce.h"),
    ],
)
def test_a_source_that_is_not_in_the_wheel_is_named(left_out: str, named: str, project: Path, tmp_path: Path) -> None:
    packages = 'packages = ["src/rowmath"]'
    change(project, packages, f'{packages}\nexclude = ["{left_out}"]')
    with pytest.raises(dm.DeclarationError, match=rf"{re.escape(named)} is not in the wheel.*hatchling\.build"):
        wheel.build_wheel(str(tmp_path))
    assert list(tmp_path.glob("*.whl")) == []


@pytest.mark.parametrize(
    ("module", "needed"), [("torch_of_nobody", "torch_of_nobody"), ("a_of_nobody.b", "a_of_nobody")]
)
def test_a_package_that_the_kernels_import_and_the_build_lacks_is_named(
    module: str, needed: str, project: Path, tmp_path: Path
) -> None:
    declared = project / "src" / "rowmath" / "kernels.py"
    declared.write_text(declared.read_text().replace("import dimorph as dm", f"import dimorph as dm\nimport {module}"))
    with pytest.raises(dm.DeclarationError, match=rf"importing it needs {needed}, .*`requires` of \[build-system\]"):
        wheel.build_wheel(str(tmp_path))
    assert list(tmp_path.glob("*.whl")) == []


def kernels_with(project: Path, include_dirs: list[str], include: str) -> None:
    """Give row_dot include directories, and let its case include a header."""
    declared = project / "src" / "rowmath" / "kernels.py"
    old = 'entry="csrc/row_dot.cc",'
    declared.write_text(declared.read_text().replace(old, f"{old} include_dirs={include_dirs!r},"))
    case = project / "src" / "rowmath" / "csrc" / "row_dot_case.cc"
    case.write_text(f"#include {include}\n" + case.read_text())
    change(project, '"rowmath.kernels"', '"rowmath.kernels:row_dot"')


def test_headers_outside_of_the_package_are_refused(project: Path, tmp_path: Path) -> None:
    """The project has its own copy; in the wheel, another one in /usr/include would be compiled silently."""
    (project / "third_party").mkdir()
    (project / "third_party" / "zlib.h").write_text("")
    kernels_with(project, ["../../third_party"], "<zlib.h>")
    with pytest.raises(dm.DeclarationError, match=r"'\.\./\.\./third_party' lies outside of the wheel"):
        wheel.build_wheel(str(tmp_path))


@pytest.mark.parametrize("left_out", ["vendored", "*.hpp"])
def test_headers_that_the_wheel_lacks_and_the_system_may_have_are_named(
    left_out: str, project: Path, tmp_path: Path
) -> None:
    vendored = project / "src" / "rowmath" / "vendored"
    vendored.mkdir()
    for name in ("string.hpp", "other.h"):
        (vendored / name).write_text("")
    kernels_with(project, ["vendored"], "<string.hpp>")
    packages = 'packages = ["src/rowmath"]'
    change(project, packages, f'{packages}\nexclude = ["{left_out}"]')
    expected = "rowmath/vendored is not" if left_out == "vendored" else r"rowmath/vendored/string\.hpp is not"
    with pytest.raises(dm.DeclarationError, match=expected):
        wheel.build_wheel(str(tmp_path))


def test_a_package_with_include_dirs_of_its_own_is_built(project: Path, tmp_path: Path) -> None:
    vendored = project / "src" / "rowmath" / "vendored"
    vendored.mkdir()
    (vendored / "vendored.hpp").write_text("")
    kernels_with(project, ["vendored"], "<vendored.hpp>")
    assert wheel.build_wheel(str(tmp_path)).startswith("rowmath-1.0-py3-none-")


def test_no_compiler_is_a_clear_error(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("DIMORPH_CXX", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(dm.ToolchainError, match=r"no C\+\+ compiler found.*pip install ziglang"):
        wheel.build_wheel(str(tmp_path))


def test_an_object_that_needs_another_cxx_library_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("g++") or shutil.which("clang++")
    driver = tmp_path / Path(str(real)).name
    driver.write_text(f'#!/bin/sh\nexec {real} "$@" -Wl,--no-as-needed -shared-libgcc -lgcc_s\n')
    driver.chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(driver))
    change(project, '"rowmath.kernels"', '"rowmath.kernels:row_dot"')
    with pytest.raises(dm.LoadError, match=r"rowmath/_dimorph/.*needs libgcc_s\.so\.1.*statically"):
        wheel.build_wheel(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("backend = ", "back-end = ", "unknown key 'back-end'; there are: archs, backend, kernels, targets"),
        ('backend = "hatchling.build"', 'backend = "dimorph.wheel"', "expected the build backend of the pure wheel"),
        ('["rowmath.kernels"]', '"rowmath.kernels"', "kernels: expected a list of strings"),
        ("targets = [", 'targets = ["x86-64-v9", ', "x86-64-v9"),
        ("targets = [", 'targets = ["x86-64-v2", "armv8", ', "of one machine"),
        ('"rowmath.kernels"', '"rowmath.kernel"', "rowmath.kernel: no module of this name"),
        ('"rowmath.kernels"', '"rowmath.kernels:softmax"', "no kernel is called 'softmax'"),
        ('"rowmath.kernels"', '"dimorph.plan.pool:POOL"', "its sources are not in the wheel"),
    ],
)
def test_a_wrong_table_is_an_error_that_says_how(
    old: str, new: str, complaint: str, project: Path, tmp_path: Path
) -> None:
    change(project, old, new)
    with pytest.raises((ValueError, dm.ToolchainError), match=re.escape(complaint)):
        wheel.build_wheel(str(tmp_path))


@pytest.mark.parametrize("variable", ["DIMORPH_DEBUG", "DIMORPH_CXXFLAGS"])
def test_settings_that_nobody_else_has_are_refused(
    variable: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1" if variable == "DIMORPH_DEBUG" else "-O1")
    with pytest.raises(ValueError, match=variable):
        wheel.build_wheel(str(tmp_path))


def test_everything_else_is_the_backends(project: Path, tmp_path: Path) -> None:
    assert wheel.get_requires_for_build_wheel() == []
    assert wheel.get_requires_for_build_editable()[0].startswith("editables")
    (tmp_path / "out").mkdir()
    assert wheel.build_sdist(str(tmp_path / "out")) == "rowmath-1.0.tar.gz"
    change(project, 'backend = "hatchling.build"', 'backend = "json"')
    assert not hasattr(wheel, "build_editable")
    assert not hasattr(wheel, "no_such_hook")


def test_imports_of_the_hook_leave_no_trace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another = tmp_path / "another" / "rowmath"
    another.mkdir(parents=True)
    (another / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(another.parent))
    installed = importlib.import_module("rowmath")
    monkeypatch.setitem(sys.modules, "rowmath", installed)
    # Artifacts that were built during development must not get into the wheel.
    junk = project / "src" / "rowmath" / "_dimorph" / "junk.so"
    junk.parent.mkdir()
    junk.touch()
    path = list(sys.path)
    made = wheel.build_wheel(str(tmp_path))
    assert sys.modules["rowmath"] is installed
    assert "rowmath.kernels" not in sys.modules
    assert sys.path == path
    with ZipFile(tmp_path / made) as archive:
        names = archive.namelist()
    assert "rowmath/_dimorph/manifest.json" in names
    assert not [name for name in names if "__pycache__" in name or "junk" in name]


def test_what_is_no_shared_object_is_named(tmp_path: Path) -> None:
    for name, content in (("text.so", b"not an object"), ("cut.so", b"\x7fELF\x02\x01\x01")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(dm.LoadError, match=f"{name}: expected a shared object"):
            elf.needs(tmp_path / name)


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
