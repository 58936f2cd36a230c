"""Content keys: the inputs that change a key, those that do not, and computing it without a compiler."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dimorph as dm
from dimorph import settings
from dimorph.plan import key as digests
from dimorph.plan import unit as plan
from dimorph.plan.key import content_key, digest
from dimorph.source import include_scan
from dimorph.source.cpp_text import without_line_comments
from dimorph.source.include_scan import SourceFile
from dimorph.toolchain import targets
from support.kernels import FUNCTOR, KINDS, PICK, PLAIN, SHIFT

FIELDS = st.lists(st.text(max_size=6) | st.binary(max_size=6), max_size=5)


def _bytes(fields: list[str | bytes]) -> list[bytes]:
    return [f.encode("utf-8", "surrogateescape") if isinstance(f, str) else f for f in fields]


@given(FIELDS, FIELDS)
def test_two_lists_of_fields_never_run_together(one: list[str | bytes], two: list[str | bytes]) -> None:
    assert (digest(one) == digest(two)) == (_bytes(one) == _bytes(two))


@given(st.text(min_size=1, max_size=8), st.data())
def test_a_field_cut_in_two_is_another_list(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    assert digest([text]) != digest([text[:cut], text[cut:]])


def _key(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "unit": '#include "a.cc"\n',
        "header": "#define X 1\n",
        "sources": [SourceFile("0:a.cc", "/somewhere/a.cc", "1" * 64)],
        "options": ["-O3"],
        "target": "x86-64-v3",
    }
    return content_key(**{**fields, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"unit": '#include "b.cc"\n'},
        {"header": "#define X 2\n"},
        {"sources": []},
        {"sources": [SourceFile("1:a.cc", "/somewhere/a.cc", "1" * 64)]},
        {"sources": [SourceFile("0:a.cc", "/somewhere/a.cc", "2" * 64)]},
        {"options": ["-O2"]},
        {"options": ["-O", "3"]},
        {"options": []},
        {"target": "x86-64-v4"},
    ],
)
def test_every_field_counts(change: dict[str, Any]) -> None:
    assert _key(**change) != _key()


def test_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _key()
    for name, value in (("FORMAT_VERSION", 999), ("FFI_ABI", "tvm-ffi 99")):
        monkeypatch.setattr(digests, name, value)
        assert _key() != before
        before = _key()


def test_comments_of_the_header_and_places_of_files_do_not_count() -> None:
    assert _key(header="// declared today\n#define X 1 /* one */\n\n") == _key()
    assert _key(sources=[SourceFile("0:a.cc", "/elsewhere/a.cc", "1" * 64)]) == _key()


CODE = b'int x;\n#define Y \\\n  // in a macro\n  1\nconst char* s = "//"; // after a string\n'


@pytest.mark.parametrize(
    "text",
    [
        b"// first\n" + CODE,
        CODE.replace(b"int x;", b"int x;  // x"),
        CODE.replace(b"int x;\n", b"  // one\n\t//two\nint x;\n"),
        CODE + b"// last",
    ],
)
def test_line_comments_are_left_out(text: bytes) -> None:
    assert without_line_comments(text) == without_line_comments(CODE) == CODE


@pytest.mark.parametrize(
    "text",
    [
        b"// spliced \\\nint x;\n",
        b"#define X \\\n// in a macro\nint x;\n",
        b"/* open\n// */ int x;\n",
        b'R"(\n// text\n)"\n',
        b'char* s = "// text";\n',
        b"#include <a//b.h>\n",
        b"char c = '\"'; // '\"'\n",
    ],
)
def test_what_only_looks_like_a_comment_counts(text: bytes) -> None:
    assert without_line_comments(text) == text


def test_comments_of_dimorphs_own_headers_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packaged artifact serves with every version of Dimorph whose headers have the same code."""
    own = shutil.copytree(plan.INCLUDE, tmp_path / "package" / "include")
    monkeypatch.setattr(plan, "INCLUDE", own)
    monkeypatch.setattr(include_scan, "OWN", f"{own.parent}/")
    before = _keys(PICK)
    header = own / "dimorph" / "entry.h"
    text = header.read_text()
    header.write_text("// A longer licence.\n" + text.replace(";\n", ";  // and why\n", 1) + "// The end.\n")
    assert _keys(PICK) == before
    header.write_text(text + "int more;\n")
    assert _keys(PICK)["pick entry"] != before["pick entry"]


def test_comments_of_a_projects_sources_count(copy_of: Callable[..., dm.Kernel]) -> None:
    """They are the project's own, and a debugger shows them."""
    kernel = copy_of(PICK)
    before = _keys(kernel)
    (kernel.root / "pick.cc").write_text("// new\n" + (kernel.root / "pick.cc").read_text())
    assert _keys(kernel)["pick entry"] != before["pick entry"]


def test_a_key_is_64_hex_digits() -> None:
    assert len(_key()) == 64
    assert set(_key()) <= set("0123456789abcdef")


# --- Keys of real units ---


def _keys(kernel: dm.Kernel, environment: dict[str, str] | None = None, **values: object) -> dict[str, str]:
    """Return label -> key of every unit of a set."""
    config = settings.current({"PATH": os.environ["PATH"], **(environment or {})})
    instantiations = kernel.instantiations(**values)
    units = [plan.entry_unit(instantiations), *map(plan.case_unit, instantiations)]
    return {unit.label: unit.key(targets.runnable()[0], config) for unit in units}


def test_a_tree_copied_elsewhere_has_the_same_keys(copy_of: Callable[..., dm.Kernel], tmp_path: Path) -> None:
    for kernel in (PICK, KINDS):
        one, two = copy_of(kernel, "one"), copy_of(kernel, "deeper/down/two")
        (tmp_path / "linked").unlink(missing_ok=True)
        (tmp_path / "linked").symlink_to(one.root)
        three = copy_of(kernel, "linked")
        assert _keys(one) == _keys(two) == _keys(three) == _keys(kernel)


def test_every_unit_has_a_key_of_its_own() -> None:
    for kernel in (PICK, KINDS, FUNCTOR):
        keys = [*_keys(kernel).values(), *_keys(kernel, **_first(kernel)).values()]
        assert len(set(keys)) >= len(list(kernel.instantiations())) + 2


def _first(kernel: dm.Kernel) -> dict[str, Any]:
    first = next(iter(kernel.instantiations()))
    return {axis.name: first[axis.name] for axis in kernel.axes if axis.choose is None}


def test_declaring_another_value_changes_the_entry_and_no_case() -> None:
    axes = (dm.int_axis("width", "WIDTH", [1, 2, 3]), *PICK.axes[1:])
    before, after = _keys(PICK), _keys(dataclasses.replace(PICK, axes=axes))
    assert {label: after[label] for label in before if "case" in label} == {
        label: key for label, key in before.items() if "case" in label
    }
    assert before["pick entry"] != after["pick entry"]
    narrow = {"width": 1, "depth": 1}
    assert _keys(PICK, **narrow) == _keys(dataclasses.replace(PICK, axes=axes), **narrow)


def test_a_case_is_the_same_in_both_forms() -> None:
    for kernel in (PICK, KINDS, FUNCTOR):
        jit, aot = _keys(kernel, **_first(kernel)), _keys(kernel)
        (case,) = [label for label in jit if " case " in label]
        assert jit[case] == aot[case]


def test_what_an_entry_and_a_case_can_reach_changes_their_keys(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(KINDS)
    before = _keys(kernel)
    for name, changed in (("kinds.cc", "entry"), ("kinds_case.cc", "case"), ("mode.h", ""), ("variants.h", "case")):
        file = kernel.root / name
        text, stamp = file.read_text(), file.stat()
        file.write_text(text + "\n")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        after = _keys(kernel)
        moved = {label for label in before if before[label] != after[label]}
        assert moved == {label for label in before if f"kinds {changed}" in label}, name
        file.write_text(text)
        assert _keys(kernel) == before


def test_a_header_that_starts_to_shadow_one_of_the_system_changes_the_keys(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    before = _keys(kernel)
    (kernel.root / "stdint.h").write_text("#include_next <stdint.h>\n")
    assert all(before[label] != key for label, key in _keys(kernel).items())


def test_the_order_of_include_directories_counts_where_names_meet(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    for name in ("one", "two"):
        (kernel.root / name).mkdir()
        (kernel.root / name / "number.h").write_text(f'constexpr int number = sizeof("{name}");\n')
    case = kernel.root / "pick_case.cc"
    case.write_text(
        '#if 0\n#include "one/number.h"\n#include "two/number.h"\n#endif\n#include <number.h>\n' + case.read_text()
    )
    keys = [_keys(dataclasses.replace(kernel, include_dirs=order)) for order in (("one", "two"), ("two", "one"))]
    for label in keys[0]:
        assert (keys[0][label] != keys[1][label]) == (" case " in label)


@pytest.mark.parametrize(
    ("environment", "counts"),
    [
        ({"DIMORPH_CXXFLAGS": "-DX=1"}, True),
        ({"DIMORPH_CXXFLAGS": "-DX=1 -DY"}, True),
        ({"DIMORPH_DEBUG": "1"}, True),
        ({"DIMORPH_STORE": "/somewhere"}, False),
        ({"DIMORPH_JOBS": "1"}, False),
        ({"DIMORPH_POLICY": "jit"}, False),
        ({"DIMORPH_CXX": "clang++"}, False),
        ({"DIMORPH_NUM_THREADS": "1"}, False),
        ({"CPATH": "/somewhere", "CPLUS_INCLUDE_PATH": "/x", "CXXFLAGS": "-O0", "LANG": "de_DE"}, False),
    ],
)
def test_flags_count_and_what_cannot_change_an_object_does_not(environment: dict[str, str], counts: bool) -> None:
    assert (_keys(PICK, environment) != _keys(PICK)) == counts


@pytest.mark.parametrize(
    "flag",
    [
        "-I/x",
        "-I /x",
        "-include x.h",
        "-imacros x.h",
        "-isystem /x",
        "-iquote /x",
        "-idirafter /x",
        "-B/x",
        "@file",
        "--sysroot=/x",
        "-specs=x",
        "-fplugin=x.so",
        "-Wp,-I/x",
        "-Xpreprocessor -I/x",
        "--include-directory=/x",
        "-isysroot /x",
        "-iprefix /x",
        "-wrapper x",
        "-L/x",
        "-lfoo",
        "-fprofile-use=x",
        "-include=x.h",
        "x.o",
        "-cxx-isystem /x",
        "-include-pch x",
        "-Wl,-T,x",
        "--include=x.h",
        # Files to link, and files with more flags.
        "-Wl,/x.o",
        "-Wl,@x",
        "-Wl,-L/x",
        "-Wl,-lx",
        "-Wl,--just-symbols=x.o",
        "-Wl,--dynamic-list=x",
        "-Xlinker x",
        "-Wa,-I,/x",
        "-Wa,@x",
        "-Xassembler @x",
        # Other programs, plugins and profiles.
        "--prefix=/x",
        "-fuse-ld=gold",
        "-fpass-plugin=x.so",
        "-fprofile-instr-use=x",
        "-fauto-profile=x",
        "-fprofile-dir=x",
        "-fsanitize-ignorelist=x",
        "-fsanitize-blacklist=x",
        "-fmodule-map-file=x",
        "-fmodules",
        "-gsplit-dwarf",
        "-mllvm",
        "-ffile-prefix-map=/x=y",
        "-fdump-tree-all=x",
        # No shared object comes out, or elsewhere.
        "-o/x.so",
        "-o x.so",
        "-c",
        "-S",
        "-E",
        "-M",
        "-fsyntax-only",
        "-x c",
        "-save-temps",
        "--version",
        "-v",
        "-",
        "",
        # Another thing on every machine.
        "-march=native",
        "-mtune=native",
    ],
)
def test_a_flag_that_makes_the_compiler_read_other_files_is_refused(flag: str) -> None:
    """No key covers the content of such files, so old code would stay in use after they are edited."""
    with pytest.raises((ValueError, dm.DimorphError), match="DIMORPH_CXXFLAGS"):
        settings.current({"DIMORPH_CXXFLAGS": flag or "''"})


def test_ordinary_flags_are_taken() -> None:
    flags = "-O1 -DA=1 -UB -Wall -Wno-unused -fno-exceptions -mavx2 -march=x86-64-v3 -g -fopenmp -std=c++20 -Ofast -g1"
    flags += " -fsanitize=address,undefined -fno-sanitize-recover=all -Wshadow=compatible-local -mno-avx512f -ggdb3 -w"
    flags += " -DTEXT=a/b -D_GLIBCXX_ASSERTIONS -falign-functions=32 -fstack-protector-strong -mprefer-vector-width=512"
    flags += " -flto -ffast-math -mcmodel=large -std=gnu++17 -gdwarf-4 -pthread --param=max-inline-insns-auto=40"
    flags += " -Wl,-z,relro -fdiagnostics-color=never -ftrapv -fvisibility=hidden -mtune=skylake"
    assert settings.current({"DIMORPH_CXXFLAGS": flags}).cxxflags == tuple(flags.split())


def test_a_target_has_keys_of_its_own() -> None:
    unit, config = plan.entry_unit(PICK.instantiations()), settings.current()
    keys = {unit.key(level, config) for level in (*targets.levels("x86_64"), *targets.levels("aarch64"))}
    assert len(keys) == len(targets.levels("x86_64")) + len(targets.levels("aarch64"))


def test_a_variant_counts_by_its_content_and_its_struct(tmp_path: Path) -> None:
    shutil.copy(PLAIN.root / "variants.h", tmp_path / "variants.h")
    same = dataclasses.replace(SHIFT, root=tmp_path)
    kernel = dataclasses.replace(FUNCTOR, root=tmp_path / "k")
    shutil.copytree(FUNCTOR.root, kernel.root, ignore=shutil.ignore_patterns("variants.h", "__pycache__"))
    before = _keys(kernel, variant=same)
    with (tmp_path / "variants.h").open("a") as header:
        header.write("// another\n")
    after = _keys(kernel, variant=same)
    assert (
        before.keys() == after.keys()
        and before["functor case (variant=Shift)"] != after["functor case (variant=Shift)"]
    )
    more = dataclasses.replace(same, params=(*same.params, dm.scalar("more")))
    assert _keys(kernel, variant=more)["functor case (variant=Shift)"] != after["functor case (variant=Shift)"]


def test_keys_need_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = _keys(PICK)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("subprocess.Popen", _must_not_run)
    assert shutil.which("g++") is None
    assert _keys(PICK, {"PATH": str(tmp_path)}) == expected


def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("a key started a process")


def test_the_flags_of_a_debug_build_name_its_place(copy_of: Callable[..., dm.Kernel]) -> None:
    """A debugger needs real paths, so a debug build of a copy has another key."""
    copy = copy_of(PICK)
    for label, key in itertools.chain(_keys(copy, {"DIMORPH_DEBUG": "1"}).items()):
        assert key != _keys(PICK, {"DIMORPH_DEBUG": "1"})[label]
