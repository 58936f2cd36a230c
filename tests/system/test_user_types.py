"""Users' code passes strict type checks as the documents show it, and mistakes in it are found there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import EXAMPLES, REPOSITORY

# What examples import from beside them.
BESIDE = [EXAMPLES / "skeleton", EXAMPLES / "variant"]
# Code of torch and transformers is untyped in places. Of Dimorph itself only types are read, as where it is installed.
MYPY = """
[mypy]
strict = True
disallow_untyped_calls = False
warn_return_any = False
[mypy-dimorph.*]
ignore_errors = True
"""

# Each line is written as some page writes it; `# no` marks those that a checker must refuse.
USER = """
import dimorph as dm
import numpy as np

BIAS = dm.tensor("bias", "float32", shape=["head_dim", 2])
SCALE = dm.Variant("Scale", header="scale.h", params=[dm.scalar("scale"), BIAS])
axes = [
    dm.dtype_axis("dtype", "DType", ["float32", np.float64]),
    dm.int_axis("width", "WIDTH", range(4), accepts=lambda width: width % 8 == 0),
    dm.tuple_axis("sizes", ["M", "N"], [(64, 64), [1, 2]], choose=lambda values: (values["width"], 1)),
    dm.flag_axis("causal", "CAUSAL", [True]),
    dm.variant_axis("variant", "VARIANT", default=SCALE, values=[SCALE], sizes=["batch"]),
]
kernel = dm.Kernel(
    name="kernel",
    entry="kernel.cc",
    case=["kernel_case.cc"],
    device=["kernel.cu"],
    archs=["sm_80"],
    axes=axes,
    functions=["one", "other"],
    only=[{"dtype": "float32", "width": 1}],
    include_dirs=["include"],
)
computed = dm.Kernel(name="kernel", entry="kernel.cc", axes=axes[:1], archs=lambda values: ["sm_80"])

module: dm.Module = kernel.load(dtype="float32", width=[1, 2], policy="aot")
function: dm.Function = module.one
function(1, 2.0, "three", scale=4)
function.native(1)
pieces: tuple[dm.Resolution, ...] = module.resolutions
built = kernel.build("out", targets=["x86-64-v3"], width=1).built + 1

dm.Kernel(name="kernel", entry="kernel.cc", cases=["kernel_case.cc"])  # no
dm.Kernel(name="kernel", entry="kernel.cc", case=[1])  # no
dm.Kernel(name="kernel", entry="kernel.cc", axes=["width"])  # no
dm.Variant("Scale", header="scale.h", params=["scale"])  # no
dm.int_axis("width", "WIDTH", ["64"])  # no
dm.flag_axis("causal", "CAUSAL", accept=None)  # no
kernel.load(dtype="float32", policy=1)  # no
kernel.load("float32")  # no
kernel.loud()  # no
module.one.rebound  # no
module.resolutions.append  # no
"""


def _mypy(*paths: Path, path: list[Path], project: Path) -> str:
    (project / "mypy.ini").write_text(MYPY)
    env = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, [REPOSITORY / "src", *path]))}
    options = ["--config-file", str(project / "mypy.ini"), "--cache-dir", str(project / "cache")]
    command = [sys.executable, "-m", "mypy", *options, *map(str, paths)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def _pyright(*paths: Path, path: list[Path], project: Path) -> str:
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("there is no pyright, which needs Node")
    roots = ", ".join(f'"{root}"' for root in [REPOSITORY / "src", *path])
    (project / "pyrightconfig.json").write_text(f'{{"typeCheckingMode": "standard", "extraPaths": [{roots}]}}')
    for one in paths:  # flat, because examples import from beside them
        if one.parent != project:
            shutil.copy(one, project)
    command = [pyright, "--pythonpath", sys.executable, "--project", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_examples_pass_mypy(tmp_path: Path) -> None:
    # Every block of Python on the README and the guides stands in one of them (tests/docs/test_pages.py).
    found = _mypy(*sorted(EXAMPLES.rglob("*.py")), path=BESIDE, project=tmp_path)
    assert found.startswith("Success"), found


@pytest.mark.long
def test_examples_pass_pyright(tmp_path: Path) -> None:
    found = _pyright(*sorted(EXAMPLES.rglob("*.py")), path=[], project=tmp_path)
    assert found.startswith("0 errors"), found


def _refused(output: str) -> set[int]:
    """Return the numbers of the lines that a checker's output calls errors."""
    return {int(line.split(" - ")[0].split(":")[1]) for line in output.splitlines() if "error" in line and ":" in line}


def _expected(text: str) -> set[int]:
    return {number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# no")}


def test_mypy_finds_mistakes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    found = _mypy(tmp_path / "user.py", path=[], project=tmp_path)
    assert _refused(found) == _expected(USER), found


def test_pyright_finds_mistakes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    found = _pyright(tmp_path / "user.py", path=[], project=tmp_path)
    assert _refused(found) == _expected(USER), found
