"""Builds ahead of time: the artifacts that are compiled, kept, removed and recorded, and loads of them."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import aot, settings
from dimorph.store import manifest, mark
from dimorph.store.layers import PACKAGED
from support.kernels import PICK
from support.paths import ROWMATH

SOURCES = ROWMATH / "src" / "rowmath"
TARGET = "x86-64-v2" if os.uname().machine == "x86_64" else "armv8"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of two kernels in no package, with a content of their own, and a store that does not exist yet."""
    root = tmp_path / "project"
    shutil.copytree(SOURCES, root, ignore=shutil.ignore_patterns("__init__.py", "__pycache__", PACKAGED))
    for source in (root / "csrc").iterdir():
        source.write_text(f"{source.read_text()}// {tmp_path}\n")
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DIMORPH_TARGET", TARGET)
    for name in ("DIMORPH_POLICY", "DIMORPH_SHARED_STORES", "DIMORPH_CXXFLAGS", "DIMORPH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return the number of compiles since the last call, by a program in place of the compiler that counts them."""
    real = shutil.which("g++") or shutil.which("clang++")
    assert real, "the tests need g++ or clang++"
    log, driver = tmp_path / "compiles", tmp_path / Path(real).name
    script = f'case " $* " in *" -o "*) echo >> {shlex.quote(str(log))};; esac\nexec {real} "$@"\n'
    driver.write_text(f"#!/bin/sh\n{script}")
    driver.chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(driver))

    def count() -> int:
        lines = log.read_text().count("\n") if log.exists() else 0
        log.unlink(missing_ok=True)
        return lines

    return count


def kernel_of(project: Path, name: str) -> dm.Kernel:
    (found,) = aot.load_kernels(f"{project / 'kernels.py'}:{name}")
    return found


def tree(root: Path) -> dict[str, bytes]:
    """Return the content of all files below `root`, but for bytecode, which importing the declarations may write."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def check_rms_norm(module: Any, dtype: str, width: int, *more: object) -> None:
    x = np.random.default_rng(width).standard_normal((3, width)).astype(dtype)
    y = np.empty_like(x)
    module.rms_norm(x, y, 0.5, *more)
    expected = x / np.sqrt((x.astype("float64") ** 2).mean(axis=1, keepdims=True) + 0.5)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


# --- Loads of what was built ---


@pytest.fixture(params=["jit", "aot"])
def mode(request: pytest.FixtureRequest, project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Build just in time into the store, or ahead of time, after which nothing may be written or compiled."""
    if request.param == "aot":
        with monkeypatch.context() as building:
            building.setenv("DIMORPH_STORE", str(project.parent / "store-of-the-build"))
            for name in ("rms_norm", "row_dot"):
                kernel_of(project, name).build()
        monkeypatch.setenv("PATH", "")
    return str(request.param)


def test_the_same_loads_run_in_both_modes(mode: str, project: Path) -> None:
    before = tree(project)
    rms_norm, row_dot = kernel_of(project, "rms_norm"), kernel_of(project, "row_dot")
    everything = rms_norm.load(policy=mode)
    for dtype in ("float32", "float64"):
        for width in (64, 128):
            check_rms_norm(everything, dtype, width)
    check_rms_norm(rms_norm.load(policy=mode, dtype="float64", width=128), "float64", 128)
    check_rms_norm(rms_norm.load(policy=mode, width=64), "float32", 64)
    check_rms_norm(rms_norm.load(policy=mode, dtype=["float32"], width=[128, 64]), "float32", 64)
    x = np.arange(12, dtype="float32").reshape(3, 4)
    out = np.empty(3, "float32")
    row_dot.load(policy=mode).row_dot(x, x, out)  # its case uses the thread pool
    np.testing.assert_array_equal(out, [14, 126, 366])
    assert (project.parent / "store").exists() == (mode == "jit")
    assert tree(project) == before


def test_a_specialized_module_takes_no_other_value_in_either_mode(mode: str, project: Path) -> None:
    kernel = kernel_of(project, "rms_norm")
    narrow = kernel.load(policy=mode, dtype="float64", width=64)
    check_rms_norm(narrow, "float64", 64)
    for dtype, width, complaint in (
        ("float64", 128, "axis width: the call has 128, this module was compiled for 64"),
        ("float64", 72, "axis width: the call has 72, this module was compiled for 64"),
        ("float32", 64, "axis dtype: the call has float32, this module was compiled for float64"),
    ):
        with pytest.raises(dm.SpecializationMismatch, match=f"^rms_norm: {complaint}$"):
            check_rms_norm(narrow, dtype, width)
    # The values of one load do not limit another.
    check_rms_norm(kernel.load(policy=mode), "float32", 128)
    check_rms_norm(kernel.load(policy=mode, dtype="float64"), "float64", 128)
    with pytest.raises(dm.SpecializationMismatch, match="dtype"):
        check_rms_norm(kernel.load(policy=mode, dtype="float64"), "float32", 128)
    assert repr(narrow) == "<dimorph.Module rms_norm(dtype=float64, width=64): rms_norm>"


def test_a_case_is_the_same_file_in_both_modes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(project, "rms_norm")
    jit = kernel.load(policy="jit", dtype="float32", width=64)
    check_rms_norm(jit, "float32", 64)
    case = jit.resolutions[1].artifact
    monkeypatch.setenv("DIMORPH_STORE", str(project.parent / "another-store"))
    report = kernel.build()
    assert report.built == len(report.artifacts) == 5
    (same,) = [artifact for artifact in report.artifacts if artifact.meta.key == case.meta.key]
    assert same.path != case.path
    assert same.file.read_bytes() == case.file.read_bytes()


def test_what_a_call_compiled_is_not_compiled_again(project: Path, compiles: Callable[[], int]) -> None:
    kernel = kernel_of(project, "rms_norm")
    check_rms_norm(kernel.load(dtype="float32", width=64), "float32", 64)
    assert compiles() == 2
    report = kernel.build()
    assert (report.built, report.reused) == (4, 1)
    assert compiles() == 4


def test_under_auto_what_was_not_built_is_compiled(project: Path, compiles: Callable[[], int]) -> None:
    kernel = kernel_of(project, "rms_norm")
    kernel.build(dtype="float32")
    compiles()
    module = kernel.load(dtype="float32")
    check_rms_norm(module, "float32", 64)
    check_rms_norm(kernel.load(dtype="float32", width=128), "float32", 128)
    assert compiles() == 0
    check_rms_norm(module, "float32", 72)
    assert compiles() == 2
    check_rms_norm(kernel.load(dtype="float64", width=64), "float64", 64)
    assert compiles() == 2


@pytest.mark.parametrize("values", [{"dtype": "float32", "width": 80}, {"dtype": "float64", "width": 64}])
def test_what_is_missing_is_named_with_a_command_that_helps(values: dict[str, Any], project: Path) -> None:
    kernel = kernel_of(project, "rms_norm")
    kernel.build(dtype="float32")
    with pytest.raises(dm.MissingSpecialization) as caught:
        kernel.load(policy="aot", **values)
    assert caught.value.missing == {name: str(value) for name, value in values.items()}
    command = caught.value.command
    assert command is not None
    assert command in str(caught.value)
    program, *arguments = shlex.split(command)
    assert program == "dimorph"
    done = subprocess.run([sys.executable, "-m", "dimorph", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_rms_norm(kernel.load(policy="aot", **values), str(values["dtype"]), int(values["width"]))
    assert aot.verify([kernel], str(project / PACKAGED)).ok


@pytest.mark.parametrize("policy", ["aot", "auto"])
@pytest.mark.parametrize(("values", "named"), [({}, "80"), ({"width": [64, 80]}, "64,80"), ({"width": 80}, "80")])
def test_what_a_dispatching_module_misses_is_named_with_a_command_that_helps(
    values: dict[str, Any], named: str, policy: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_of(project, "rms_norm")
    kernel.build()

    def call() -> None:
        with monkeypatch.context() as no_compiler:
            no_compiler.setenv("PATH", "")
            no_compiler.setitem(sys.modules, "ziglang", None)
            no_compiler.setenv("DIMORPH_STORE", str(project.parent / "none"))
            check_rms_norm(kernel.load(policy=policy, **values), "float32", 80)

    with pytest.raises(dm.MissingSpecialization) as caught:
        call()
    assert caught.value.missing == {"width": named}
    assert caught.value.command is not None
    arguments = shlex.split(caught.value.command)[1:]
    subprocess.run([sys.executable, "-m", "dimorph", *arguments], check=True, capture_output=True)
    call()


def test_a_directory_elsewhere_serves_as_a_shared_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = project.parent / "elsewhere"
    kernel = kernel_of(project, "row_dot")
    kernel.build(out)
    with pytest.raises(dm.MissingSpecialization):
        kernel.load(policy="aot", settings=settings.current({"DIMORPH_STORE": str(project.parent / "none")}))
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(out))
    monkeypatch.setenv("DIMORPH_STORE", str(project.parent / "none"))
    assert str(out) in kernel.load(policy="aot").resolutions[0].place
    assert str(out) in kernel.load(policy="aot", dtype="float64").resolutions[0].place


# --- The artifacts that a build compiles, keeps and removes ---

MANY = """
import dimorph as dm

many = dm.Kernel(
    name="rms_norm",
    entry="csrc/rms_norm.cc",
    case=["csrc/rms_norm_case.cc"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [{widths}]),
    ],
)
"""


def test_fifty_cases_again_compile_nothing_and_one_value_more_its_cases(
    project: Path, compiles: Callable[[], int]
) -> None:
    def declared(count: int) -> dm.Kernel:
        widths = ", ".join(str(8 * i) for i in range(1, count + 1))
        (project / "many.py").write_text(MANY.format(widths=widths))
        (kernel,) = aot.load_kernels(str(project / "many.py"))
        return kernel

    first = declared(25).build()
    assert (first.built, first.reused, first.removed) == (51, 0, 0)
    assert compiles() == 51
    before = tree(project / PACKAGED)

    again = declared(25).build()
    assert (again.built, again.reused, again.removed) == (0, 51, 0)
    assert compiles() == 0
    assert again.seconds < 1.0
    assert tree(project / PACKAGED) == before

    wider = declared(26).build()
    assert (wider.built, wider.reused, wider.removed) == (3, 50, 1)
    assert compiles() == 3
    assert aot.verify([declared(26)], project / PACKAGED).ok


def test_a_changed_source_replaces_this_kernels_artifacts_and_no_other(project: Path) -> None:
    rms_norm, row_dot = kernel_of(project, "rms_norm"), kernel_of(project, "row_dot")
    old = {a.path for a in rms_norm.build().artifacts} | {a.path for a in rms_norm.build(width=80).artifacts}
    others = {artifact.path for artifact in row_dot.build().artifacts}
    with (project / "csrc" / "rms_norm_case.cc").open("a") as source:
        source.write("// changed\n")
    report = rms_norm.build()
    kept = {artifact.path for artifact in report.artifacts}
    assert report.built == 4
    # The set of width 80 is removed as well, because all its cases are of the old source.
    assert report.removed == len(old - kept) == 4 + 1 + 2
    assert {path for path in old | others | kept if path.exists()} == others | kept
    assert aot.verify([rms_norm, row_dot], project / PACKAGED).ok


def test_a_failed_build_changes_nothing(project: Path) -> None:
    kernel = kernel_of(project, "rms_norm")
    kernel.build()
    before = tree(project / PACKAGED)
    case = project / "csrc" / "rms_norm_case.cc"
    case.write_text(case.read_text().replace("WIDTH", "WITDH"))
    with pytest.raises(dm.BuildError, match="WITDH"):
        kernel.build()
    assert tree(project / PACKAGED) == before
    assert not [name for name in ("tmp", "locks") if (project / PACKAGED / name).exists()]


def test_a_missing_package_is_told_before_anything_is_compiled(
    project: Path, compiles: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "elftools", None)
    with pytest.raises(dm.ToolchainError, match="pip install pyelftools"):
        kernel_of(project, "rms_norm").build()
    assert compiles() == 0 and not (project / PACKAGED).exists()


def test_sets_and_targets_of_one_kernel_share_a_directory(project: Path) -> None:
    kernel = kernel_of(project, "rms_norm")
    levels = ["x86-64-v2", "x86-64-v3"] if TARGET == "x86-64-v2" else ["armv8", "armv8-bf16"]
    both = kernel.build(targets=levels, dtype="float32")
    assert (both.targets, len(both.artifacts)) == (tuple(levels), 6)
    wide = kernel.build(dtype="float32", width=[64, 256])
    assert (wide.built, wide.reused) == (2, 1)
    coverage = aot.verify([kernel], project / PACKAGED)
    assert coverage.ok, str(coverage)
    assert [line.partition(":")[2].partition(" for")[0] for line in coverage.covered] == [
        "rms_norm (dtype=float32): 2 specializations",
        "rms_norm (dtype=float32, width=64|256): 2 specializations",
    ]
    check_rms_norm(kernel.load(policy="aot", dtype="float32", width=[64, 256]), "float32", 256)
    # This build is for one level, so artifacts of the other level are removed.
    one = kernel.build(targets=levels[:1], dtype="float32")
    assert (one.built, one.reused, one.removed) == (0, 3, 3)


def test_two_kernels_built_at_once_into_one_directory_are_both_recorded(project: Path) -> None:
    out = project / PACKAGED
    kernels = aot.load_kernels(str(project / "kernels.py"))
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda kernel: kernel.build(out), kernels))
    assert [report.built for report in reports] == [5, 4]
    assert aot.verify(kernels, out).ok
    assert sorted(path.name for path in out.iterdir() if len(path.name) != 2) == [mark.NAME, "manifest.json"]


@pytest.fixture
def slotted(project: Path) -> dm.Kernel:
    """The kernel rms_norm with a variant axis whose variants do nothing, and the variant's name as an argument."""
    (project / "variants.h").write_text("template <typename T> struct A {};\ntemplate <typename T> struct B {};\n")
    text = (project / "kernels.py").read_text()
    slot = 'dm.variant_axis("variant", "VARIANT", default=dm.Variant("A", "variants.h")),\n    ],\n)\n\nrow_dot'
    (project / "slotted.py").write_text(text.replace("],\n)\n\nrow_dot", slot))
    entry = project / "csrc" / "rms_norm.cc"
    code = entry.read_text().replace("double eps)", "double eps, dimorph::Str variant)")
    call = "DIMORPH_CALL(rms_norm)(x, y, eps)"
    entry.write_text(code.replace(call, f"DISPATCH_variant(variant, VARIANT, {call})"))
    return aot.load_kernels(f"{project / 'slotted.py'}:rms_norm")[0]


def test_variants_that_are_not_declared_are_built_side_by_side(project: Path, slotted: dm.Kernel) -> None:
    mine = [dm.Variant(name, "variants.h", struct="B", root=project) for name in ("B1", "B2")]
    for variant in mine:
        assert slotted.build(variant=variant).removed == 0
    coverage = aot.verify([slotted], project / PACKAGED)
    assert coverage.ok
    assert "variant B1 is not declared" in coverage.covered[0]
    for variant in mine:
        check_rms_norm(slotted.load(policy="aot", variant=variant), "float32", 64, variant.name)


def test_one_of_several_variants_is_served_by_the_entry_of_all(project: Path, slotted: dm.Kernel) -> None:
    declared = slotted.axes[2].values[0]
    one, two = (dm.Variant(name, "variants.h", struct="B", root=project) for name in ("B1", "B2"))
    slotted.build(variant=[declared, one, two], dtype="float32")
    alone = slotted.load(policy="aot", variant=one, dtype="float32", width=64)
    check_rms_norm(alone, "float32", 64, "B1")
    with pytest.raises(dm.SpecializationMismatch, match="the call has B2, this module was compiled for B1"):
        check_rms_norm(alone, "float32", 64, "B2")
    # This load knows only the name of B2.
    pair = slotted.load(policy="aot", variant=[declared, one], dtype="float32")
    check_rms_norm(pair, "float32", 128, "A")
    check_rms_norm(pair, "float32", 128, "B1")
    with pytest.raises(dm.MissingSpecialization, match=r"variant=B2 is not there: .* loaded for \{A, B1\}"):
        check_rms_norm(pair, "float32", 128, "B2")


# --- The manifest ---


def test_the_manifest_is_rebuilt_from_what_is_there_and_names_no_place_or_time(project: Path) -> None:
    kernel = kernel_of(project, "rms_norm")
    report = kernel.build()
    path = report.out / manifest.NAME
    text = path.read_text()
    assert str(project.parent) not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.unlink()
    assert kernel.build().built == 0
    assert path.read_text() == text
    recorded = manifest.read(report.out)
    assert manifest.Manifest.from_json(recorded.to_json()) == recorded
    assert {row.key for row in recorded.rows().values()} == {artifact.meta.key for artifact in report.artifacts}


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": 1, "kernels": {}}', '{"format": 2, "kernels": {"a": {}}}', "[" * 100_000]
)
def test_a_manifest_that_cannot_be_read_is_an_error(damage: str, project: Path) -> None:
    kernel = kernel_of(project, "row_dot")
    (project / PACKAGED).mkdir()
    (project / PACKAGED / mark.NAME).write_bytes(mark.TEXT)
    (project / PACKAGED / manifest.NAME).write_text(damage)
    with pytest.raises(dm.ArtifactCorrupt, match=manifest.NAME):
        kernel.build()
    with pytest.raises(dm.ArtifactCorrupt, match=manifest.NAME):
        aot.verify([kernel], project / PACKAGED)
    assert (project / PACKAGED / manifest.NAME).read_text() == damage


def test_verify_tells_everything_that_is_wrong(project: Path) -> None:
    kernels = rms_norm, row_dot = aot.load_kernels(str(project / "kernels.py"))
    out = project / PACKAGED
    artifacts = rms_norm.build().artifacts
    row_dot.build()
    assert aot.verify(kernels, out).problems == ()

    case = project / "csrc" / "row_dot_case.cc"
    text = case.read_text()
    case.write_text(text + "// changed\n")
    (problem,) = aot.verify(kernels, out).problems
    assert problem.startswith("kernels.py:row_dot: 2 of its 4 artifacts do not match the present sources")
    case.unlink()
    (problem,) = aot.verify(kernels, out).problems
    assert "row_dot_case.cc" in problem
    case.write_text(text)

    damaged = artifacts[1].file
    damaged.chmod(0o644)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    shutil.rmtree(artifacts[2].path)
    (out / "00" / f"{0:064x}" / f"{0:016x}").mkdir(parents=True)
    problems = aot.verify(kernels, out).problems
    assert len(problems) == 3
    assert f"{artifacts[1].meta.key[:12]}): it is missing or corrupt" in problems[0]
    assert f"{artifacts[2].meta.key[:12]}): it is missing or corrupt" in problems[1]
    assert f"{0:064x}" in problems[2]
    assert damaged.exists(), "verify removes nothing"

    assert "no such kernel is declared" in aot.verify([rms_norm], out).problems[-1]
    assert "nothing was built" in aot.verify([row_dot], project / "nowhere").problems[0]


def test_verify_compares_the_declared_values(project: Path) -> None:
    kernel_of(project, "rms_norm").build()
    declaration = project / "kernels.py"
    declaration.write_text(declaration.read_text().replace("[64, 128]", "[64, 128, 256]"))
    (problem,) = aot.verify([kernel_of(project, "rms_norm")], project / PACKAGED).problems
    assert "width=64|128|256" in problem
    assert "width=64|128" in problem.partition("was built for")[2]


# --- Objects that cannot be loaded ---

UNDEFINED = {
    "row_dot_case.cc": ("missing_function", "int missing_function();\nKEPT int (*kept)() = missing_function;\n"),
    "row_dot.cc": ("missing_variable", 'extern "C" int missing_variable;\nKEPT int* kept = &missing_variable;\n'),
}


def break_link(project: Path, name: str) -> str:
    """Let a source of row_dot use a symbol that is nowhere; return the symbol."""
    symbol, text = UNDEFINED[name]
    source = project / "csrc" / name
    # Exported, because the linker drops what nothing uses.
    text = text.replace("KEPT", '__attribute__((visibility("default")))')
    source.write_text(f"{source.read_text()}\nnamespace broken {{\n{text}}}\n")
    return symbol


@pytest.mark.parametrize("name", list(UNDEFINED))
def test_what_cannot_be_loaded_is_not_built(name: str, project: Path) -> None:
    symbol = break_link(project, name)
    kernel = kernel_of(project, "row_dot")
    for _ in range(2):  # the second time the artifact comes from the user's store
        with pytest.raises(
            dm.LoadError, match=rf"row_dot {'case' if 'case' in name else 'entry'}.*undefined.*{symbol}"
        ):
            kernel.build()
    assert not (project / PACKAGED / manifest.NAME).exists()


@pytest.mark.parametrize("name", list(UNDEFINED))
def test_verify_names_the_symbol_that_is_missing(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    symbol = break_link(project, name)
    kernel = kernel_of(project, "row_dot")
    monkeypatch.setattr("dimorph.aot.builder.unloadable", lambda artifact: None)
    kernel.build()
    coverage = aot.verify([kernel], project / PACKAGED)
    assert not coverage.ok
    assert all("it cannot be loaded" in line and symbol in line for line in coverage.problems), coverage.problems


def test_objects_for_other_cpus_are_built_and_verified_untried(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_link(project, "row_dot.cc")
    kernel = kernel_of(project, "row_dot")
    monkeypatch.setattr("dimorph.toolchain.targets.runnable", lambda: ())
    aot.build(kernel.instantiations(), targets=[TARGET])
    assert aot.verify([kernel], project / PACKAGED).ok


def test_a_build_that_reuses_writes_the_same_manifest(tmp_path: Path) -> None:
    # Its axes are not in the order of the alphabet, in which a description of an artifact keeps them.
    for out in ("first", "second"):
        PICK.build(tmp_path / out, width=1, depth=[1, 2])
    first, second = ((tmp_path / out / manifest.NAME).read_bytes() for out in ("first", "second"))
    assert b'"width"' in first
    assert first == second
