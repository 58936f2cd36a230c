"""Users' code passes strict type checks as the documents show it, and mistakes in it are found there."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkers import expected, mypy, pyright, refused
from support.paths import EXAMPLES, example_files

# What examples import from beside them.
BESIDE = [EXAMPLES / "skeleton", EXAMPLES / "variant"]
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


@pytest.mark.long
def test_examples_pass_mypy(tmp_path: Path) -> None:
    # Every block of Python on the README and the guides stands in one of them (tests/docs/test_pages.py).
    found = mypy(*example_files(), path=BESIDE, project=tmp_path)
    assert found.startswith("Success"), found


@pytest.mark.long
def test_examples_pass_pyright(tmp_path: Path) -> None:
    found = pyright(*example_files(), project=tmp_path)
    assert found.startswith("0 errors"), found


def test_mypy_finds_mistakes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    found = mypy(tmp_path / "user.py", project=tmp_path)
    assert refused(found) == expected(USER), found


def test_pyright_finds_mistakes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    found = pyright(tmp_path / "user.py", project=tmp_path)
    assert refused(found) == expected(USER), found
