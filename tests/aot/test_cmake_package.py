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
from support.cmake import LEVELS, NATIVE, compiled, dimorph, run
from support.emulated import Emulator, missing
from support.paths import EXAMPLES, REPOSITORY, ROWMATH

pytestmark = pytest.mark.long

KERNELS = ROWMATH / "src" / "rowmath" / "kernels.py"
TARGETS = [word for level in LEVELS for word in ("--target", level)]
# A file that declares kernels with arguments, results and errors of every kind. The last lacks a combination.
PIECES = """
from pathlib import Path

import dimorph as dm
from support.kernels import ARGUMENTS, FAILURES, PICK, ROOT, TASKS, WEIGHTED

pick = dm.Kernel(
    name="pick", entry="pick.cc", case=["pick_case.cc"], root=ROOT, axes=PICK.axes,
    where=lambda values: values["width"] + values["depth"] < 4,
)
del PICK
# Its functions have names that the generated files use for other things.
names = dm.Kernel(name="names", case=[], root=Path(NATIVE))
"""
RUSTC = shutil.which("rustc") or shutil.which("rustc", path=Path.home() / ".cargo" / "bin")


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
    declared.write_text(f"NATIVE = {str(NATIVE)!r}\n{PIECES}")
    done = dimorph("build", declared, "--target", LEVELS[0], "--cmake", store.parent / "pieces", store=store)
    assert done.returncode == 0, done.stderr
    return store.parent / "pieces"


def with_rust(work: Path, source: Path, prefix: Path, edition: str) -> Path:
    """Compile a Rust program, and return its path."""
    if RUSTC is None:
        pytest.skip("rustc is not installed")
    linked = [f"-L{prefix / 'lib'}", f"-Clink-arg=-Wl,-rpath,{prefix / 'lib'}"]
    command = [RUSTC, "-D", "warnings", "--edition", edition, str(source), *linked, "-o", str(work / "in_rust")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return work / "in_rust"


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


def test_each_cpu_gets_its_best_level(package: Path, tmp_path: Path) -> None:
    program, cpuinfo = compiled(package, tmp_path, "face.c"), tmp_path / "cpuinfo"
    script = 'mount --bind "$1" /proc/cpuinfo && exec "$2"'
    show = ["unshare", "-r", "-m", "sh", "-c", script, "sh", cpuinfo, program]
    cpuinfo.write_text("processor : 0\n")
    if shutil.which("unshare") is None or subprocess.run(show, capture_output=True, check=False).returncode:
        pytest.skip("unshare and mount cannot show another /proc/cpuinfo here")
    name = "flags" if os.uname().machine == "x86_64" else "Features"
    for level in LEVELS:
        cpuinfo.write_text(f"processor\t: 0\n{name}\t\t: fpu {' '.join(targets.by_name(level).needs)}\n")
        run(*show, PATH=os.environ["PATH"], LD_DEBUG="files", LD_DEBUG_OUTPUT=str(tmp_path / level))
        logs = "".join(log.read_text() for log in tmp_path.glob(f"{level}.*"))
        assert set(re.findall(r"lib/rowmath/([^/]+)/", logs)) == {level}
    cpuinfo.write_text(f"{name} : fpu\n")
    done = subprocess.run(show, capture_output=True, text=True, check=False)
    needs = "".join(f"{one} " for one in sorted(targets.by_name(LEVELS[0]).needs))
    message = (
        f"rowmath: this CPU runs none of the target levels that were built; the lowest, {LEVELS[0]}, needs: {needs}"
    )
    assert done.stdout.splitlines()[-1] == f"9 {message}"


def test_a_setting_names_the_level(package: Path, tmp_path: Path) -> None:
    program = compiled(package, tmp_path, "face.c")
    loads = [
        run(program, DIMORPH_TARGET=level, LD_DEBUG="files", LD_DEBUG_OUTPUT=str(tmp_path / level)) for level in LEVELS
    ]
    for level, lines in zip(LEVELS, loads, strict=True):
        assert lines[0] == "0 0.75"
        (log,) = tmp_path.glob(f"{level}.*")
        assert set(re.findall(r"lib/rowmath/([^/]+)/", log.read_text())) == {level}
    done = subprocess.run([program], env={"DIMORPH_TARGET": "i486"}, capture_output=True, text=True, check=False)
    built = ", ".join(reversed(LEVELS))
    message = f"9 rowmath: DIMORPH_TARGET: expected one of {built}, got i486"
    assert done.stdout.splitlines()[2:] == [message, message]


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


def test_the_example_runs_in_both_languages(store: Path, tmp_path: Path) -> None:
    example = shutil.copytree(EXAMPLES / "native", tmp_path / "native")
    skeleton = EXAMPLES / "skeleton" / "skeleton.py"
    done = dimorph("build", skeleton, "--target", LEVELS[0], "--cmake", example / "ahead", store=store)
    assert done.returncode == 0, done.stderr
    first, *_ = lines = run(compiled(example / "ahead", tmp_path / "build", example))
    assert float(first) == pytest.approx(2)
    assert lines[1] == "1: affine: argument 'y': expected shape [rows, head_dim], here (8, 64), got (4, 128)"
    assert lines[2] == "affine: head_dim=80 is not there: this value was not built"
    in_rust = run(with_rust(tmp_path, example / "program.rs", example / "ahead", "2021"))
    assert in_rust == ["2.000", lines[1]]


def test_many_threads_may_make_the_first_call(package: Path, tmp_path: Path) -> None:
    program = compiled(package, tmp_path, "threads.cc")
    for _ in range(20):
        assert run(program) == ["800 of 800"]


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
1001 1002 2001
8 pick: width=2, depth=2 is not there: this combination was not built
3 6 9
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
    main = Path(shutil.copy(NATIVE / "pieces.rs", tmp_path))
    (tmp_path / "package").symlink_to(pieces / "rust")
    assert told(run(with_rust(tmp_path, main, pieces, edition), DIMORPH_NUM_THREADS="3")) == EXPECTED


def test_a_missing_value_can_be_built_meanwhile(package: Path, store: Path, tmp_path: Path) -> None:
    program = compiled(package, tmp_path / "build", "missing.cc")
    wrong = "  1 rms_norm: argument 'y': expected a row-major matrix of the shape and dtype of 'x'"
    lines = run(program, tmp_path / "built", **builder(store, tmp_path))
    assert lines[:6] == ["96 0 0.5", wrong, "64 0 0.5", wrong, "96 0 0.5", wrong]
    assert lines[6].startswith("7 8 0 rms_norm: width=7 is not there, and building it failed with status 1: dimorph ")
    assert len(list((tmp_path / "built").iterdir())) == 1
    without = run(program, tmp_path / "elsewhere", PATH=str(tmp_path / "nothing"))
    assert " is not there, and dimorph, on PATH, cannot be started (No such file or directory) " in "".join(without)


def test_values_of_two_axes_can_be_missing(store: Path, tmp_path: Path) -> None:
    declared = tmp_path / "picks.py"
    declared.write_text("from support.kernels import PICK\n")
    done = dimorph("build", declared, "--target", LEVELS[0], "--cmake", tmp_path / "picks", store=store)
    assert done.returncode == 0, done.stderr
    program = compiled(tmp_path / "picks", tmp_path / "build", "picks.cc")
    lines = run(program, tmp_path / "built", **builder(store, tmp_path))
    assert lines == ["5007", "2007", "5001", "1002", "6007"]
    assert len(list((tmp_path / "built").iterdir())) == 3


def builder(store: Path, work: Path) -> dict[str, str]:
    """Return the environment of a program that can build what it lacks."""
    commands = work / "bin"
    commands.mkdir()
    (commands / "dimorph").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dimorph "$@"\n')
    (commands / "dimorph").chmod(0o755)
    searched = f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests'}"
    return {"PATH": f"{commands}:{os.environ['PATH']}", "DIMORPH_STORE": str(store), "PYTHONPATH": searched}


# --- Device code, on emulated GPUs ---

needs_emulator = pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")


@pytest.fixture(scope="module")
def libcuda(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emulated NVIDIA driver under the name of the real one."""
    path, driver = tmp_path_factory.mktemp("driver") / "libcuda.so.1", emulator.nvcc.parents[1] / "driver.so"
    options = ["-std=c++17", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", f"-Wl,-rpath,{driver.parent}"]
    subprocess.run(["g++", *options, NATIVE / "libcuda.cc", driver, "-o", path], check=True)
    return path


def twice_package(emulator: Emulator, store: Path, out: Path, *archs: str) -> Path:
    words = [word for arch in archs for word in ("--arch", arch)]
    env = {"DIMORPH_NVCC": str(emulator.nvcc)}
    done = dimorph("build", NATIVE / "twice.py", "--target", LEVELS[0], *words, "--cmake", out, store=store, **env)
    assert done.returncode == 0, done.stderr
    return out


@needs_emulator
def test_each_gpu_gets_its_device_code(emulator: Emulator, libcuda: Path, store: Path, tmp_path: Path) -> None:
    package = twice_package(emulator, store, tmp_path / "twice", "sm_80", "sm_90a")
    assert sorted(path.parent.name for path in package.rglob("*.cubin")) == ["sm_80", "sm_90a"]
    program = compiled(package, tmp_path / "build", "gpu.cc")
    # Device code of the emulator calls functions of the driver's library.
    lines = run(program, LD_PRELOAD=str(libcuda))
    assert lines == ["launched on stream 0", "GPU 0: right", "launched on stream 7", "GPU 1: right"]
    none = "twice__64_0 cannot launch anything: no NVIDIA driver with a GPU was found"
    assert run(program) == [f"GPU {gpu}: 6 {none}" for gpu in range(2)]


@needs_emulator
def test_a_gpu_without_device_code_is_told(emulator: Emulator, libcuda: Path, store: Path, tmp_path: Path) -> None:
    package = twice_package(emulator, store, tmp_path / "twice", "sm_90a")
    lines = run(compiled(package, tmp_path / "build", "gpu.cc"), LD_PRELOAD=str(libcuda))
    assert lines[0].startswith("GPU 0: 6 ")
    assert lines[0].endswith("the GPU runs none of the architectures of the device code: sm_90a")
    assert lines[1:] == ["launched on stream 7", "GPU 1: right"]


# --- Beside Python, and beside a copy ---

_BESIDE = """
import ctypes, sys
import numpy as np
import dimorph as dm
from dimorph import aot
from tvm_ffi import from_dlpack  # tvm-ffi's functions are there first

class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
                ("dtype", ctypes.c_uint8 * 4), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("offset", ctypes.c_uint64)]

def described(array):
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    made = DLTensor(array.ctypes.data, (1, 0), array.ndim, (2, 32, 1, 0), ctypes.addressof(shape), None, 0)
    made.kept = shape, array
    return ctypes.byref(made)

x = np.ones((2, 64), "float32")
y, short = np.empty_like(x), np.empty((1, 64), "float32")
(kernel,) = aot.load_kernels(sys.argv[1] + ":rms_norm")
module = kernel.load()
for path in sys.argv[2:]:
    library = ctypes.CDLL(path)
    library.rowmath_last_error.restype = ctypes.c_char_p
    norm = library.rowmath_rms_norm
    norm.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_double
    for made in (y, short):
        made[:] = 0
        status = norm(described(x), described(made), 3.0)
        print(status, made[0, 0], library.rowmath_last_error().decode().partition(":")[2] if status else "")
        try:
            module.rms_norm(x, made, 3.0)
            print("Python", made[0, 0])
        except ValueError as error:
            print("Python", str(error).partition(":")[2])
"""


def test_a_process_may_have_python_and_two_copies_of_a_package(package: Path, store: Path, tmp_path: Path) -> None:
    """Each finds its own errors, because the objects of a package do not take the functions of tvm-ffi."""
    copy = shutil.copytree(package, tmp_path / "a copy")
    libraries = [root / "lib" / "librowmath.so" for root in (package, copy)]
    env = {"DIMORPH_STORE": str(store), "PYTHONPATH": str(REPOSITORY / "src"), "PATH": os.environ["PATH"]}
    lines = run(sys.executable, "-c", _BESIDE, KERNELS, *libraries, **env)
    wrong = " argument 'y': expected a row-major matrix of the shape and dtype of 'x'"
    assert lines == ["0 0.5 ", "Python 0.5", f"1 0.0 {wrong}", f"Python {wrong}"] * 2


# --- Other files, and builds before ---


def test_a_directory_of_somebody_else_is_kept(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "include" / "rowmath" / "precious.h"
    other.parent.mkdir(parents=True)
    other.touch()
    done = dimorph("build", KERNELS, "--target", LEVELS[0], "--cmake", tmp_path, store=store)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"{other.parent}: expected what an earlier build of the package rowmath left"
    assert other.exists()


def test_a_second_build_writes_only_what_differs(store: Path, tmp_path: Path) -> None:
    def built(spec: str) -> dict[str, int]:
        done = dimorph("build", spec, "--target", LEVELS[0], "--cmake", tmp_path / "out", store=store)
        assert done.returncode == 0, done.stderr
        files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / "out").as_posix(): path.stat().st_ino for path in files}

    first = built(str(KERNELS))
    assert built(str(KERNELS)) == first
    fewer = built(f"{KERNELS}:row_dot")
    assert {path for path in first if "rms_norm" in path} == first.keys() - fewer.keys()
    assert fewer["include/rowmath/row_dot.h"] == first["include/rowmath/row_dot.h"]
    assert fewer["lib/librowmath.so"] != first["lib/librowmath.so"]
