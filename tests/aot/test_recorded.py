"""Record, build what was recorded, prove it, seal: a run without a compiler, without a miss and without a write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import aot
from dimorph.aot import recorded
from dimorph.declare.reference import Reference
from dimorph.errors import ArtifactCorrupt, DimorphError
from dimorph.resolve import sealed
from dimorph.store import manifest, use
from support.cli import Run, runner
from support.kernels import FUNCTOR, PICK, PLAIN, ROOT, SHIFT

PACKAGE = """
import dimorph as dm
SHIFT = dm.Variant("Shift", header="variants.h", params=(dm.scalar("offset", "float64"),))
made = {"Other": dm.Variant("Other", header="variants.h", struct="Plain")}
pick = dm.Kernel(name="pick", axes=[
    dm.int_axis("width", "WIDTH", [1, 2], accepts=lambda _: True),
    dm.int_axis("depth", "DEPTH", [1, 2], accepts=lambda _: True),
])
"""
# A program: some values of a dispatching module, some of specialized ones, and one that is built late.
RUN = """
import sys
import dimorph as dm
from shipped.kernels import pick
if sys.argv[1:] == ["sealed"]:
    seal = dm.seal()
module = pick.load(width=[1, 2], depth=[1, 2])
assert module.pick(2, 1) == 2001 and module.pick(2, 5) == 2005
assert [pick.load(width=width, depth=9).pick(width, 9) for width in (1, 4)] == [1009, 4009]
if sys.argv[1:] == ["sealed"]:
    for call in (lambda: module.pick(1, 1), lambda: module.pick(1, 7), lambda: pick.load(width=6, depth=6)):
        try:
            call()
        except dm.MissingSpecialization as error:
            assert error.command, error
        else:
            raise AssertionError("compiled")
    print(*seal.misses, sep="\\n")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with a kernel, and the record of a run of it; what the run compiled is in the store beside it."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT, root / "shipped", ignore=shutil.ignore_patterns("*.py", "__pycache__", "_dimorph"))
    (root / "shipped" / "__init__.py").touch()
    (root / "shipped" / "kernels.py").write_text(PACKAGE)
    (root / "shipped" / "broken.py").write_text("1 / 0\n")
    (root / "shipped" / "twins.py").write_text(f"{PACKAGE}\nfrom shipped.kernels import pick as other\n")
    (root / "run.py").write_text(RUN)
    _run(root, root, DIMORPH_RECORD=str(root / "use.json"), DIMORPH_STORE=str(root / "store"))
    return root


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with its store, and its package to be imported by this process."""
    monkeypatch.setenv("DIMORPH_STORE", str(project / "store"))
    monkeypatch.syspath_prepend(project)
    return project


@pytest.fixture(scope="module")
def out(project: Path) -> Path:
    """A directory that was built into from the record; with the store of the run, only an entry had to be compiled."""
    out = project / "out"
    done = _dimorph(project, "build", "--from", "use.json", "--out", str(out), "--json")
    built = json.loads(done.stdout)["kernels"]
    assert (sum(one["compiled"] for one in built), [len(one["artifacts"]) for one in built]) == (1, [3, 3])
    return out


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return runner(tmp_path)


def _run(root: Path, cwd: Path, *arguments: str, **environ: str) -> str:
    path = os.pathsep.join([str(root), *sys.path])
    done = subprocess.run(
        [sys.executable, str(root / "run.py"), *arguments],
        env={**environ, "PYTHONPATH": path, "PATH": environ.get("PATH", os.environ["PATH"])},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _dimorph(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DIMORPH_STORE": str(root / "store")}
    command = [sys.executable, "-m", "dimorph", *words]
    done = subprocess.run(command, env=environ, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_recorded_run_again_without_a_compiler(project: Path, out: Path, tmp_path: Path) -> None:
    """Elsewhere, with an empty PATH and a store that must not appear; what was not recorded is missing by name."""
    shutil.copytree(project / "shipped", tmp_path / "shipped")
    shutil.copy(project / "run.py", tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    environ = {"DIMORPH_SHARED_STORES": str(out), "DIMORPH_STORE": str(tmp_path / "store"), "PATH": "/nowhere"}
    printed = _run(tmp_path, tmp_path, "sealed", HOME=str(tmp_path / "home"), **environ)
    assert printed.splitlines() == [
        "pick case (width=1, depth=1)",
        "pick entry (depth=7)",
        "pick entry (width=6, depth=6)",
        "pick case (width=6, depth=6)",
    ]
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


def test_a_record_builds_exactly_its_cases(project: Path, out: Path) -> None:
    (record,) = manifest.read(out).kernels.values()
    assert sorted(built.partial for built in record.built) == [False, True]  # all of {1, 4} x {9} was recorded
    cases = {(case["width"], case["depth"]) for built in record.built for case in built.specializations}
    assert cases == {("2", "1"), ("2", "5"), ("1", "9"), ("4", "9")}
    done = _dimorph(project, "verify", "shipped.kernels", "--out", str(out))
    assert done.stdout.count("2 specializations") == 2


def test_cover_proves_it(here: Path, out: Path) -> None:
    proof = aot.cover(here / "use.json", [out])
    assert proof.ok and not proof.problems
    assert {case.served for case in proof.cases} == {str(out)} and all(case.size > 0 for case in proof.cases)
    assert str(proof).splitlines()[-1].startswith(f"{len(proof.cases)} of {len(proof.cases)} entries and cases served")


def test_cover_in_a_wheel_and_in_the_directory_of_a_package(here: Path, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "shipped" / "_dimorph")
    assert aot.cover(here / "use.json", [tmp_path]).ok
    wheel = tmp_path / "shipped-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in out.rglob("*"):
            archive.write(path, Path("shipped", "_dimorph", path.relative_to(out)))
    proof = aot.cover(here / "use.json", [wheel])
    assert proof.ok and {case.served for case in proof.cases} == {str(wheel)}


def test_cover_names_what_is_missing_and_why(here: Path, out: Path, run: Run, tmp_path: Path) -> None:
    done = run("cover", str(here / "use.json"), str(out), "--target", "x86-64-v2", "--json", code=1)
    answer = json.loads(done.stdout)
    assert not answer["ok"] and all(case["served"] is None for case in answer["cases"])
    assert any("target: " in line and "now x86-64-v2" in line for case in answer["cases"] for line in case["why"])
    # A header that the cases include and that was edited since.
    shutil.copytree(here / "shipped", tmp_path / "shipped")
    (tmp_path / "shipped" / "pick_case.cc").open("a").write("// a comment counts in a source\n")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    words = [sys.executable, "-m", "dimorph", "cover", str(here / "use.json"), str(out)]
    edited = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert edited.returncode == 1
    assert "missing: pick case" in edited.stdout and "source changed: pick_case.cc" in edited.stdout
    assert "served: pick entry" in edited.stdout


def test_cover_names_a_manifest_that_lists_what_is_not_there(here: Path, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    case = next(row for row in manifest.read(out).rows().values() if row.kind == "case")
    shutil.rmtree(tmp_path / "out" / case.key[:2] / case.key)
    proof = aot.cover(here / "use.json", [tmp_path / "out"])
    (lost,) = [one for one in proof.cases if not one.served]
    (line,) = lost.why
    assert f"{tmp_path / 'out' / 'manifest.json'} lists it, but it is missing or damaged: build it again into" in line


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty", None, "expected a wheel or a directory that was built into, got one without a manifest.json"),
        ("a.whl", b"no archive", "expected a wheel or a directory: File is not a zip file"),
        ("absent", b"", "expected a wheel or a directory"),
    ],
)
def test_cover_of_another_place(name: str, content: bytes | None, expected: str, here: Path, tmp_path: Path) -> None:
    place = tmp_path / name
    if content is None:
        place.mkdir()
    elif content:
        place.write_bytes(content)
    with pytest.raises(DimorphError, match=expected) as caught:
        aot.cover(here / "use.json", [place])
    assert str(place) in str(caught.value)


def test_what_is_not_found_again_is_named_and_the_rest_is_built(here: Path, run: Run, tmp_path: Path) -> None:
    found = use.read(here / "use.json")
    entry = next(one for one in found if one.kind == "entry")
    wrong = [
        replace(entry, kernel="gone", found=Reference(module="shipped.kernels:gone")),
        replace(entry, kernel="lost", found=Reference(module="nopkg.kernels:lost", file="/nowhere/kernels.py:lost")),
        replace(
            entry, kernel="local", found=Reference(why="no variable of x.py holds it: bind it at the module level")
        ),
        replace(entry, found=Reference(module="shipped.broken:pick")),
        replace(entry, found=Reference(module="shipped.twins:pick")),
        replace(entry, values={"breadth": ["1"]}),
        replace(entry, target="x86-64-v9"),
        replace(entry, archs=["sm_1"]),
        replace(entry, cxxflags=["-fplugin=/evil.so"]),
        replace(entry, values={**entry.values, "width": ["1", "wide"]}),
    ]
    use.write(tmp_path / "use.json", [*found, *wrong])
    done = run("build", "--from", str(tmp_path / "use.json"), "--out", str(tmp_path / "out"), code=1)
    assert "shipped.kernels holds none of the name 'gone': bring it back, or record again" in done.output
    assert "shipped.broken cannot be imported: ZeroDivisionError: division by zero" in done.output
    assert "shipped.twins holds several of the name 'pick'" in done.output
    assert (
        "nopkg.kernels: no module of this name" in done.output
        and "/nowhere/kernels.py: there is no such" in done.output
    )
    assert "bind it at the module level" in done.output
    assert "the kernel has the axes width, depth now, the record has breadth: record again" in done.output
    assert "x86-64-v9" in done.output and "sm_1" in done.output
    assert "the flag -fplugin=/evil.so is not admitted: the record was edited, record again" in done.output
    assert "axis width: expected" in done.output
    assert "10 problems; all else was built" in done.output
    assert aot.cover(here / "use.json", [tmp_path / "out"]).ok


def test_a_record_is_built_by_an_executor_and_reported(here: Path, run: Run, tmp_path: Path) -> None:
    made, page = tmp_path / "pool.py", tmp_path / "report.html"
    made.write_text("from concurrent.futures import ThreadPoolExecutor as Pool\nexecutor = Pool(1)\n")
    where = ("--executor", f"{made}:executor", "--report", str(page))
    run("build", "--from", str(here / "use.json"), "--out", str(tmp_path / "out"), *where)
    assert aot.cover(here / "use.json", [tmp_path / "out"]).ok
    assert "<title>" in page.read_text()


@pytest.mark.parametrize("words", [("SPEC",), ("--cmake", "package")])
def test_from_takes_nothing_else(words: tuple[str, ...], here: Path, run: Run) -> None:
    done = run("build", *words, "--from", str(here / "use.json"), code=2)
    assert "--from builds what the record names, for Python: expected nothing else" in done.output


def test_merge(here: Path, run: Run, tmp_path: Path) -> None:
    record = str(here / "use.json")
    run("record", "merge", str(tmp_path / "sum.json"), record, record)
    twice = {one.label: one.calls for one in use.read(tmp_path / "sum.json")}
    assert twice == {one.label: 2 * one.calls for one in use.read(here / "use.json")}
    assert (
        f"No such file or directory: '{tmp_path / 'no' / 'sum.json'}'"
        in run("record", "merge", str(tmp_path / "no" / "sum.json"), record, code=1).output
    )
    (tmp_path / "other.json").write_text("{}\n")
    done = run("record", "merge", str(tmp_path / "sum.json"), str(tmp_path / "other.json"), code=1)
    assert "other.json: expected a record of use" in done.output


# --- Sets ---


def _parts(*values: dict[str, object], kernel: dm.Kernel = PICK) -> list[recorded.Part]:
    """Return the parts for loads of one specialization."""
    found = []
    for given in values:
        wanted = kernel.instantiations(**given)
        for kind in ("entry", "case"):
            line = use.Use(kind, "pick", Reference(), wanted.texts(), {}, "x86-64-v3", [], False, [])
            found.append(recorded.Found(line, wanted))
    return recorded.parts(found)


def test_one_load_keeps_its_own_entry() -> None:
    (part,) = _parts({"width": 5, "depth": 6})
    assert part.wanted.specialized and len(list(part.wanted)) == 1


def test_loads_of_one_specialization_share_an_entry() -> None:
    (part,) = _parts({"width": 5, "depth": 6}, {"width": 6, "depth": 5})
    assert part.wanted.texts() == {"width": ["5", "6"], "depth": ["6", "5"]}
    assert [one.texts() for one in part.wanted] == [{"width": "5", "depth": "6"}, {"width": "6", "depth": "5"}]


def test_an_entry_has_not_many_combinations_without_a_case() -> None:
    found = _parts(*({"width": number, "depth": number} for number in range(1000)))
    assert sum(len(list(part.wanted)) for part in found) == 1000
    assert max(part.wanted.slots for part in found) <= 4096 and len(found) < 40


def test_fixed_values_of_a_choice_axis_are_no_axis_of_an_entry() -> None:
    kernel = replace(PICK, axes=[PICK.axes[0], dm.int_axis("depth", "DEPTH", [1, 2], choose=lambda _: 1)])
    loads = [{"width": 1}, {"width": 2}, {"width": 1, "depth": 1}, {"width": 2, "depth": 2}, {"width": 3, "depth": 2}]
    found = [part.wanted.texts() for part in _parts(*loads, kernel=kernel)]
    assert found == [
        {"width": ["1", "2"], "depth": []},
        {"width": ["1"], "depth": ["1"]},
        {"width": ["2", "3"], "depth": ["2"]},
    ]


def test_variants_of_one_name_have_an_entry_each() -> None:
    twin = dm.Variant("Shift", header="variants.h", struct="Plain", root=ROOT)
    found = _parts({"variant": SHIFT}, {"variant": twin}, {"variant": PLAIN}, kernel=FUNCTOR)
    assert sorted(len(list(part.wanted)) for part in found) == [1, 2]


def test_settings_that_are_part_of_the_key_are_kept_apart() -> None:
    wanted = PICK.instantiations(width=1, depth=1)
    lines = [
        use.Use("entry", "pick", Reference(), wanted.texts(), {}, target, [], debug, [])
        for target, debug in (("x86-64-v2", False), ("x86-64-v3", False), ("x86-64-v3", True))
    ]
    found = recorded.parts(recorded.Found(line, wanted) for line in lines)
    assert [(part.targets, part.debug) for part in found] == [
        (["x86-64-v2", "x86-64-v3"], False),
        (["x86-64-v3"], True),
    ]


# --- Variants ---


@pytest.mark.parametrize("case", ["variable", "made", "composed", "gone"])
def test_variants_are_found_again(case: str, here: Path) -> None:
    from shipped.kernels import SHIFT as held  # type: ignore[import-not-found]
    from shipped.kernels import made

    from dimorph.declare.reference import variant_reference

    one = {"variable": held, "made": made["Other"]}.get(case)
    if case == "composed":
        one = dm.Variant("Both", header="variants.h", root=ROOT, parts=(PLAIN, SHIFT))
    if one is None:
        with pytest.raises(dm.DeclarationError, match="no module holds it, and there is no directory /nowhere here"):
            aot.discover.find_variant(Reference(made='{"name":"A","header":"a.h","struct":"A","root":"/nowhere"}'), "A")
        return
    assert aot.discover.find_variant(variant_reference(one), one.name) == one
    text = variant_reference(one).text
    assert aot.discover.variant_named(text) == one


@pytest.mark.parametrize("text", ["{", "{}", '{"name": 1}', "[]"])
def test_a_description_that_was_edited(text: str) -> None:
    with pytest.raises(ArtifactCorrupt, match="variant "):
        aot.discover.find_variant(Reference(made=text), "A")


# --- Seal ---


@pytest.fixture
def unsealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_seals", [])


@pytest.mark.usefixtures("unsealed")
def test_a_seal_counts_for_modules_that_were_loaded_before(here: Path) -> None:
    from shipped.kernels import pick

    module = pick.load(width=[1, 2], depth=[1, 2])
    module.pick(2, 1)
    seal = dm.seal()
    assert module.pick(2, 1) == 2001
    with pytest.raises(dm.MissingSpecialization, match="this process is sealed") as caught:
        module.pick(1, 1)
    assert caught.value.missing == {"width": "1", "depth": "1"} and "shipped/kernels.py:pick" in str(
        caught.value.command
    )
    with pytest.raises(dm.MissingSpecialization, match="this process is sealed"):
        module.pick(77, 1)
    with pytest.raises(dm.MissingSpecialization, match="this process is sealed"):
        pick.load(width=8, depth=8, policy="jit")
    with pytest.raises(dm.MissingSpecialization, match="this process is sealed"):
        pick.build(here / "other", width=8, depth=8)
    assert "pick case (width=1, depth=1)" in seal.misses and not (here / "other" / "manifest.json").exists()
    assert dm.seal(warn=True) is seal and not seal.warn


@pytest.mark.usefixtures("unsealed")
def test_a_seal_that_warns(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    from shipped.kernels import pick

    seal = dm.seal(warn=True)
    assert pick.load(width=[1, 2], depth=[1, 2], policy="auto").pick(1, 2) == 1002
    assert seal.misses == {"pick case (width=1, depth=2)": 1}
    assert "compiling pick case (width=1, depth=2) after this process was sealed" in caplog.text
    assert dm.seal() is seal and not seal.warn


def test_all_of_a_set_and_its_recorded_cases_lie_side_by_side(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither build removes what the other made, in either order."""
    from shipped.kernels import pick

    monkeypatch.setenv("DIMORPH_TARGET", "x86-64-v2" if os.uname().machine == "x86_64" else "armv8")
    wanted = pick.instantiations(width=[1, 2], depth=1)
    some = replace(wanted, only=(next(iter(wanted)).values,))
    for number, order in enumerate(((wanted, some), (some, wanted))):
        for one in order:
            report = aot.build(one, tmp_path / str(number))
            assert report.removed == 0
        (record,) = manifest.read(tmp_path / str(number)).kernels.values()
        assert [(built.partial, len(built.specializations)) for built in record.built] == [(False, 2), (True, 1)]
        assert aot.verify([pick], tmp_path / str(number)).ok
