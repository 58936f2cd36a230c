"""A C++ program without Python calls a kernel with device code on a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dimorph import settings
from dimorph.toolchain import cuda
from dimorph.toolchain import nvidia_driver as driver
from support.cmake import NATIVE, dimorph, run

pytestmark = pytest.mark.gpu

if driver.find() is None:
    pytest.skip("no NVIDIA GPU with a driver", allow_module_level=True)


def test_a_program_launches_on_its_own_stream(tmp_path: Path) -> None:
    toolkit = cuda.toolkit(settings.current())
    if toolkit is None:
        pytest.skip("no CUDA toolkit, whose cuda.h the program includes")
    package = tmp_path / "twice"
    done = dimorph("build", NATIVE / "twice.py", "--cmake", package, store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    program, libraries = tmp_path / "on_gpu", package / "lib"
    command: list[str | Path] = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", program]
    command += [NATIVE / "on_gpu.cc", f"-I{package / 'include'}", f"-I{toolkit / 'include'}"]
    command += [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltwice", "-ldl"]
    assert run(*command, PATH=os.environ["PATH"]) == []
    assert run(program, LD_LIBRARY_PATH=os.environ.get("LD_LIBRARY_PATH", "")) == ["launched", "right"]
