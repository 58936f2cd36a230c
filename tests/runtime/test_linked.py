"""Libraries of others that kernels link: found where they are loaded, bundled, or named where they are missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import aot, settings
from dimorph.errors import Gone
from dimorph.runtime.library import Entry
from dimorph.store import links, manifest
from dimorph.toolchain import dynamic
from dimorph.toolchain.dependencies import find
from support.compilers import Compiler
from support.dependencies import LINKED, has_pkg_config, pc_file, probe, python_package, shared_library, static_library
from support.paths import REPOSITORY

pytestmark = pytest.mark.usefixtures("fresh_dependencies")

WAYS = ["pkg-config", "path", "package", "static", "bundled package", "registered package"]


def declare(way: str, place: Path, monkeypatch: pytest.MonkeyPatch, value: str = "1") -> dm.Dependency:
    """Make a library in a directory and declare it."""
    if way == "static":
        return dm.library("answer", libraries=[static_library(place / "lib", value=value)])
    if way == "path":
        return dm.library("answer", libraries=[shared_library(place / "lib", value=value)])
    if way == "pkg-config":
        shared_library(place / "lib", value=value)
        pc_file(place / "pc", "answer", libs=f"-L{place}/lib -lanswer -lm -lstdc++ -pthread")
        monkeypatch.setenv("PKG_CONFIG_PATH", str(place / "pc"))
        return dm.pkg_config("answer")
    if not (place / "site").exists():
        pc = "Name: answer\nDescription: a\nVersion: 1.5\nLibs: -L${pcfiledir}/.. -lanswer\n"
        python_package(place / "site", "answer_cpp", "1.5", {"answer_cpp/pc/answer.pc": pc})
    shared_library(place / "site" / "answer_cpp", value=value)
    if str(place / "site") not in sys.path:
        monkeypatch.setattr(sys, "path", [*sys.path, str(place / "site")])
    if way == "registered package":
        return dm.pkg_config("answer")
    return dm.python_package("answer-cpp", libraries=["answer_cpp/libanswer.so.1"], bundle=way.startswith("bundled"))


def loaded_elsewhere(kernel: dm.Kernel, *path: Path, **env: str) -> str:
    """Load a kernel in another process, for what a process has loaded stays; return its answer or its error."""
    code = (
        "import dimorph as dm\n"
        f"kernel = dm.Kernel('probe', case=[], root={str(kernel.root)!r}, origin=dm.kernel.Path('declared.py'))\n"
        f"kernel = dm.kernel.Kernel(**{{**vars(kernel), 'dependencies': {kernel.dependencies!r}}})\n"
        "try:\n    print(kernel.load().probe())\nexcept dm.DimorphError as error:\n    print(error)\n"
    ).replace("Dependency(", "dm.Dependency(")
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [REPOSITORY / "src", *path])), **env}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("way", WAYS)
def test_a_linked_function_is_called(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dependency = declare(way, tmp_path, monkeypatch)
    module = probe(tmp_path / "kernel", dependency, entry=LINKED).load()
    assert module.probe() == 1
    artifact = module.resolutions[0].artifact
    found = [(link.file, link.how) for link in links.read(artifact)]
    how = {"static": None, "package": "required", "registered package": "required"}.get(way, "bundled")
    assert found == ([("libanswer.so.1", how)] if how else [])
    assert ("libanswer.so.1" in artifact.meta.files) == (how == "bundled")
    assert str(tmp_path).encode() not in artifact.file.read_bytes()  # paths of this machine are worth nothing elsewhere


@pytest.mark.parametrize("way", WAYS)
def test_an_upgraded_library_is_linked_again(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Compiler
) -> None:
    for count, value in enumerate(("1", "2"), 1):
        dependency = declare(way, tmp_path, monkeypatch, value)
        kernel = probe(tmp_path / "kernel", dependency, entry=LINKED)
        for _ in range(2):
            assert loaded_elsewhere(kernel, tmp_path / "site") == value
        assert len(compiler.compiled()) == count


@pytest.mark.parametrize("way", ["path", "bundled package"])
def test_built_ahead_it_holds_the_library(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = probe(tmp_path / "kernel", declare(way, tmp_path, monkeypatch), entry=LINKED)
    kernel.build()
    assert aot.verify([kernel], kernel.root / "_dimorph").ok
    for name in ("lib", "site", "store"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    shutil.move(kernel.root, tmp_path / "moved")
    moved = probe(tmp_path / "moved", *kernel.dependencies, entry=LINKED)
    assert loaded_elsewhere(moved, PATH="/nowhere") == "1"
    assert not (tmp_path / "store").exists()
    written = json.loads((moved.root / "_dimorph" / manifest.NAME).read_text())
    version = "answer-cpp 1.5" if "package" in way else "answer"
    assert written["libraries"] == [f"{version} (libanswer.so.1, bundled)"]


@pytest.mark.parametrize("way", ["path", "package"])
def test_another_library_of_that_name_is_not_taken(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = probe(tmp_path / "kernel", declare(way, tmp_path, monkeypatch), entry=LINKED)
    shared_library(tmp_path / "other", value="9")
    for _ in range(2):
        assert loaded_elsewhere(kernel, tmp_path / "site", LD_LIBRARY_PATH=str(tmp_path / "other")) == "1"


@pytest.mark.parametrize("way", ["package", "registered package"])
def test_built_ahead_it_requires_the_package(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = probe(tmp_path / "kernel", declare(way, tmp_path, monkeypatch), entry=LINKED)
    kernel.build()
    site = (tmp_path / "site").rename(tmp_path / "other-site")
    assert loaded_elsewhere(kernel, site, PATH="/nowhere") == "1"
    said = loaded_elsewhere(kernel, PATH="/nowhere")
    name = "answer_cpp" if way.startswith("registered") else "answer-cpp"
    assert f"libanswer.so.1 of the Python package {name}, which is not installed: pip install {name}" in said
    for file in list((site / "answer_cpp").glob("libanswer*")):
        file.unlink()
    said = loaded_elsewhere(kernel, site, PATH="/nowhere")
    assert "version 1.5 has no answer_cpp/libanswer.so" in said


@pytest.mark.skipif(not has_pkg_config("zlib"), reason="needs pkg-config and zlib: apt-get install zlib1g-dev")
def test_a_library_of_the_system_is_needed_by_name(tmp_path: Path) -> None:
    entry = LINKED.replace('extern "C" int answer();', "#include <zlib.h>").replace("answer()", "*zlibVersion()")
    for bundle, how in ((False, "system"), (True, "bundled")):
        kernel = probe(tmp_path / "kernel", dm.pkg_config("zlib", bundle=bundle), entry=entry)
        module = kernel.load()
        assert module.probe() == ord("1")
        artifact = module.resolutions[0].artifact
        (link,) = links.read(artifact)
        assert (link.library, link.file, link.how) == ("zlib", "libz.so.1", how)
        assert link.version
        assert ("libz.so.1" in artifact.meta.files) == bundle
        names = dynamic.read(artifact.file)
        assert names and "libz.so.1" in names.needed


def test_zig_says_that_it_finds_none_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXX", "zig")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(pc_file(tmp_path / "pc", "answer", libs="-lanswer")))
    with pytest.raises(dm.ToolchainError, match=r"the library answer is one of the system's.*such as g"):
        probe(tmp_path / "kernel", dm.pkg_config("answer"), entry=LINKED).load()


@pytest.mark.parametrize(
    ("install", "mend"),
    [("apt-get install absent1", "apt-get install absent1"), ("", "package that has libabsent.so.1")],
)
def test_a_missing_library_of_the_system_is_named(
    install: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The linker finds it, the dynamic loader does not; no other test loads a library of this name.
    shared_library(tmp_path / "lib", "absent")
    pc_file(tmp_path / "pc", "absent", version="1.2", libs="-labsent")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(tmp_path / "pc"))
    monkeypatch.setenv("LIBRARY_PATH", str(tmp_path / "lib"))
    monkeypatch.setenv("DIMORPH_COMPILER_ENV", "LIBRARY_PATH")
    entry = LINKED.replace("answer", "absent")
    kernel = probe(tmp_path / "kernel", dm.pkg_config("absent", install=install), entry=entry)
    for use in (kernel.load, kernel.build):
        with pytest.raises(dm.LoadError, match=f"cannot be loaded: the library absent is missing .*{mend}"):
            use()


def test_libraries_beside_a_library_are_bundled_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = tmp_path / "lib"
    deep = shared_library(lib, "deep", "5")
    middle = shared_library(lib, "middle", "deep() + 1", needs=deep)
    top = shared_library(lib, "answer", "middle() + 1", needs=middle)
    kernel = probe(tmp_path / "kernel", dm.library("answer", libraries=[top]), entry=LINKED)
    artifact = kernel.build().artifacts[0]
    files = [link.file for link in links.read(artifact)]
    assert files == ["libdeep.so.1", "libmiddle.so.1", "libanswer.so.1"]
    shutil.rmtree(lib)
    assert loaded_elsewhere(kernel, PATH="/nowhere") == "7"


def test_what_is_not_used_is_not_needed(tmp_path: Path) -> None:
    library = shared_library(tmp_path / "lib")
    entry = LINKED.replace("return answer()", "return 3")
    module = probe(tmp_path / "kernel", dm.library("answer", libraries=[library]), entry=entry).load()
    assert module.probe() == 3
    assert links.read(module.resolutions[0].artifact) == []


def test_a_library_without_a_name_is_refused(tmp_path: Path) -> None:
    library = shared_library(tmp_path / "lib", soname="")
    with pytest.raises(dm.MissingSpecialization, match=r"libanswer.so has no SONAME.*-Wl,-soname,libanswer.so"):
        probe(tmp_path / "kernel", dm.library("answer", libraries=[library]), entry=LINKED).load()


def test_what_the_dynamic_loader_finds_is_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = shared_library(tmp_path / "apart")  # as alternatives of one library lie
    system = tmp_path / "system"
    system.mkdir()
    monkeypatch.setattr(dynamic, "system_dirs", lambda: frozenset([str(system)]))
    declared = dm.library("answer", libraries=[library])
    assert [one.how for one in find(declared, settings.current()).libraries] == ["bundled"]
    (system / "libanswer.so.1").symlink_to(library)
    assert [one.how for one in find(declared, settings.current()).libraries] == ["system"]
    declared = dm.library("answer", libraries=[library], bundle=True)
    assert [one.how for one in find(declared, settings.current()).libraries] == ["bundled"]
    (system / "libanswer.so.1").unlink()
    shared_library(system, value="2")  # another library of that name
    declared = dm.library("answer", libraries=[library])
    assert [one.how for one in find(declared, settings.current()).libraries] == ["bundled"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "libanswer.so"
    with pytest.raises(dm.MissingSpecialization, match=rf"answer is missing: {library}: No such file"):
        probe(tmp_path / "kernel", dm.library("answer", libraries=[library]), entry=LINKED).load()


def test_a_damaged_copy_is_made_again(tmp_path: Path, store: Path) -> None:
    library = shared_library(tmp_path / "lib")
    kernel = probe(tmp_path / "kernel", dm.library("answer", libraries=[library]), entry=LINKED)
    assert loaded_elsewhere(kernel) == "1"
    for name in ("libanswer.so.1", links.NAME):
        (damaged,) = store.rglob(name)
        whole = damaged.read_bytes()
        damaged.chmod(0o600)
        damaged.write_bytes(b"damaged")
        assert loaded_elsewhere(kernel) == "1"
        assert damaged.read_bytes() == whole


def test_an_artifact_that_was_removed_is_gone(tmp_path: Path) -> None:
    library = shared_library(tmp_path / "lib")
    kernel = probe(tmp_path / "kernel", dm.library("answer", libraries=[library]), entry=LINKED)
    (artifact,) = kernel.build().artifacts  # loaded and unloaded again
    for left_over in (links.NAME, None):  # removed between the two steps of a load, or before both
        for file in list(artifact.path.iterdir()):
            if file.name != left_over:
                file.unlink()
        with pytest.raises(Gone, match=r"entry\.so cannot be loaded"):
            Entry(artifact)


def test_names_of_libraries_are_read(tmp_path: Path) -> None:
    assert dynamic.read(Path("/proc/self/exe").resolve()) is not None
    library = shared_library(tmp_path, needs=shared_library(tmp_path, "other"), value="other()")
    assert dynamic.read(library) == ("libanswer.so.1", ("libother.so.1", *dynamic.read(library).needed[1:]))  # type: ignore[union-attr]
    whole = library.read_bytes()
    for size in (0, 10, 64, 100, len(whole) // 16):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:size])
        assert dynamic.read(cut) is None
    assert dynamic.read(static_library(tmp_path)) is None
