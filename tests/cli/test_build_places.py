"""`dimorph build` on executors and in parts: the options, and their refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import Run

VALUES = ("dtype=float32", "head_dim=64")


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/5", "-1/3", ""])
def test_a_part_that_is_none_is_refused(text: str, run: Run, tmp_path: Path) -> None:
    shown = run("build", "SPEC", "--out", str(tmp_path / "out"), "--shard", text, code=2).output
    assert f"expected a part and the number of parts, such as 3/8, got {text!r}" in " ".join(shown.split())


def test_a_part_makes_no_package(run: Run, tmp_path: Path) -> None:
    shown = run("build", "SPEC", "--cmake", str(tmp_path / "out"), "--shard", "1/2", code=2).output
    assert "a CMake package is made of the whole" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("concurrent.futures", "expected MODULE:NAME, or the path of a Python file, a colon and a name"),
        ("concurrent.futures:Nothing", "concurrent.futures: no variable is called 'Nothing'; there are: ALL_COMPLETED"),
        ("no_such_module:executor", "no_such_module: no module of this name can be imported"),
        ("no_such_file.py:executor", "no_such_file.py: there is no such file"),
    ],
)
def test_an_executor_that_is_not_there_is_told(spec: str, told: str, run: Run, tmp_path: Path) -> None:
    shown = run("build", "SPEC", "--out", str(tmp_path / "out"), "--executor", spec, code=1).output
    assert told in shown


def test_something_else_in_its_place_is_refused(run: Run, tmp_path: Path) -> None:
    made = tmp_path / "cluster.py"
    made.write_text("print('a line of the module')\nexecutor = None\n")
    result = run("build", "SPEC", "--out", str(tmp_path / "out"), "--executor", f"{made}:executor", "--json", code=1)
    told = json.loads(result.stdout)["error"]
    assert told["type"] == "ToolchainError"
    assert told["message"].startswith("executor: expected a concurrent.futures.Executor")


def test_a_file_names_an_executor(run: Run, tmp_path: Path) -> None:
    made = tmp_path / "cluster.py"
    lines = ["print('a line')", "from concurrent.futures import ThreadPoolExecutor as Pool", "executor = Pool(1)", ""]
    made.write_text("\n".join(lines))
    command = ("build", "SPEC", *VALUES, "--out", str(tmp_path / "out"), "--executor", f"{made}:executor", "--json")
    (built,) = json.loads(run(*command).stdout)["kernels"]
    assert (built["compiled"], built["reused"]) == (2, 0)
    assert json.loads(run(*command).stdout)["kernels"][0]["compiled"] == 0
