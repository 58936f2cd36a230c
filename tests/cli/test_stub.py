"""Type stubs: checkers find misspelt axes and wrong arguments in code that imports a file with kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.checkers import expected, mypy, pyright, refused
from support.cli import runner
from support.paths import EXAMPLES, SUPPORT

USER = """
import numpy as np
from skeleton import SCALE_BIAS, affine, main

x, y = np.ones((2, 64)), np.ones((2, 64))
fast = affine.load(dtype="float32", head_dim=64)
fast.affine(x, y, 2.0)
fast.affine(x, y=y, scale=2)
fast.affine.native(x, y, 2.0)
affine.load().affine(x, y, 1.0)
affine.load(dtype=x.dtype, head_dim=[64, 80], policy="aot", settings=None)
affine.load(dtype=["float32", np.float64])
affine.load(variant=SCALE_BIAS).affine(x, y, 1.0, None)
affine.load(variant="Scale", head_dim=64).affine(x, y, scale=1.0)
affine.build("out", dtype="float32", head_dim=64, targets=["x86-64-v3"])
affine.instantiations(head_dim=64).slots
affine.load_in_background(head_dim=64).result().affine(x, y, 2.0)
affine.name
main()

affine.load(dtyp="float32")  # no
affine.load(dtype="float31")  # no
affine.load(head_dim="wide")  # no
affine.load(variant="Skale")  # no
affine.load_in_background(head_dim="wide")  # no
affine.load_in_background().result().affine(x)  # no
affine.build(head_dims=64)  # no
affine.instantiations(width=64)  # no
fast.affine(x)  # no
fast.affine(x, y, scal=2.0)  # no
fast.affine(x, y, "2.0")  # no
fast.affine(1, y, 2.0)  # no
fast.affine(x, y, 2.0, 3.0)  # no
main(1)  # no
"""

# Every kind of axis, defaults, a device, a file of its own.
KINDS = """
import cuda_rms
import kinds

kinds.KINDS.load(causal=True, mode="ADD", pair=(16, 32), triple=[(1, 2, 3)], width=[2, 64], unroll=2)
kinds.SIGNED.load().affine(kinds.x, kinds.x, mode="plain", from_=1)
larger: float = kinds.SIGNED.load().larger(1.0)
cuda_rms.rms.load(width=1024).rms(kinds.x, kinds.x, stream=0)

kinds.KINDS.load(causal="yes")  # no
kinds.KINDS.load(mode="SUB")  # no
kinds.KINDS.load(pair=(16, 32, 1))  # no
kinds.KINDS.load(unroll=3)  # no
kinds.SIGNED.load().affine(kinds.x, kinds.x, from_="1")  # no
text: str = kinds.SIGNED.load().larger(1.0)  # no
kinds.SIGNED.load(width=1)  # no
number: int = kinds.SIGNED.load().own(self=1)
kinds.SIGNED.load().own(other=1)  # no
cuda_rms.rms.load().rms(kinds.x, kinds.x, 1e-6, 0)  # no
"""


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "skeleton", project)
    assert runner(project)("stub", "SPEC").output.splitlines() == [str(project / "skeleton.pyi")]
    (project / "user.py").write_text(USER)
    return project


def test_mypy_finds_mistakes_and_nothing_else(skeleton: Path) -> None:
    found = mypy(skeleton / "user.py", project=skeleton, path=[skeleton])
    assert refused(found) == expected(USER), found
    assert "skeleton.pyi" not in found


def test_pyright_finds_mistakes_and_nothing_else(skeleton: Path) -> None:
    found = pyright(skeleton / "user.py", project=skeleton)
    assert refused(found) == expected(USER), found
    assert "skeleton.pyi" not in found


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """A stub for kernels with every kind of axis and default, and one for a kernel with device code."""
    shutil.copytree(SUPPORT / "kernels", tmp_path / "kernels")
    shutil.copytree(EXAMPLES / "cuda", tmp_path / "cuda")
    declared = (tmp_path / "kernels" / "__init__.py").read_text()
    (tmp_path / "kernels" / "__init__.py").unlink()
    (tmp_path / "kernels" / "kinds.py").write_text(f"{declared}\nimport numpy as np\n\nx = np.ones(2)\n")
    (tmp_path / "cuda" / "rms.py").rename(tmp_path / "cuda" / "cuda_rms.py")
    project = tmp_path / "project"
    for file in ("kernels/kinds.py", "cuda/cuda_rms.py"):
        runner(tmp_path)("stub", str(tmp_path / file), "--out", str(project))
    (project / "user.py").write_text(KINDS)
    return project


def test_mypy_knows_every_kind_of_axis_and_default(kinds: Path) -> None:
    found = mypy(kinds / "user.py", project=kinds, path=[kinds])
    assert refused(found) == expected(KINDS), found


def test_pyright_knows_every_kind_of_axis_and_default(kinds: Path) -> None:
    found = pyright(kinds / "user.py", project=kinds)
    assert refused(found) == expected(KINDS), found


def test_a_file_that_binds_no_kernel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "skeleton.py").write_text(
        'import dimorph as dm\nfor name in ["a"]:\n    kernel = dm.Kernel(name=name, entry="a.cc")\n'
    )
    said = runner(tmp_path)("stub", "SPEC", code=1).output
    assert "expected a kernel as a variable at its top level" in said
    assert not list(tmp_path.glob("*.pyi"))
