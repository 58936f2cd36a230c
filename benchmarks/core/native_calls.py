"""Measure calls of a kernel from C++ and Rust, without Python, beside direct calls of the same function.

python benchmarks/core/native_calls.py     # about ten seconds
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, write

SOURCES = Path(__file__).parent / "native"
KERNEL = f"{Path(__file__).parent / 'kernels' / '__init__.py'}:add_scalar"


def built(work: Path) -> Path:
    """Build the package and the function that is called directly; return the directory of the package."""
    env = {**os.environ, "DIMORPH_STORE": str(work / "store"), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    package = work / "prefix"
    subprocess.run([sys.executable, "-m", "dimorph", "build", KERNEL, "--cmake", package], check=True, env=env)
    subprocess.run(["g++", "-O3", "-fPIC", "-c", SOURCES / "direct.cc", "-o", work / "direct.o"], check=True)
    return package


def from_cpp(work: Path, package: Path) -> Path:
    linked = [f"-L{package / 'lib'}", f"-Wl,-rpath,{package / 'lib'}", "-lkernels"]
    command = ["g++", "-std=c++17", "-O3", f"-I{package / 'include'}", SOURCES / "calls.cc", work / "direct.o", *linked]
    subprocess.run([*command, "-o", work / "cpp"], check=True)
    return work / "cpp"


def from_rust(work: Path, package: Path) -> Path | None:
    rustc = shutil.which("rustc") or shutil.which("rustc", path=Path.home() / ".cargo" / "bin")
    if rustc is None:
        print("rust: rustc is not installed")
        return None
    shutil.copy(SOURCES / "calls.rs", work)
    (work / "package").symlink_to(package / "rust")
    linked = [f"-L{package / 'lib'}", f"-Clink-arg=-Wl,-rpath,{package / 'lib'}", f"-Clink-arg={work / 'direct.o'}"]
    subprocess.run([rustc, "-O", "--edition", "2021", "calls.rs", *linked, "-o", "rust"], check=True, cwd=work)
    return work / "rust"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        package = built(work)
        for language, program in (("C++", from_cpp(work, package)), ("Rust", from_rust(work, package))):
            if program is not None:
                direct, dispatching = map(float, subprocess.check_output([program], text=True, env={}).split())
                print(f"{language}: {dispatching - direct:.1f} ns beyond a direct call")
                rows.append(Row("cpu/native_call", {"language": language}, "ns", dispatching, {"direct": direct}))
    write("core", rows)


if __name__ == "__main__":
    main()
