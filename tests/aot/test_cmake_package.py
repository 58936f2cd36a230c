"""CMake packages: programs in C, C++ and Rust that call kernels without Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dimorph.toolchain import targets
from support.paths import ROWMATH, SUPPORT

NATIVE = SUPPORT / "native"
LEVELS = ("x86-64-v2", "x86-64-v3") if os.uname().machine == "x86_64" else ("armv8",)


def dimorph(*words: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dimorph", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CMake package of the kernels of rowmath, for two target levels."""
    root = tmp_path_factory.mktemp("package")
    words = [word for level in LEVELS for word in ("--target", level)]
    source = ROWMATH / "src" / "rowmath" / "kernels.py"
    done = dimorph("build", source, *words, "--cmake", root / "prefix", env={"DIMORPH_STORE": str(root / "store")})
    assert done.returncode == 0, done.stderr
    return root / "prefix"


def compiled(prefix: Path, build: Path, *sources: Path) -> Path:
    """Compile programs with CMake, and return the directory that they are in."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    listed = ";".join(map(str, sources))
    configure = ["cmake", "-S", str(NATIVE), "-B", str(build), f"-DCMAKE_PREFIX_PATH={prefix}", f"-DSOURCES={listed}"]
    for command in (configure, ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build


def run(*command: str | Path) -> str:
    """Return what a program prints in an empty environment."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_cpp_program_calls_kernels_without_python(package: Path, tmp_path: Path) -> None:
    lines = run(compiled(package, tmp_path / "build", NATIVE / "rows.cc") / "rows").splitlines()
    norms = [f"rms_norm {dtype} {width}: right" for width in (64, 128) for dtype in ("float32", "float64")]
    assert lines[:6] == [*norms, "row_dot float32: right", "row_dot float64: right"]
    assert lines[6:9] == [
        "thrown 8: rms_norm: width=96 is not there: this value was not built",
        "  available: dtype: float32, float64; width: 64, 128",
        f"  declare it, and build the package again: dimorph build {ROWMATH / 'src' / 'rowmath' / 'kernels.py'} "
        f"{' '.join(f'--target {level}' for level in LEVELS)} --cmake {package}",
    ]
    best = next(level.name for level in targets.runnable() if level.name in LEVELS)
    assert lines[9:] == [
        "status 1: rms_norm: argument 'y': expected a row-major matrix of the shape and dtype of 'x'",
        "then: right",
        f"level: {best}",
    ]
