"""Stores past the caches: the instructions that compilers make of them, and the values."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dimorph.plan.unit import INCLUDE

SOURCE = """#include <dimorph/nontemporal.h>
typedef float Wide __attribute__((vector_size(64)));
typedef double Middle __attribute__((vector_size(32)));
typedef int Narrow __attribute__((vector_size(16)));
void wide(Wide* to, const Wide* from) { dimorph::nontemporal_store(to, *from); }
void middle(Middle* to, const Middle* from) { dimorph::nontemporal_store(to, *from); }
void narrow(Narrow* to, const Narrow* from) { dimorph::nontemporal_store(to, *from); }
"""
PROGRAM = """#include <stdlib.h>
template <typename Vector>
bool copied(void (*copy)(Vector*, const Vector*)) {
  alignas(64) unsigned char from[64], to[64] = {};
  for (int i = 0; i < 64; ++i) from[i] = static_cast<unsigned char>(i + 1);
  copy(reinterpret_cast<Vector*>(to), reinterpret_cast<const Vector*>(from));
  for (unsigned i = 0; i < 64; ++i)
    if (to[i] != (i < sizeof(Vector) ? from[i] : 0)) return false;
  return true;
}
int main() { return copied(wide) && copied(middle) && copied(narrow) ? 0 : 1; }
"""
COMPILERS = {"g++": ("g++",), "zig": (sys.executable, "-m", "ziglang", "c++")}


def compiled(compiler: str, flags: list[str], text: str, directory: Path) -> Path:
    source, out = directory / "stores.cc", directory / "stores.out"
    source.write_text(text)
    command = [*COMPILERS[compiler], "-std=c++17", "-O2", f"-I{INCLUDE}", *flags, str(source), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the instructions are those of x86-64")
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(("level", "widest"), [("x86-64-v2", 16), ("x86-64-v3", 32), ("x86-64-v4", 64)])
def test_whole_vectors_are_stored_past_the_caches(compiler: str, level: str, widest: int, tmp_path: Path) -> None:
    flag = f"-march={level.replace('-', '_') if compiler == 'zig' else level}"
    text = compiled(compiler, [flag, "-S"], SOURCE, tmp_path).read_text()
    functions = dict(re.findall(r"^_Z\d+(wide|middle|narrow)\w+:(.*?)\bret", text, re.MULTILINE | re.DOTALL))
    assert functions.keys() == {"wide", "middle", "narrow"}
    for name, size in (("wide", 64), ("middle", 32), ("narrow", 16)):
        stores = re.findall(r"\b(v?mov\w+)\s+%\w+, \d*\(%rdi\)", functions[name])
        # clang prefers vectors of 32 bytes at the highest level, too.
        most = min(size, 32 if compiler == "zig" else 64, widest)
        assert len(stores) == size // most and all("movnt" in store for store in stores), functions[name]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_values_arrive(compiler: str, tmp_path: Path) -> None:
    program = compiled(compiler, [], SOURCE + PROGRAM, tmp_path)
    assert subprocess.run([str(program)], check=False).returncode == 0


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "wrong.cc"
    source.write_text("#include <dimorph/nontemporal.h>\nvoid f(float* to) { dimorph::nontemporal_store(to, 1.0f); }\n")
    command = ["g++", "-std=c++17", "-fsyntax-only", f"-I{INCLUDE}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "expected a vector of 16, 32 or 64 bytes" in done.stderr
