"""CMake packages: programs in C, C++ and Rust that call kernels without Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dimorph.toolchain import targets
from support.paths import REPOSITORY, ROWMATH, SUPPORT

pytestmark = pytest.mark.long

NATIVE = SUPPORT / "native"
KERNELS = ROWMATH / "src" / "rowmath" / "kernels.py"
LEVELS = ("x86-64-v2", "x86-64-v3") if os.uname().machine == "x86_64" else ("armv8",)
TARGETS = [word for level in LEVELS for word in ("--target", level)]
# A file that declares kernels with arguments, results and errors of every kind.
PIECES = "from support.kernels import ARGUMENTS, FAILURES, TASKS, WEIGHTED\n"
RUSTC = shutil.which("rustc") or shutil.which("rustc", path=Path.home() / ".cargo" / "bin")


def dimorph(*words: str | Path, store: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dimorph", *map(str, words)]
    env = {**os.environ, "DIMORPH_STORE": str(store), "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests'}"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native") / "store"


@pytest.fixture(scope="module")
def package(store: Path) -> Path:
    """The CMake package of the kernels of rowmath, for two target levels."""
    done = dimorph("build", KERNELS, *TARGETS, "--cmake", store.parent / "rowmath", store=store)
    assert done.returncode == 0, done.stderr
    return store.parent / "rowmath"


@pytest.fixture(scope="module")
def pieces(store: Path) -> Path:
    """The CMake package of kernels with arguments, results and errors of every kind."""
    declared = store.parent / "pieces.py"
    declared.write_text(PIECES)
    done = dimorph("build", declared, "--target", LEVELS[0], "--cmake", store.parent / "pieces", store=store)
    assert done.returncode == 0, done.stderr
    return store.parent / "pieces"


def compiled(prefix: Path, build: Path, source: str) -> Path:
    """Compile a program with CMake, and return its path."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    configure = ["cmake", "-S", str(NATIVE), "-B", str(build), f"-DCMAKE_PREFIX_PATH={prefix}"]
    configure += [f"-DPACKAGE={prefix.name}", f"-DSOURCES={NATIVE / source}"]
    for command in (configure, ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / source.partition(".")[0]


def run(*command: str | Path, **env: str) -> list[str]:
    """Return the lines that a program prints in an otherwise empty environment."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


# --- What programs get ---

NORMS = [f"rms_norm {dtype} {width}: right" for width in (64, 128) for dtype in ("float32", "float64")]


def test_a_cpp_program_calls_kernels_without_python(package: Path, tmp_path: Path) -> None:
    lines = run(compiled(package, tmp_path, "rows.cc"))
    assert lines[:6] == [*NORMS, "row_dot float32: right", "row_dot float64: right"]
    assert lines[6:9] == [
        "thrown 8: rms_norm: width=96 is not there: this value was not built",
        "  available: dtype: float32, float64; width: 64, 128",
        f"  declare it, and build the package again: dimorph build {KERNELS} {' '.join(TARGETS)} --cmake {package}",
    ]
    best = next(level.name for level in targets.runnable() if level.name in LEVELS)
    # Nothing of Python or tvm-ffi is mapped, or a line would say so.
    assert lines[9:] == [
        "status 1: rms_norm: argument 'y': expected a row-major matrix of the shape and dtype of 'x'",
        "then: right",
        f"level: {best}",
    ]


def test_a_machine_needs_only_the_package_and_the_c_library(package: Path, tmp_path: Path) -> None:
    """In a root directory with nothing but the program, the package and the libraries that both name."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-r", "true"], check=False).returncode:
        pytest.skip("unshare cannot make a user namespace here")
    program = compiled(package, tmp_path / "build", "rows.cc")
    root = tmp_path / "root"
    shutil.copytree(package / "lib", root / str(package)[1:] / "lib")
    (root / "program").write_bytes(program.read_bytes())
    (root / "program").chmod(0o755)
    for library in re.findall(r"(/\S+)", subprocess.check_output(["ldd", program], text=True)):
        copy = root / library[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy(library, copy)
    lines = run(shutil.which("unshare") or "", "-r", "-R", root, "/program")
    assert lines[:6] == [*NORMS, "row_dot float32: right", "row_dot float64: right"]
    assert lines[-1] == f"level: {LEVELS[0]}"  # without /proc, only the lowest level is known to run


def test_a_c_program_gets_codes_and_messages(package: Path, tmp_path: Path) -> None:
    assert run(compiled(package, tmp_path, "face.c")) == [
        "0 0.75",
        "0 0.75",
        "8 rms_norm: width=1 is not there: this value was not built",
        "  available: dtype: float32, float64; width: 64, 128",
        f"  declare it, and build the package again: dimorph build {KERNELS} {' '.join(TARGETS)} --cmake {package}",
        "2 rms_norm: argument 'x': expected a tensor (any array that speaks DLPack), got None",
    ]


# The lines of pieces.cc and pieces.rs.
EXPECTED = """\
-5 4000000000 0.1 0.5 1
a text of more than seven bytes|a literal|4
4 2
7 none
1 21 301
3 1.5 a text that is longer than seven bytes 1 none
2 4 6
2/64/1 @1:0 3:2 strided 9
-1 3
4
1004
1 weighted: argument 'weights': expected shape [width], here (4), got (2, 2)
1 failed with value, 1
2 failed with type
3 failed with index
4 failed with memory
5 failed with not_implemented
6 failed with runtime
4 raise_in_entry: out of memory
6 raise_in_entry: threw something that is not a std::exception
1 failed with check, 100%
2 failed with check_type
1 failed with value, 2
5 failed with not_implemented
4 raise_in_case: out of memory
8 raise_in_case: width=3 is not there: this value was not built
1 doubled: argument 'x': expected 1 dimension, got 2
2 echo_str: argument 'text': expected a str, got None
50
6 failing: from a body
3 failing: no element 7
2 failing: of a wrong type
4 failing: out of memory
6 failing: threw something that is not a std::exception
several threads"""


def told(lines: list[str]) -> str:
    """Return lines without the second and third of MissingSpecialization."""
    return "\n".join(line for line in lines if not line.startswith("  "))


def test_cpp_passes_and_takes_every_kind(pieces: Path, tmp_path: Path) -> None:
    assert told(run(compiled(pieces, tmp_path, "pieces.cc"), DIMORPH_NUM_THREADS="3")) == EXPECTED


@pytest.mark.parametrize("edition", ["2021", "2024"])
def test_rust_passes_and_takes_every_kind(pieces: Path, tmp_path: Path, edition: str) -> None:
    if RUSTC is None:
        pytest.skip("rustc is not installed")
    shutil.copy(NATIVE / "pieces.rs", tmp_path / "main.rs")
    (tmp_path / "package").symlink_to(pieces / "rust")
    library = pieces / "lib"
    command = [
        RUSTC,
        "-D",
        "warnings",
        "--edition",
        edition,
        "main.rs",
        f"-L{library}",
        f"-Clink-arg=-Wl,-rpath,{library}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert told(run(tmp_path / "main", DIMORPH_NUM_THREADS="3")) == EXPECTED


def test_a_missing_value_can_be_built_meanwhile(package: Path, store: Path, tmp_path: Path) -> None:
    program = compiled(package, tmp_path / "build", "missing.cc")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "dimorph").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dimorph "$@"\n')
    (commands / "dimorph").chmod(0o755)
    env = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "DIMORPH_STORE": str(store),
        "PYTHONPATH": f"{REPOSITORY / 'src'}",
    }
    wrong = "  1 rms_norm: argument 'y': expected a row-major matrix of the shape and dtype of 'x'"
    lines = run(program, tmp_path / "built", **env)
    assert lines[:6] == ["96 0 0.5", wrong, "64 0 0.5", wrong, "96 0 0.5", wrong]
    assert lines[6].startswith(
        "7 8 0 rms_norm: width=7 is not there, and building it failed with status 1: dimorph build "
    )
    assert [path.name for path in (tmp_path / "built").iterdir()] == ["rms_norm_width_96"]
