"""Ways to change what a compile reads: each makes the next load compile again, or is refused by the file's name."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import dimorph as dm
from support.compilers import GXX
from support.reads import ASM, ASSEMBLED, DEFAULT, HEAD, ONE, TAIL, TWO, Tree, put

PROBE = "#define VALUE 2\n#else\n#define VALUE 1\n#endif"


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
        ASSEMBLED,
        {"/bin/x": ""},
        {"/bin/as": '#!/bin/sh\nexec AS --defsym two=50 "$@"\n'},
    ),
    "earlier_linker": Way(
        WEAK, {"/lib/v.c": "int val(){return 2;}", "/bin/x": ""}, {"/bin/ld": '#!/bin/sh\nexec LD "$@" ROOT/lib/v.o\n'}
    ),
}


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
    kernel = dm.Kernel(
        name="probe", entry="probe.cc", case=[], root=tmp_path / "project", include_dirs=way.include_dirs
    )
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
