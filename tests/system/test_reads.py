"""Ways to change what a compile reads: each makes the next load compile again, or is refused by the file's name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.plan.unit import device_unit
from dimorph.resolve import reads
from dimorph.resolve.build import Job, build
from dimorph.store.layers import memo_dir
from dimorph.store.store import Store
from dimorph.toolchain import archs, cuda
from support.compilers import GXX

HEAD = '#include <dimorph/entry.h>\n#include "probe_config.h"\n'
TAIL = "\nint64_t probe() { return VALUE; }\nDIMORPH_EXPORT(probe)\n"
ONE, TWO = "#define VALUE 1\n", "#define VALUE 2\n"
PROBE = "#define VALUE 2\n#else\n#define VALUE 1\n#endif"
DEFAULT = "#ifndef VALUE\n#define VALUE 1\n#endif"

Tree = Mapping[str, "str | bytes | Path | None"]


@dataclass(frozen=True)
class Way:
    """One way to change what a compile reads.

    Attributes:
        text: the lines of the entry that define VALUE.
        first: the other files, when VALUE is 1. Names begin in the root of the project; `/` stands for the directory
            of the test, in which `sys` is a directory of system headers and `bin` is first on PATH. A path is a link.
        then: the files that are changed, so that VALUE is 2; None removes a file.
        refused: a pattern for the message, if the load is refused at once.
        refused_then: a pattern for the message, if it is refused after the change.
        include_dirs: those of the kernel.
        flags: DIMORPH_CXXFLAGS.
        driver: more arguments that the compiler's program passes to g++; `/` is written `ROOT`.
    """

    text: str | bytes = '#include "v.h"'
    first: Tree = field(default_factory=lambda: {"v.h": ONE})
    then: Tree = field(default_factory=lambda: {"v.h": TWO})
    refused: str | None = None
    refused_then: str | None = None
    include_dirs: tuple[str, ...] = ()
    flags: str = ""
    driver: str = ""


def include(text: str | bytes, **changes: str) -> Way:
    return Way(text, **changes)  # type: ignore[arg-type]


def named(name: str) -> Way:
    """Include a header with an odd name."""
    return Way(f'#include "{name}"', {name: ONE}, {name: TWO})


def asked(text: str) -> Way:
    """Ask for a header that appears."""
    return Way(f"{text}\n{PROBE}", {}, {"opt.h": ""})


def system(text: str, first: Tree, then: Tree, **changes: str) -> Way:
    """Change a directory of system headers."""
    return Way(text, first, then, driver="-isystem ROOT/sys -isystem ROOT/sys2", **changes)  # type: ignore[arg-type]


ASM = (
    'asm(".section .rodata\\n.globl blob\\n.hidden blob\\n%s\\n.previous");\n'
    'extern "C" const char blob[] __attribute__((visibility("hidden")));\n#define VALUE (blob[0] - 48)'
)
SPLIT = ASM % 'blob: .inc" "bin \\"ROOT/project/blob\\"'
SPLIT_INCLUDE = ASM % '.inc" "lude \\"ROOT/project/blob.s\\"'
WEAK = 'extern "C" __attribute__((weak)) int val();\n#define VALUE (val ? val() : 1)'

RETURNS_ONE: Tree = {"/lib/v.c": "int val(){return 1;}"}
RETURNS_TWO: Tree = {"/lib/v.c": "int val(){return 2;}"}
START = Path(subprocess.check_output([GXX, "-print-file-name=crtbeginS.o"], text=True).strip()).read_bytes()

WAYS: dict[str, Way] = {
    "plain": Way(),
    "angled": include("#include <v.h>"),
    "import": include('#import "v.h"'),
    "digraph": include('%:include "v.h"'),
    "form_feed_before_hash": include('\f#include "v.h"'),
    "form_feed_after_hash": include('#\finclude "v.h"'),
    "vertical_tab_after_hash": include('#\vinclude "v.h"'),
    "form_feed_before_name": include('#include\f"v.h"'),
    "zero_after_hash": include('#\0include "v.h"'),
    "zero_before_name": include('#include\0"v.h"'),
    "splice": include('#inc\\\nlude "v.h"'),
    "splice_blank": include('#inc\\  \nlude "v.h"'),
    "splice_form_feed": include('#inc\\\f\nlude "v.h"'),
    "splice_vertical_tab": include('#inc\\\v\nlude "v.h"'),
    "splice_zero": include('#inc\\\0\nlude "v.h"'),
    "splice_of_windows": include('#inc\\\r\nlude "v.h"'),
    "splice_in_name": include('#include "v\\\n.h"'),
    "splice_twice": include('#inc\\\n\\\nlude "v.h"'),
    "splice_in_comment_mark": include('/\\\n* x */ #include "v.h"'),
    "comment_between": include('#/* a\n b */include /* c */ "v.h"'),
    "comment_in_comment": include('/* // */ #include "v.h"'),
    "windows_lines": include('#include "v.h"\r\n'),
    "byte_order_mark": Way('#include "b.h"', {"b.h": b'\xef\xbb\xbf#include "v.h"\n', "v.h": ONE}),
    "trigraph": include('??=include "v.h"', flags="-trigraphs"),
    "trigraph_splice": include('#inc??/\nlude "v.h"', flags="-trigraphs"),
    "after_a_raw_string": include('static const char* s = R"(" /* )";\n#/**/include "v.h"\n'),
    "name_next_line": named("größe_日本.h"),
    "name_with_nel": named("a\u0085b.h"),
    "name_with_line_separator": named("a\u2028b.h"),
    "name_with_file_separator": named("a\x1cb.h"),
    "name_with_delete": named("a\x7fb.h"),
    "name_with_tab": named("a\tb.h"),
    "name_with_dollar": named("a$b.h"),
    "name_with_hash": named("a#b.h"),
    "name_with_blank": named("a b.h"),
    "name_not_utf8": named("a\udce9b.h"),
    "name_with_angle": named("a>b.h"),
    "name_with_quote": Way('#include <a"b.h>', {'a"b.h': ONE}, {'a"b.h': TWO}),
    "name_with_comment_mark": Way("#include <d/*x.h>", {"d/*x.h": ONE}, {"d/*x.h": TWO}),
    "name_with_two_slashes": Way("#include <d//x.h>", {"d/x.h": ONE}, {"d/x.h": TWO}),
    "next": Way(
        '#include "v.h"', {"v.h": "#include_next <v.h>\n", "inc/v.h": ONE}, {"inc/v.h": TWO}, include_dirs=("inc",)
    ),
    "long_chain": Way(
        '#include "c0.h"',
        {**{f"c{i}.h": f'#include "c{i + 1}.h"\n' for i in range(150)}, "c150.h": ONE},
        {"c150.h": TWO},
    ),
    "linked_header": Way(
        '#include "l.h"', {"l.h": Path("sub/r.h"), "sub/r.h": '#include "v.h"\n', "v.h": ONE, "sub/v.h": ONE}
    ),
    "link_elsewhere": Way('#include "l.h"', {"l.h": Path("a.h"), "a.h": ONE, "b.h": TWO}, {"l.h": Path("b.h")}),
    "up_through_a_link": Way(
        '#include "ln/../v.h"',
        {"real/deep/x": "", "real/v.h": ONE, "v.h": "#define VALUE 7\n", "ln": Path("real/deep")},
        {"real/v.h": TWO},
    ),
    "has_include": asked('#if __has_include("opt.h")'),
    "has_include_wrapped": asked("#define HAS(x) __has_include(x)\n#if HAS(<opt.h>)"),
    "has_include_in_a_body": asked('#define HAS(x) __has_include(x)\n#define OPT HAS("opt.h")\n#if OPT'),
    "has_include_splice": asked('#if __has_include \\\n ("opt.h")'),
    "has_include_comments": asked('#if __has_include /**/ ( /**/ "opt.h")'),
    "has_include_defined": asked("#if defined(__has_include) && (__has_include(<opt.h>))"),
    "has_include_next_line_comment": asked("#if __has_include( /* \n */ <opt.h>)"),
    "computed": include('#define X "v.h"\n#include X', refused=r"probe\.cc.*#include X"),
    "computed_by_a_function": include("#define X(a) #a\n#include X(v.h)", refused=r"probe\.cc.*X\(v\.h\)"),
    "computed_behind_a_raw_string": include(
        'static const char* s = R"(" /* )";\n#define X "v.h"\n#include X\nstatic const char* t = R"( */ ")";',
        refused="#include X",
    ),
    "computed_behind_a_digit_separator": include(
        'static const int a = 10\'000; static const char* g = "\'/*";\n#define X "v.h"\n#include X\n'
        'static const char* e = "*/";',
        refused="#include X",
    ),
    "computed_question": include("#define X <v.h>\n#if __has_include(X)\n#endif", refused="X"),
    "computed_question_wrapped": include(
        "#define H(x) __has_include(x)\n#define X <v.h>\n#if H(X)\n#endif", refused=r"H\(X\)"
    ),
    "incbin": Way(ASM % 'blob: .incbin \\"ROOT/project/blob\\"', {"blob": "1"}, {}, refused=r"probe\.cc.*\.incbin"),
    "assembler_include": Way(ASM % '.include \\"ROOT/project/b.s\\"', {"b.s": ""}, {}, refused=r"probe\.cc.*\.include"),
    "incbin_in_pieces": Way(SPLIT, {"blob": "1"}, {}, refused="project/blob.*assembler"),
    "incbin_outside": Way(SPLIT.replace("project/", ""), {"/blob": "1"}, {}, refused="/blob.*assembler"),
    "assembler_include_in_pieces": Way(
        SPLIT_INCLUDE, {"blob.s": "blob: .byte 49\n"}, {}, refused=r"blob\.s.*assembler"
    ),
    "shadows_a_system_header": Way(
        f"#include <cstring>\n{DEFAULT}", {"features.h": "#include_next <features.h>\n"}, {}, refused="project/feat"
    ),
    "begins_to_shadow": Way(
        f"#include <cstring>\n{DEFAULT}",
        {},
        {"features.h": "#define VALUE 2\n#include_next <features.h>\n"},
        refused_then=r"project/features\.h",
    ),
    "begins_to_shadow_in_a_folder": Way(
        DEFAULT, {}, {"bits/types.h": f"{TWO}#include_next <bits/types.h>\n"}, refused_then=r"project/bits/types\.h"
    ),
    "begins_to_shadow_in_an_include_dir": Way(
        f"#include <vector>\n{DEFAULT}",
        {"inc/x": ""},
        {"inc/bits/c++config.h": f"{TWO}#include_next <bits/c++config.h>\n"},
        refused_then=r"inc/bits/c\+\+config\.h",
        include_dirs=("inc",),
    ),
    "shadow_that_a_source_names": Way(
        f"#include <cstring>\n#include <string.h>\n{DEFAULT}",
        {},
        {"string.h": f"{TWO}#include_next <string.h>\n"},
    ),
    "precompiled_header": Way('#include "v.h"', {"v.h": ONE, "/x": ""}, {"v.h": TWO, "v.h.gch/x": ""}),
    # --- System headers ---
    "system_header": system("#include <s.h>", {"/sys/s.h": ONE}, {"/sys/s.h": TWO}),
    "system_header_of_another": system(
        "#include <s.h>", {"/sys/s.h": "#include <d/t.h>\n", "/sys/d/t.h": ONE}, {"/sys/d/t.h": TWO}
    ),
    "system_header_beside_another": system(
        "#include <d/s.h>", {"/sys/d/s.h": '#include "t.h"\n', "/sys/t.h": ONE}, {"/sys/d/t.h": TWO}
    ),
    "earlier_system_header": system("#include <s.h>", {"/sys2/s.h": ONE, "/sys/x": ""}, {"/sys/s.h": TWO}),
    "earlier_system_folder": system("#include <d/s.h>", {"/sys2/d/s.h": ONE, "/sys/x": ""}, {"/sys/d/s.h": TWO}),
    "earlier_system_directory": system("#include <s.h>", {"/sys2/s.h": ONE}, {"/sys/s.h": TWO}),
    "before_the_compilers_own": system(
        f"#include <stdlib.h>\n{DEFAULT}", {"/sys/x": ""}, {"/sys/stdlib.h": f"{TWO}#include_next <stdlib.h>\n"}
    ),
    "before_one_that_a_system_header_reads": system(
        f"#include <stdlib.h>\n{DEFAULT}", {"/sys/x": ""}, {"/sys/alloca.h": f"{TWO}#include_next <alloca.h>\n"}
    ),
    "system_header_asked_for": system(
        "#include <s.h>",
        {"/sys/s.h": f"#if __has_include(<opt.h>)\n{PROBE}\n", "/sys2/x": ""},
        {"/sys2/opt.h": ""},
    ),
    "system_header_asked_for_by_a_macro": system(
        "#include <s.h>",
        {"/sys/s.h": f"#define HAS(x) __has_include(x)\n#if HAS(<opt.h>)\n{PROBE}\n", "/sys2/x": ""},
        {"/sys2/opt.h": ""},
    ),
    "system_header_asked_for_by_a_macro_of_another": system(
        "#include <s.h>",
        {"/sys/s.h": f'#include "t.h"\n#if HAS("opt.h")\n{PROBE}\n', "/sys/t.h": "#define HAS(x) __has_include(x)\n"},
        {"/sys/opt.h": ""},
    ),
    "system_header_asked_for_by_a_computed_name": system(
        "#include <s.h>",
        {"/sys/s.h": f"#define X <opt>\n#if __has_include(X)\n{PROBE}\n", "/sys2/x": ""},
        {"/sys2/opt": ""},
    ),
    "system_header_asked_for_by_the_project": system(
        f"#if __has_include(<opt.h>)\n{PROBE}", {"/sys2/x": ""}, {"/sys2/opt.h": ""}
    ),
    "system_header_gone": system("#include <s.h>", {"/sys/s.h": ONE, "/sys2/s.h": TWO}, {"/sys/s.h": None}),
    "link_to_another_version": system(
        "#include <lib/s.h>",
        {"/sys/lib": Path("lib-1"), "/sys/lib-1/s.h": ONE, "/sys/lib-2/s.h": TWO},
        {"/sys/lib": Path("lib-2")},
    ),
    "computed_by_a_system_header": system(
        "#include <s.h>", {"/sys/s.h": "#define X <t.h>\n#include X\n", "/sys/t.h": ONE}, {"/sys/t.h": TWO}
    ),
    "system_header_with_the_old_times": system("#include <s.h>", {"/sys/s.h": ONE}, {"/sys/s.h": TWO + "//old times"}),
    # --- What is linked, and the programs ---
    "specs": Way(
        DEFAULT,
        {"/lib/crtbeginS.o": START},
        {"/lib/specs": "*cpp_unique_options:\n+ -DVALUE=2\n\n"},
        driver="-BROOT/lib/",
    ),
    "library": Way('extern "C" int val();\n#define VALUE val()', RETURNS_ONE, RETURNS_TWO, driver="ROOT/lib/libv.a"),
    "object": Way(WEAK, RETURNS_ONE, RETURNS_TWO, driver="ROOT/lib/v.o"),
    "linker_script": Way(
        WEAK,
        {"/lib/v.c": "int val(){return 2;}", "/lib/script.ld": ""},
        {"/lib/script.ld": "INPUT(ROOT/lib/v.o)"},
        driver="ROOT/lib/script.ld",
    ),
    "earlier_assembler": Way(
        ASM % ".ifndef two\\n.set two, 49\\n.endif\\nblob: .byte two",
        {"/bin/x": ""},
        {"/bin/as": '#!/bin/sh\nexec AS --defsym two=50 "$@"\n'},
    ),
    "earlier_linker": Way(
        WEAK, {"/lib/v.c": "int val(){return 2;}", "/bin/x": ""}, {"/bin/ld": '#!/bin/sh\nexec LD "$@" ROOT/lib/v.o\n'}
    ),
}


def put(root: Path, files: Tree) -> None:
    for name, content in files.items():
        path = root / name[1:] if name.startswith("/") else root / "project" / name
        old = path.stat() if path.exists() else None
        if path.is_symlink() or (content is None and path.exists()):
            path.unlink()
        if content is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
            continue
        text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        for word, value in (
            (b"ROOT", str(root)),
            (b"AS ", f"{shutil.which('as')} "),
            (b"LD ", f"{shutil.which('ld')} "),
        ):
            text = text.replace(word, value.encode())
        path.write_bytes(text)
        if old and text.endswith(b"//old times"):
            os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        if path.parent == root / "bin":
            path.chmod(0o755)
        if path.name == "v.c":
            target = path.with_name("v.o")
            subprocess.run([GXX, "-x", "c", "-c", "-fPIC", path, "-o", target], check=True)
            path.with_name("libv.a").unlink(missing_ok=True)
            subprocess.run(["ar", "rcs", path.with_name("libv.a"), target], check=True)


@pytest.mark.parametrize("name", list(WAYS))
def test_a_change_of_what_a_compile_reads_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = WAYS[name]
    put(tmp_path, {"probe.cc": HEAD.encode() + _bytes(way.text) + TAIL.encode(), **way.first})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    if way.driver:
        driver = tmp_path / "driver" / "g++"
        driver.parent.mkdir()
        more = way.driver.replace("ROOT", str(tmp_path))
        # Questions about the compiler name no files to link.
        driver.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) set -- "$@" {more};; esac\nexec {GXX} "$@"\n')
        driver.chmod(0o755)
        monkeypatch.setenv("DIMORPH_CXX", str(driver))
    monkeypatch.setenv("DIMORPH_CXXFLAGS", way.flags)
    kernel = dm.Kernel(name="probe", entry="probe.cc", root=tmp_path / "project", include_dirs=way.include_dirs)
    if way.refused:
        with pytest.raises(dm.DimorphError, match=f"(?s){way.refused}"):
            kernel.load()
        return
    assert kernel.load().probe() == 1
    assert kernel.load().probe() == 1
    put(tmp_path, way.then)
    if way.refused_then:
        with pytest.raises(dm.DimorphError, match=f"(?s){way.refused_then}"):
            kernel.load()
        return
    assert kernel.load().probe() == 2


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("place", ["tools", "of the machine"])
def test_an_assembler_that_appears_in_the_compilers_own_directories_is_noticed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = WAYS["earlier_assembler"]
    put(tmp_path, {"probe.cc": HEAD.encode() + _bytes(way.text) + TAIL.encode(), "/tools/x": ""})
    machine = subprocess.check_output([GXX, "-dumpmachine"], text=True).strip()
    where = tmp_path / "tools" / ("" if place == "tools" else machine)
    monkeypatch.setenv("COMPILER_PATH", str(tmp_path / "tools"))
    monkeypatch.setenv("DIMORPH_COMPILER_ENV", "COMPILER_PATH")
    kernel = dm.Kernel(name="probe", entry="probe.cc", root=tmp_path / "project")
    assert kernel.load().probe() == 1
    where.mkdir(exist_ok=True)
    _script(where / "as", f'exec {shutil.which("as")} --defsym two=50 "$@"')
    assert kernel.load().probe() == 2


@pytest.mark.parametrize("first", ["missing", "there"])
def test_a_compiler_behind_one_of_its_name_is_noticed(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"probe.cc": f"{HEAD}{DEFAULT}{TAIL}"})
    caching, behind = tmp_path / "caching" / "g++", tmp_path / "behind" / "g++"
    for program in (caching, behind):
        program.parent.mkdir()
    _script(caching, f'if test -x {behind}; then exec {behind} "$@"; fi; exec {GXX} "$@"')
    if first == "there":
        _script(behind, f'exec {GXX} "$@"')
    monkeypatch.setenv("PATH", f"{caching.parent}:{behind.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CXX", raising=False)
    kernel = dm.Kernel(name="probe", entry="probe.cc", root=tmp_path / "project")
    assert kernel.load().probe() == 1
    _script(behind, f'exec {GXX} -DVALUE=2 "$@"')
    assert kernel.load().probe() == 2


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# --- Changes during a compile, and the price of the question ---


def _kernel(root: Path, text: str = '#include "v.h"') -> dm.Kernel:
    put(root, {"probe.cc": HEAD + text + TAIL, "v.h": ONE})
    return dm.Kernel(name="probe", entry="probe.cc", root=root / "project")


def _driver(root: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, more: str = "") -> None:
    driver = root / "driver" / "g++"
    driver.parent.mkdir()
    compiled = f'{before}\n{GXX} "$@" {more}\nstatus=$?\n{after}\nexit $status'
    driver.write_text(f'#!/bin/sh\ncase "$*" in *-shared*)\n{compiled};; esac\nexec {GXX} "$@"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(driver))


def test_a_header_that_is_another_one_during_a_compile_only_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, header = _kernel(tmp_path), tmp_path / "project" / "v.h"
    _driver(tmp_path, monkeypatch, f"echo '#define VALUE 2' > {header}", f"echo '#define VALUE 1' > {header}")
    with pytest.raises(dm.BuildError, match="changed while it was compiled"):
        kernel.load()
    assert not list(store.glob("??/*"))


def test_a_header_that_is_replaced_by_another_file_and_back_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, header = _kernel(tmp_path), tmp_path / "project" / "v.h"
    other = tmp_path / "other.h"
    other.write_text(TWO)
    before = f"mv {header} {tmp_path}/kept; cp {other} {header}"
    _driver(tmp_path, monkeypatch, before, f"mv {tmp_path}/kept {header}")
    with pytest.raises(dm.BuildError, match="changed while it was compiled"):
        kernel.load()
    assert not list(store.glob("??/*"))


def test_a_system_header_that_changes_during_a_compile_is_read_again_by_the_next_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = _kernel(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    change = f"sleep 0.02; echo '#define VALUE 2' > {tmp_path}/sys/s.h"
    _driver(tmp_path, monkeypatch, "", change, f"-isystem {tmp_path}/sys")
    assert kernel.load().probe() == 1
    assert kernel.load().probe() == 2


def test_new_times_of_an_unchanged_header_cost_no_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _kernel(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    log = tmp_path / "log"
    _driver(tmp_path, monkeypatch, f"echo compiled >> {log}", "", f"-isystem {tmp_path}/sys")
    kernel.load()
    put(tmp_path, {"/sys/s.h": ONE, "/sys/unrelated.h": TWO})
    os.utime(tmp_path / "sys" / "s.h", (1, 1))
    assert kernel.load().resolutions[0].place.startswith("store")
    assert log.read_text().splitlines() == ["compiled"]
    put(tmp_path, {"/sys/s.h": TWO})
    assert kernel.load().probe() == 2


@pytest.mark.parametrize("field", ["reads", "places", "stamps", "whole"])
@pytest.mark.parametrize("value", [None, 7, 0.5, "x", [], [7], {}, {"x": "y"}, {"x": [1, 2]}, "missing"])
def test_a_damaged_memo_of_what_was_checked_does_no_harm(
    field: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"probe.cc": f"{HEAD}{DEFAULT}{TAIL}"})
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "store"))
    kernel = dm.Kernel(name="probe", entry="probe.cc", root=tmp_path / "project")
    kernel.load()
    (memo,) = (tmp_path / "store").rglob("checked.json")
    content = json.loads(memo.read_bytes())
    assert field in content
    if value == "missing":
        del content[field]
    else:
        content[field] = value
    memo.write_text(json.dumps(content))
    resolved = dm.Kernel(name="probe", entry="probe.cc", root=tmp_path / "project").load()
    assert resolved.probe() == 1


def test_the_message_names_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _kernel(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys2/s.h": ONE, "/sys/x": ""})
    _driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys -isystem {tmp_path}/sys2")
    kernel.load()
    put(tmp_path, {"/sys2/s.h": TWO})
    assert f"{tmp_path}/sys2/s.h, which its compile read, has changed" in str(kernel.load().resolutions[0])
    put(tmp_path, {"/sys/s.h": ONE})
    assert f"{tmp_path}/sys/s.h is new, and a compile would read it" in str(kernel.load().resolutions[0])


def test_what_was_built_ahead_serves_whatever_the_system_holds_and_is_built_again_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = _kernel(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    _driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys")
    assert kernel.build().built == 1
    assert kernel.build().built == 0
    put(tmp_path, {"/sys/s.h": TWO})
    loaded = kernel.load()
    assert loaded.resolutions[0].place.startswith("packaged")
    assert loaded.probe() == 1
    assert kernel.build().built == 1
    assert kernel.load().probe() == 2


def test_without_a_compiler_the_store_serves_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _kernel(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    _driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys")
    kernel.load()
    put(tmp_path, {"/sys/s.h": TWO})
    assert kernel.load(policy="aot").probe() == 1


@pytest.mark.parametrize("changed", ["cuda_fp16.hpp", "nothing_includes_this.h"])
def test_the_headers_that_nvrtc_can_read_count(changed: str, tmp_path: Path, store: Path) -> None:
    found = cuda.find(settings.current())
    headers = tmp_path / "include"
    source = found.include or Path("/usr/local/cuda/include")
    if not (source / "cuda_fp16.h").is_file():
        pytest.skip("there are no CUDA headers to copy")
    shutil.copytree(source, headers)
    (headers / "nothing_includes_this.h").write_text("")
    compiler = found._replace(include=headers)
    put(tmp_path, {"d.cu": '#include <cuda_fp16.h>\nextern "C" __global__ void k(half* x) { x[0] = __hneg(x[0]); }\n'})
    put(tmp_path, {"e.cc": "", "c.cc": ""})
    sources = {"entry": "e.cc", "case": ["c.cc"], "device": ["d.cu"], "archs": ["sm_90"]}
    kernel = dm.Kernel(name="d", root=tmp_path / "project", **sources)  # type: ignore[arg-type]
    unit = device_unit(next(iter(kernel.instantiations())), (archs.by_name("sm_90"),))
    (artifact,) = build([Job(unit, unit.archs[0], compiler)], settings.current(), Store(store))
    memo = memo_dir(Store(store))
    assert reads.changed(artifact, unit, compiler, memo) is None
    recorded = reads.Reads.from_json((artifact.path / reads.NAME).read_bytes())
    assert {"@cuda/cuda_fp16.h", str(found.program)} <= set(recorded.files)
    moved = shutil.copytree(headers, tmp_path / "moved")
    assert reads.changed(artifact, unit, compiler._replace(include=moved), memo) is None
    with (headers / changed).open("a") as stream:
        stream.write("// another version\n")
    counts = f"@cuda/{changed}" in recorded.files
    assert counts == (changed == "cuda_fp16.hpp")
    assert (reads.changed(artifact, unit, compiler, memo) is not None) == counts
