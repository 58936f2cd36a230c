"""`dimorph new`: the project works from the first minute, has one name, and appears whole or not at all."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import dimorph as dm
from dimorph import settings
from dimorph.aot import load_kernels
from dimorph.cli import new
from support.cli import Run
from support.emulated import GPUS, Emulator, OnGpu, missing
from support.projects import check_diagnostics, edited, inside, linted, wheel_alone

NAME = "a_kernel_with_a_name_of_forty_characters"  # the longest that is possible
KINDS = pytest.mark.parametrize("kind", ["cpu", "cuda"])


@pytest.fixture
def run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in an empty directory."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return run


@pytest.fixture
def project(run: Run, kind: str) -> Path:
    run("new", NAME, *(["--cuda"] if kind == "cuda" else []))
    return Path(NAME).resolve()


@KINDS
def test_its_tests_pass(project: Path) -> None:
    shown = inside(project, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers")
    assert re.search(r"\d+ passed", shown) and "warning" not in shown


@KINDS
def test_linters_find_nothing(project: Path) -> None:
    assert "no issues found in 3 source files" in linted(project)


@KINDS
def test_an_editor_underlines_nothing(project: Path) -> None:
    files = edited(project, NAME)
    assert {file.suffix for file in files} >= {".cc", ".h"}
    check_diagnostics(project, files)


@KINDS
def test_list_shows_its_one_kernel(project: Path, kind: str) -> None:
    (kernel,) = json.loads(inside(project, sys.executable, "-m", "dimorph", "list", NAME, "--json"))["kernels"]
    assert (kernel["name"], kernel["entry"], bool(kernel["archs"])) == (NAME, f"{NAME}.cc", kind == "cuda")


@pytest.mark.parametrize("kind", ["cpu"])
def test_its_benchmark_shows_a_ratio_to_numpy(project: Path) -> None:
    shown = inside(project, sys.executable, "benchmark.py")
    assert len(re.findall(r"us +\d+\.\d us +\d+\.\dx$", shown, re.M)) == 2


@pytest.mark.parametrize("kind", ["cpu"])
def test_a_changed_value_and_a_new_variant_show_in_the_next_run(project: Path) -> None:
    package = project / "src" / NAME
    call = f"import numpy, {NAME} as p; print(p.{NAME}(numpy.full((1, 64), 4, 'float32'), p.{{}})[0, 0])"
    assert float(inside(project, sys.executable, "-c", call.format("SCALE(3.0)"))) == pytest.approx(3, rel=1e-5)
    case = package / f"{NAME}_case.cc"
    case.write_text(case.read_text().replace("DType(1e-6)", "DType(48)"))
    assert float(inside(project, sys.executable, "-c", call.format("SCALE(3.0)"))) == pytest.approx(1.5, rel=1e-5)
    # As the README says it.
    header, declared = package / "variants.h", package / "__init__.py"
    scale = header.read_text().partition("\ntemplate")[2]
    header.write_text(header.read_text() + "\ntemplate" + scale.replace("Scale", "Shift").replace("* scale", "+ scale"))
    line = next(line for line in declared.read_text().splitlines() if line.startswith("SCALE = "))
    added = line.replace("SCALE", "SHIFT").replace("Scale", "Shift")
    text = declared.read_text().replace(line, f"{line}\n{added}")
    declared.write_text(text.replace("default=SCALE", "default=SCALE, values=[SCALE, SHIFT]"))
    assert float(inside(project, sys.executable, "-c", call.format("SHIFT(3.0)"))) == pytest.approx(3.5, rel=1e-5)
    shown = inside(project, sys.executable, "-m", "dimorph", "list", NAME)
    assert "{Scale, Shift}" in shown


@pytest.mark.long
@pytest.mark.parametrize("kind", ["cpu"])
def test_its_wheel_runs_without_a_compiler(project: Path, tmp_path: Path) -> None:
    names, nothing = wheel_alone(project, tmp_path)
    assert not any("test" in name or "benchmark" in name for name in names)
    pytest_ = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not jit"]
    assert re.search(r"\d+ passed", inside(project, sys.executable, *pytest_, **nothing))


@KINDS
def test_everything_has_the_projects_name(project: Path) -> None:
    files = [path for path in project.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"pyproject.toml", "ci.yml", ".gitignore", f"{NAME}.cc", "benchmark.py"}
    assert not [path for path in files if new.PLACEHOLDER in str(path.relative_to(project)) + path.read_text()]


@KINDS
def test_it_asks_for_this_version_of_dimorph(project: Path) -> None:
    asked = re.findall(r'"dimorph(?:\[[\w,]+\])?([=<>][^"]*)"', (project / "pyproject.toml").read_text())
    assert asked == [f"=={dm.__version__}"] * 3


@KINDS
def test_its_workflow_runs_what_is_there(project: Path) -> None:
    jobs = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    (asked,) = re.findall(r"^dev = \[(.*)\]$", (project / "pyproject.toml").read_text(), re.M)
    for tool in ("ruff", "mypy", "pytest"):
        assert any(tool in step for step in steps) and f'"{tool}"' in asked


# --- Names and places ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-kernel", "is not a C++ identifier"),
        ("3d", "is not a C++ identifier"),
        ("../x", "is not a C++ identifier"),
        ("", "is not a C++ identifier"),
        ("größe", "is not a C++ identifier"),
        ("class", "is a keyword of C++"),
        ("lambda", "is a keyword of Python"),
        ("half", "is a name of Dimorph's"),
        ("dimorph_x", "reserved"),
        ("_x", "begin and end it with a letter or digit"),
        ("x_", "begin and end it with a letter or digit"),
        ("a__b", "no __ inside"),
        ("Rms", "no capital letters"),
        (NAME + "s", "at most 40 characters"),
        ("json", "every project needs"),
        ("numpy", "every project needs"),
        ("exp", "is a function of the C library"),
        ("malloc", "is a function of the C library"),
        ("build", "is a directory or a test of every project"),
        ("test_k", "is a directory or a test of every project"),
        ("tvm_ffi", "is the name of an installed module"),
        ("width", "is a word in the sources of a new project"),
        ("rows", "is a word in the sources of a new project"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(run: Run, name: str, said: str) -> None:
    assert said in " ".join(run("new", "--", name, code=2).stderr.split())
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["rms", "softmax", "k2", "my_kernel"])
def test_a_name_that_can_be_one_serves(run: Run, name: str) -> None:
    run("new", name)
    shown = inside(
        Path(name).resolve(), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "function"
    )
    assert "1 passed" in shown


def test_a_directory_with_something_in_it_is_refused(run: Run) -> None:
    Path("rms").mkdir()
    kept = Path("rms", "kept")
    kept.touch()
    result = run("new", "rms", code=1)
    assert f"{Path('rms').resolve()}: expected a new name or an empty directory" in result.stderr
    assert list(Path().rglob("*")) == [Path("rms"), kept]
    kept.unlink()
    run("new", "rms")
    assert Path("rms", "pyproject.toml").is_file()


@pytest.mark.parametrize("there", ["file", "link to nothing"])
def test_a_file_of_that_name_is_refused(run: Run, there: str) -> None:
    if there == "file":
        Path("rms").touch()
    else:
        Path("rms").symlink_to("file")
        Path("file").touch()
    assert "expected a new name" in run("new", "rms", code=1).stderr
    assert len(list(Path().iterdir())) == (1 if there == "file" else 2)


def test_nothing_half_written_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    whole = Path.write_text

    def full_disk(path: Path, *args: str) -> int:
        written.append(path)
        if len(written) == 5:
            raise OSError(28, "No space left on device", str(path))
        return whole(path, *args)

    monkeypatch.setattr(Path, "write_text", full_disk)
    assert "No space left" in run("new", "rms", code=1).stderr
    assert len(written) == 5 and list(Path().iterdir()) == []


def test_json_lists_the_files(run: Run) -> None:
    found = json.loads(run("new", "rms", "--json").stdout)
    assert found["directory"] == str(Path("rms").resolve())
    assert sorted(found["files"]) == sorted(str(path) for path in Path("rms").resolve().rglob("*") if path.is_file())


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("kind", ["cuda"])
@pytest.mark.parametrize("form", ["jit", "aot"])
def test_the_gpu_kernel_agrees_with_numpy_on_an_emulated_gpu(project: Path, emulated_gpus: Emulator, form: str) -> None:
    config = replace(settings.current(), nvcc=str(emulated_gpus.nvcc), arch="sm_90")
    sys.modules.pop(NAME, None)  # that of another project of this name
    (kernel,) = load_kernels(str(project / "src" / NAME / "__init__.py"))
    assert isinstance(kernel, dm.Kernel)
    values = {"dtype": "float16", "width": 1024} if form == "jit" else {}
    x = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float16)
    y = np.empty_like(x)
    gpu = [*GPUS].index("sm_90")
    getattr(kernel.load(settings=config, **values), NAME)(OnGpu(x, gpu), OnGpu(y, gpu), 0.5)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + 0.5)
    np.testing.assert_allclose(y, expected, rtol=2e-3)
