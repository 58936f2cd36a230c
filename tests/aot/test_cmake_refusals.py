"""Kernels that programs in C, C++ and Rust cannot call are refused when their CMake package is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cmake import LEVELS, dimorph


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native") / "store"


REFUSED = {
    "from support.kernels import FUNCTOR": "kernel functor: functor takes the arguments of a variant, and several "
    "variants are built: C++ programs can call one; name it, as in `variant=NAME`",
    "from support.kernels import ARRAYS, FAILURES": "kernel failures: it exports quiet, and so does kernel arrays: "
    "functions of a package need names of their own",
}


@pytest.mark.parametrize("declared", REFUSED)
def test_kernels_that_c_cannot_call_are_refused_by_name(declared: str, store: Path, tmp_path: Path) -> None:
    file = tmp_path / "refused.py"
    file.write_text(f"{declared}\n")
    assert refusal(file, store, tmp_path / "out") == REFUSED[declared]


# The text of an entry, and how its refusal begins.
ODD = {
    "parameter": (
        "using Number = int64_t;\nvoid odd(Number count) {}",
        "kernel odd: odd: parameter 'count': C++ programs cannot pass 'Number': expected ",
    ),
    "result": (
        "using Number = int64_t;\nNumber odd() { return 1; }",
        "kernel odd: odd: its result: C++ programs cannot take 'Number': expected ",
    ),
    "macro": (
        "#define DEFINED void odd() {}\nDEFINED",
        "kernel odd: no definitions of odd were found in its entry; C++ programs need one",
    ),
    "tvm-ffi": (
        'void odd() {\n  const TVMFFIByteArray key{"x", 1};\n  int32_t i = 0;\n  TVMFFITypeKeyToIndex(&key, &i);\n}',
        "odd entry: it calls TVMFFITypeKeyToIndex, which programs without Python do not have",
    ),
    "two": (
        "#if 0\nvoid odd(int a) {}\n#else\nvoid odd(int b) {}\n#endif",
        "kernel odd: 2 definitions of odd were found in its entry; C++ programs need one",
    ),
    "begin of a name": (
        "void odd(int refused_odd) {}",
        "kernel odd: odd: parameter 'refused_odd': expected a name that does not begin with refused_",
    ),
    "name": (
        "void level() {}",
        "kernel odd: it exports level, and so does the package refused: functions of a package need names of their own",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_functions_that_c_cannot_call_are_refused_by_name(what: str, store: Path, tmp_path: Path) -> None:
    text, message = ODD[what]
    name = "level" if what == "name" else "odd"
    entry = f'#include <dimorph/entry.h>\n\n#include "odd_config.h"\n\n{text}\nDIMORPH_EXPORT({name})\n'
    (tmp_path / "odd.cc").write_text(entry)
    file = tmp_path / "refused.py"
    file.write_text('import dimorph as dm\n\nodd = dm.Kernel(name="odd", case=[])\n')
    assert refusal(file, store, tmp_path / "out").startswith(message)


def test_a_package_called_as_a_function_of_the_c_library_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.cc").write_text('#include "odd_config.h"\nvoid odd() {}\nDIMORPH_EXPORT(odd)\n')
    file = tmp_path / "printf.py"
    file.write_text('import dimorph as dm\n\nodd = dm.Kernel(name="odd", case=[])\n')
    assert refusal(file, store, tmp_path / "out").startswith("package printf: it has the name of a function of the C ")


def refusal(declared: Path, store: Path, out: Path) -> str:
    """Return the message of a build that must leave nothing."""
    done = dimorph("build", declared, "--target", LEVELS[0], "--cmake", out, store=store)
    assert done.returncode == 1, done.stderr
    assert not out.exists()
    return done.stderr.splitlines()[-1]
