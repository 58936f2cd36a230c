"""Dependencies of kernels: found by pkg-config, in Python packages and by path; their upgrades are noticed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.plan.unit import entry_unit
from dimorph.resolve import dependencies
from dimorph.toolchain import cmake, process, targets
from support.compilers import Compiler
from support.dependencies import ENTRY, headers, pc_file, probe, python_package, shared_library

pytestmark = pytest.mark.usefixtures("fresh_dependencies")


@pytest.fixture
def by_pkg_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dm.Dependency:
    found = pc_file(tmp_path / "pc", "answer", version="1.5", cflags=f"-I{headers(tmp_path)} -DFROM_PC=7")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(found))
    return dm.pkg_config("answer")


@pytest.fixture
def by_path(tmp_path: Path) -> dm.Dependency:
    return dm.library("answer", include_dirs=[headers(tmp_path)])


@pytest.fixture
def by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dm.Dependency:
    site = python_package(tmp_path / "site", "answer_cpp", "1.5", {"answer_cpp/__init__.py": ""})
    (site / "answer_cpp" / "include").symlink_to(headers(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    return dm.python_package("answer-cpp", include_dirs=["answer_cpp/include"])


WAYS = ["by_pkg_config", "by_path", "by_package"]


@pytest.fixture(params=WAYS)
def found(request: pytest.FixtureRequest) -> dm.Dependency:
    """The same headers, found in each way."""
    dependency: dm.Dependency = request.getfixturevalue(request.param)
    return dependency


def test_headers_are_found(found: dm.Dependency, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dimorph"):
        assert probe(tmp_path / "kernel", found).load().probe() == 1
    assert "unused" not in caplog.text  # warnings about code of others are nobody's business


def test_a_changed_header_is_compiled_again(found: dm.Dependency, tmp_path: Path, compiler: Compiler) -> None:
    kernel = probe(tmp_path / "kernel", found)
    assert [kernel.load().probe(), kernel.load().probe()] == [1, 1]
    assert len(compiler.compiled()) == 1
    headers(tmp_path, 2)
    assert kernel.load().probe() == 2
    assert len(compiler.compiled()) == 2


def test_a_header_that_shadows_is_compiled(tmp_path: Path) -> None:
    first, second = tmp_path / "first", headers(tmp_path / "second")
    first.mkdir()
    kernel = probe(tmp_path / "kernel", dm.library("answer", include_dirs=[first, second]))
    assert kernel.load().probe() == 1
    (first / "answer.h").write_text("inline int answer() { return 3; }\n")
    assert kernel.load().probe() == 3


def test_versions_have_artifacts_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Compiler
) -> None:
    kernel = probe(tmp_path / "kernel", dm.pkg_config("answer"))
    for number in (1, 2):
        root = tmp_path / str(number)
        pc_file(root, "answer", version=f"{number}.0", cflags=f"-I{headers(root, number)}")
    for number in (1, 2, 1, 2):
        monkeypatch.setenv("PKG_CONFIG_PATH", str(tmp_path / str(number)))
        module = kernel.load()
        assert module.probe() == number
        assert f"with answer {number}.0" in module.resolutions[0].artifact.meta.toolchain
    assert len(compiler.compiled()) == 2


def test_equal_libraries_elsewhere_share_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Compiler
) -> None:
    kernel = probe(tmp_path / "kernel", dm.pkg_config("answer"))
    for name in ("here", "there"):
        monkeypatch.setenv(
            "PKG_CONFIG_PATH", str(pc_file(tmp_path / name, "answer", cflags=f"-I{headers(tmp_path / name)}"))
        )
        assert kernel.load().probe() == 1
    assert len(compiler.compiled()) == 1


def test_macros_reach_the_compile(by_pkg_config: dm.Dependency, tmp_path: Path) -> None:
    entry = (
        '#include <dimorph/entry.h>\n#include "probe_config.h"\nint64_t probe() { return FROM_PC * WIDE + EMPTY; }\n'
    )
    defined = dm.library("settings", defines={"WIDE": 3, "EMPTY": None})
    kernel = probe(tmp_path / "kernel", by_pkg_config, defined, entry=f"{entry}DIMORPH_EXPORT(probe)\n")
    assert kernel.load().probe() == 22


@pytest.mark.parametrize("file", ["answer.pc", "base.pc"])
def test_an_edited_pc_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    headers(tmp_path, "NUMBER")
    flags = {"answer.pc": "", "base.pc": f"-I{tmp_path}/include"}
    pc_file(tmp_path / "pc", "answer", Requires="base", cflags="-DUNUSED")
    pc_file(tmp_path / "pc", "base", cflags=f"{flags['base.pc']}")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(tmp_path / "pc"))
    kernel = probe(tmp_path / "kernel", dm.pkg_config("answer"))
    for value in (4, 5):
        with (tmp_path / "pc" / file).open("r+") as stream:  # in place, so that the directory's stamp stays
            text = "".join(line for line in stream if not line.startswith("Cflags"))
            stream.seek(0)
            stream.write(f"{text}Cflags: {flags[file]} -DNUMBER={value}\n")
            stream.truncate()
        assert kernel.load().probe() == value


def test_a_hit_starts_no_process(by_pkg_config: dm.Dependency, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = probe(tmp_path / "kernel", by_pkg_config)
    kernel.load()
    kernel.load()  # the store exists now, so what was found is kept in it
    monkeypatch.setattr(dependencies, "_known", {})
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert kernel.load().probe() == 1


def test_a_damaged_memo_is_made_again(by_pkg_config: dm.Dependency, tmp_path: Path, store: Path) -> None:
    kernel = probe(tmp_path / "kernel", by_pkg_config)
    kernel.load()
    kernel.load()
    (memo,) = store.rglob("dependencies.json")
    whole = memo.read_text()
    for damage in (
        "",
        "[]",
        "{",
        whole.replace("found", "lost"),
        whole.replace('"answer"', "7"),
        whole.replace("[", "{}, ["),
    ):
        memo.write_text(damage)
        dependencies._known.clear()
        assert kernel.load().probe() == 1


def test_a_key_needs_no_library(tmp_path: Path) -> None:
    declared = [dm.library("answer", include_dirs=[path]) for path in ("/nowhere", "/other")]
    units = [entry_unit(probe(tmp_path / "kernel", one).instantiations()) for one in declared]
    assert len({unit.key(targets.runnable()[0], settings.current()) for unit in units}) == 1


def test_declarations_have_keys_of_their_own(tmp_path: Path) -> None:
    declared = [
        (),
        (dm.library("one"),),
        (dm.library("one", defines={"A": 1}),),
        (dm.library("one", defines={"A": None}),),
        (dm.pkg_config("one"),),
        (dm.pkg_config("one", bundle=True),),
        (dm.cmake_package("one", target="one"),),
        (dm.cmake_package("one", target="two"),),
        (dm.library("one", libraries=["/a/libone.so"]),),
        (dm.library("one", libraries=["/a/libtwo.so"]),),
        (dm.python_package("one", libraries=["one/include"]),),
        (dm.python_package("one"),),
        (dm.python_package("one", include_dirs=["one/include"]),),
        (dm.library("one"), dm.library("two")),
        (dm.library("two"), dm.library("one")),
    ]
    units = [entry_unit(probe(tmp_path / "kernel", *one).instantiations()) for one in declared]
    keys = {unit.key(targets.runnable()[0], settings.current()) for unit in units}
    assert len(keys) == len(declared)


needs_cmake = pytest.mark.skipif(
    not cmake.program("cmake", os.environ["PATH"]), reason="needs cmake: pip install cmake"
)


def cmake_files(place: Path, value: object, version: str) -> None:
    """Write a CMake package of two targets, with headers and a library."""
    config = place / "lib" / "cmake" / "Answer"
    config.mkdir(parents=True, exist_ok=True)
    shared_library(place / "lib", "base", f"{value}")
    headers(place, "BASE + base()")
    (config / "AnswerConfig.cmake").write_text(
        "add_library(Answer::base SHARED IMPORTED)\n"
        f'set_target_properties(Answer::base PROPERTIES IMPORTED_LOCATION "{place}/lib/libbase.so.1"\n'
        '  INTERFACE_COMPILE_DEFINITIONS "BASE=10")\n'
        "add_library(Answer::answer INTERFACE IMPORTED)\n"
        f'set_target_properties(Answer::answer PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "{place}/include"\n'
        "  INTERFACE_LINK_LIBRARIES Answer::base)\n"
    )
    (config / "AnswerConfigVersion.cmake").write_text(
        f'set(PACKAGE_VERSION "{version}")\n'
        "if(PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION)\n  set(PACKAGE_VERSION_COMPATIBLE FALSE)\n"
        "else()\n  set(PACKAGE_VERSION_COMPATIBLE TRUE)\nendif()\n"
    )


CMAKE_ENTRY = ENTRY.replace("#include <answer.h>", 'extern "C" int base();\n#include <answer.h>')


@needs_cmake
def test_a_cmake_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmake_files(tmp_path / "prefix", 3, "2.1")
    monkeypatch.setenv("CMAKE_PREFIX_PATH", str(tmp_path / "prefix"))
    found = dm.cmake_package("Answer", target="Answer::answer", at_least="2.0")
    kernel = probe(tmp_path / "kernel", found, entry=CMAKE_ENTRY)
    module = kernel.load()
    assert module.probe() == 13
    assert "with Answer 2.1" in module.resolutions[0].artifact.meta.toolchain
    kernel.load()
    dependencies._known.clear()
    with monkeypatch.context() as patch:
        patch.setattr(process, "run", lambda *_, **__: pytest.fail("a process was started"))
        assert kernel.load().probe() == 13
    config = tmp_path / "prefix" / "lib" / "cmake" / "Answer" / "AnswerConfig.cmake"
    config.write_text(config.read_text().replace("BASE=10", "BASE=20"))
    assert kernel.load().probe() == 23


@needs_cmake
def test_registered_cmake_files_of_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "set(Answer_VERSION 4.2)\nadd_library(Answer::answer INTERFACE IMPORTED)\n"
        "set_target_properties(Answer::answer PROPERTIES\n"
        '  INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}/../include")\n'
    )
    site = python_package(tmp_path / "site", "answer_cpp", "4.2", {"answer_cpp/cmake/AnswerConfig.cmake": text})
    (site / "answer_cpp" / "include").symlink_to(headers(tmp_path, 6))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    module = probe(tmp_path / "kernel", dm.cmake_package("Answer", target="Answer::answer")).load()
    assert module.probe() == 6
    assert "with Answer 4.2" in module.resolutions[0].artifact.meta.toolchain


@needs_cmake
def test_a_missing_cmake_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmake_files(tmp_path / "prefix", 3, "2.1")
    monkeypatch.setenv("CMAKE_PREFIX_PATH", str(tmp_path / "prefix"))
    for dependency, pattern in (
        (
            dm.cmake_package("NoSuch", target="NoSuch::it"),
            r'NoSuch is missing: cmake says.*"NoSuch".*CMAKE_PREFIX_PATH',
        ),
        (dm.cmake_package("Answer", target="Answer::answer", at_least="3.0"), r"Answer is missing.*2\.1"),
        (
            dm.cmake_package("Answer", target="Answer::other", install="do it"),
            r"Answer is missing.*Answer::other.*do it",
        ),
    ):
        with pytest.raises(dm.MissingSpecialization, match=f"(?s){pattern}"):
            probe(tmp_path / "kernel", dependency, entry=CMAKE_ENTRY).load()


def test_cmake_itself_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmake, "program", lambda *_: None)
    with pytest.raises(dm.MissingSpecialization, match="pip install cmake ninja"):
        probe(tmp_path / "kernel", dm.cmake_package("Answer", target="Answer")).load()


MISSING: dict[str, tuple[Callable[[], dm.Dependency], str]] = {
    "pkg-config": (lambda: dm.pkg_config("nosuch"), r"nosuch is missing: pkg-config says.*'pkgconfig\(nosuch\)'"),
    "advice": (lambda: dm.pkg_config("nosuch", install="apt-get install nosuch-dev"), "apt-get install nosuch-dev"),
    "old": (lambda: dm.pkg_config("answer", at_least="9.0"), r"answer is missing:.*9\.0.*1\.5"),
    "package": (lambda: dm.python_package("nosuch-wheel"), "nosuch-wheel is missing.*pip install nosuch-wheel"),
    "directory": (
        lambda: dm.python_package("pytest", include_dirs=["nosuch/include"]),
        "no directory .*nosuch/include",
    ),
    "path": (
        lambda: dm.library("nosuch", include_dirs=["/nowhere/include"], install="make it"),
        "/nowhere/include.*make it",
    ),
}


@pytest.mark.parametrize("case", MISSING)
@pytest.mark.usefixtures("by_pkg_config")
def test_a_missing_library_is_named(case: str, tmp_path: Path) -> None:
    make, pattern = MISSING[case]
    with pytest.raises(dm.MissingSpecialization, match=f"(?s){pattern}.*\n  once that is mended, "):
        probe(tmp_path / "kernel", make()).load()


@pytest.mark.parametrize("how", ["too old", "gone"])
@pytest.mark.usefixtures("by_pkg_config")
def test_what_was_made_with_another_library_does_not_serve_in_its_place(how: str, tmp_path: Path) -> None:
    assert probe(tmp_path / "kernel", dm.pkg_config("answer")).load().probe() == 1
    wanted = dm.pkg_config("answer", at_least="9.0" if how == "too old" else "")
    if how == "gone":
        (tmp_path / "pc" / "answer.pc").unlink()
    with pytest.raises(dm.MissingSpecialization, match="answer is missing"):
        probe(tmp_path / "kernel", wanted).load()


def test_pkg_config_itself_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    for name in ("g++", "as", "ld"):
        (only / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(only))
    monkeypatch.setattr(sys, "executable", str(only / "python"))  # pip installs programs beside it
    with pytest.raises(dm.MissingSpecialization, match="apt-get install pkg-config"):
        probe(tmp_path / "kernel", dm.pkg_config("answer")).load()


def test_macros_must_agree(by_pkg_config: dm.Dependency, tmp_path: Path) -> None:
    other = dm.library("other", defines={"FROM_PC": 8})
    with pytest.raises(dm.MissingSpecialization, match="answer defines FROM_PC as 7, and other as 8"):
        probe(tmp_path / "kernel", by_pkg_config, other).load()
    assert probe(tmp_path / "kernel", by_pkg_config, dm.library("other", defines={"FROM_PC": 7})).load().probe() == 1


def test_flags_of_other_kinds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKG_CONFIG_PATH", str(pc_file(tmp_path / "pc", "answer", cflags="-pthread -fopenmp")))
    with pytest.raises(dm.MissingSpecialization, match="answer wants -fopenmp"):
        probe(tmp_path / "kernel", dm.pkg_config("answer")).load()


def test_registered_pc_files_of_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pc = "Name: answer\nDescription: a\nVersion: 3.1\nCflags: -I${pcfiledir}/../include\n"
    site = python_package(tmp_path / "site", "answer_cpp", "3.1", {"answer_cpp/pc/answer.pc": pc})
    (site / "answer_cpp" / "include").symlink_to(headers(tmp_path, 6))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    module = probe(tmp_path / "kernel", dm.pkg_config("answer")).load()
    assert module.probe() == 6
    assert "with answer 3.1" in module.resolutions[0].artifact.meta.toolchain


def test_an_upgraded_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    kernel = probe(tmp_path / "kernel", dm.python_package("answer-cpp", include_dirs=["answer_cpp/include"]))
    for number in (1, 2):
        python_package(site, "answer_cpp", f"{number}.0", {})
        headers(site / "answer_cpp", number)
        assert kernel.load().probe() == number
        (site / f"answer_cpp-{number}.0.dist-info").rename(tmp_path / f"old-{number}")


def test_built_ahead_it_needs_no_library(
    by_pkg_config: dm.Dependency, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = probe(tmp_path / "kernel", by_pkg_config)
    kernel.build()
    monkeypatch.setenv("PKG_CONFIG_PATH", "")
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "another"))
    dependencies._known.clear()
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a process was started"))
    for policy in ("auto", "aot"):
        assert kernel.load(policy=policy).probe() == 1
    assert not (tmp_path / "another").exists()


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: dm.pkg_config(""), "pkg_config: name: expected a text"),
    (lambda: dm.pkg_config("--libs"), "pkg_config: name: expected a text"),
    (lambda: dm.pkg_config("zlib", at_least=1.2), "at_least: expected a text"),  # type: ignore[arg-type]
    (lambda: dm.cmake_package("a b", target="a"), "name: expected a name of CMake, got 'a b'"),
    (lambda: dm.cmake_package("a", target="$<0:x>"), "target: expected a name of CMake"),
    (lambda: dm.cmake_package("a", target="a", at_least=">1"), "at_least: expected a version such as 3.4, got '>1'"),
    (lambda: dm.pkg_config("a", bundle=1), "bundle: expected True or False, got 1"),  # type: ignore[arg-type]
    (lambda: dm.library("a", include_dirs="/usr"), r"write \['/usr'\]"),
    (lambda: dm.library("a", include_dirs=["include"]), "expected absolute paths, got 'include'"),
    (lambda: dm.library("a", defines={"1A": 1}), "name of a macro, got '1A'"),
    (lambda: dm.library("a", defines={"A": 1.5}), "A: expected a text in one line, got 1.5"),  # type: ignore[dict-item]
    (lambda: dm.library("a", defines=["A"]), "expected macro -> value"),  # type: ignore[arg-type]
    (lambda: dm.python_package("a", include_dirs=["/usr/include"]), "relative to the installed packages"),
    (lambda: dm.python_package("a", include_dirs=["../include"]), "relative to the installed packages"),
    (lambda: dm.Kernel("k", "k.cc", dependencies=["zlib"]), "expected a result of pkg_config or the like, got 'zlib'"),  # type: ignore[arg-type]
    (lambda: dm.Kernel("k", "k.cc", dependencies=dm.library("a")), "dependencies: expected a list"),  # type: ignore[arg-type]
    (lambda: dm.Kernel("k", "k.cc", dependencies=[dm.library("a"), dm.pkg_config("a")]), "two are called 'a'"),
    (
        lambda: dm.Kernel("k", "k.cc", dependencies=[dm.library("a", include_dirs=[Path(__file__).parent])]),
        "name it in include_dirs",
    ),
]


@pytest.mark.parametrize(("make", "pattern"), BAD)
def test_bad_declarations_are_refused(make: Callable[[], object], pattern: str) -> None:
    with pytest.raises(dm.DeclarationError, match=pattern):
        make()
