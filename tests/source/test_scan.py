"""The include scan: it finds every file that any compile could include, so it misses none that the compiler reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dimorph as dm
from dimorph import settings as dimorph_settings
from dimorph.plan import unit as plan
from dimorph.source.include_scan import Files, Scanner
from dimorph.toolchain import host, targets
from support.compilers import read_by
from support.kernels import ALL, PICK
from support.store import STRANGER, in_child

Tree = Mapping[str, "str | bytes"]


def _write(root: Path, tree: Tree) -> None:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


def _scan(root: Path, dirs: tuple[str, ...] = ("",)) -> list[str]:
    """Return the files found from a.cc, relative to the root."""
    found = Scanner([root / name for name in dirs], {}).scan(["a.cc"])
    return sorted(os.path.relpath(file.path, root) for file in found)


def _print(root: Path, dirs: tuple[str, ...] = ("",)) -> str:
    """Return the parts of a scan that become part of a key."""
    return str([(file.logical, file.sha256) for file in Scanner([root / n for n in dirs], {}).scan(["a.cc"])])


def _compiler_reads(root: Path, dirs: tuple[str, ...] = ("",)) -> list[str]:
    """Return the files that the compiler says it reads, relative to the root."""
    compiler = host.find(dimorph_settings.current())
    work = root / ".work"
    work.mkdir(exist_ok=True)
    found = read_by(
        compiler, root / "a.cc", work, target=targets.runnable()[-1], include_dirs=[root / name for name in dirs]
    )
    inside = [path for path in found if path.is_relative_to(root)]
    return sorted({os.path.normpath(os.path.relpath(path, root)) for path in inside})


BOM = b"\xef\xbb\xbf"
HIDDEN: dict[str, Tree] = {
    "after_a_comment": {"a.cc": '/* x */ #include "x.h"\n/* two\nlines */\n/**/#/**/include/**/"x.h"\n'},
    "indented": {"a.cc": ' \t# \t include\t"x.h"\n'},
    "no_blank": {"a.cc": '#include"x.h"\n'},
    "angled": {"a.cc": "#include <x.h>\n"},
    "windows_lines": {"a.cc": '#include "x.h"\r\n#include "y.h"\r\n'},
    "no_last_newline": {"a.cc": '#include "x.h"'},
    "byte_order_mark": {"a.cc": BOM + b'#include "x.h"\n'},
    "other_encoding": {"a.cc": '// \xe9\n#include "x.h"\n'.encode("latin-1")},
    "digraph": {"a.cc": '%:include "x.h"\n'},
    "import": {"a.cc": '#import "x.h"\n'},
    "spliced_word": {"a.cc": '#inc\\\nlude "x.h"\n'},
    "spliced_directive": {"a.cc": '#\\\ninclude "x.h"\n'},
    "spliced_name": {"a.cc": '#include "x\\\n.h"\n'},
    "spliced_before_name": {"a.cc": '#include \\\n "x.h"\n'},
    "spliced_by_windows": {"a.cc": '#inc\\\r\nlude "x.h"\r\n'},
    "spliced_after_comment": {"a.cc": '/\\\n* c *\\\n/ #include "x.h"\n'},
    "in_disabled_code": {"a.cc": '#if 0\n#include "x.h"\n#endif\n'},
    "in_other_branch": {"a.cc": '#ifdef NEVER\n#include "x.h"\n#else\n#include "y.h"\n#endif\n'},
    "commented_out": {"a.cc": '// #include "x.h"\n/*\n#include "y.h"\n*/\n'},
    "after_a_digit_separator": {"a.cc": 'int n = 1\'0; const char* s = "\'/*";\n/* */ #include "x.h"\n/* */\n'},
    "after_a_raw_string": {"a.cc": 'const char* r = R"(")" "/*";\n/**/ #include "x.h"\n/* */\n'},
    "after_a_char": {"a.cc": 'char c = \'"\'; /* " */\n#include "x.h"\n'},
    "after_an_escape": {"a.cc": 'const char* s = "\\"/*";\n#include "x.h"\n'},
    "after_an_open_comment_mark": {"a.cc": 'const char* s = "/*";\n/**/ #include "x.h"\nconst char* e = "*/";\n'},
    "form_feed": {"a.cc": '\f#include "x.h"\n'},
    "blanks_of_every_kind": {"a.cc": '\f#\finclude\v"x.h"\n#\vinclude\f<y.h>\n'},
    "zero_bytes_for_blanks": {"a.cc": b'#\0include\0"x.h"\n'},
    "spliced_before_blanks": {"a.cc": '#inc\\\f\nlude "x.h"\n#inc\\\v \nlude "y.h"\n'},
    "raw_string_with_a_mark": {"a.cc": 'const char* s = R"(" /* )";\n#/**/include "x.h"\nconst char* t = R"m(*/)m";\n'},
    "line_ends_of_other_systems_in_names": {"a.cc": '#include "a\u2028b.h"\n#include "x.h"\n', "a\u2028b.h": ""},
    "control_characters_in_names": {"a.cc": '#include "a\x1cb.h"\n#include "x.h"\n', "a\x1cb.h": ""},
    "probed": {"a.cc": '#if __has_include("x.h") || __has_include ( <y.h> )\n#endif\n'},
    "blank_in_name": {"a.cc": '#include "my x.h"\n', "my x.h": ""},
    "through_another": {"a.cc": '#include "z.h"\n', "z.h": '#include "x.h"\n'},
    "cycle": {"a.cc": '#include "z.h"\n', "z.h": '#pragma once\n#include "a.cc"\n#include "x.h"\n'},
    "itself": {"a.cc": '#ifndef A\n#define A\n#include "a.cc"\n#include "x.h"\n#endif\n'},
}


@pytest.mark.parametrize("name", list(HIDDEN))
def test_nothing_that_the_compiler_reads_is_missed(tmp_path: Path, name: str) -> None:
    _write(tmp_path, {"x.h": "", "y.h": "", **HIDDEN[name]})
    found = _scan(tmp_path)
    assert "x.h" in _as_real(found, tmp_path) or "my x.h" in found
    assert set(_compiler_reads(tmp_path)) <= set(_as_real(found, tmp_path))


def _as_real(names: list[str], root: Path) -> list[str]:
    return [os.path.normpath(name) for name in names]


RESOLUTION: dict[str, tuple[Tree, tuple[str, ...]]] = {
    "beside_the_includer_first": (
        {"a.cc": '#include "d/x.h"\n', "d/x.h": '#include "y.h"\n', "d/y.h": "", "y.h": ""},
        ("",),
    ),
    "angled_not_beside": ({"a.cc": '#include "d/x.h"\n', "d/x.h": "#include <y.h>\n", "d/y.h": "", "y.h": ""}, ("",)),
    "first_directory_wins": ({"a.cc": "#include <x.h>\n", "p/x.h": "//p\n", "q/x.h": "//q\n"}, ("", "p", "q")),
    "parent": ({"a.cc": '#include "d/x.h"\n', "d/x.h": '#include "../y.h"\n', "y.h": ""}, ("",)),
    "parent_of_an_include_dir": ({"a.cc": '#include "../y.h"\n', "p/q.h": "", "y.h": ""}, ("", "p")),
    "same_name_in_two_places": (
        {"a.cc": '#include "p/x.h"\n#include "q/x.h"\n', "p/x.h": '#include "y.h"\n', "q/x.h": '#include "y.h"\n'}
        | {"p/y.h": "//p\n", "q/y.h": "//q\n"},
        ("",),
    ),
    "next": ({"a.cc": "#include <x.h>\n", "p/x.h": "#include_next <x.h>\n", "q/x.h": "//q\n"}, ("", "p", "q")),
    "next_twice": (
        {"a.cc": "#include <x.h>\n", "p/x.h": "#include_next <x.h>\n", "q/x.h": "#include_next <x.h>\n", "r/x.h": ""},
        ("", "p", "q", "r"),
    ),
    "a_directory_of_that_name": ({"a.cc": "#include <x.h>\n", "p/x.h/inside": "", "q/x.h": ""}, ("", "p", "q")),
}


@pytest.mark.parametrize("name", list(RESOLUTION))
def test_a_name_is_looked_for_where_the_compiler_looks(tmp_path: Path, name: str) -> None:
    tree, dirs = RESOLUTION[name]
    _write(tmp_path, tree)
    assert set(_compiler_reads(tmp_path, dirs)) <= set(_as_real(_scan(tmp_path, dirs), tmp_path))


def test_a_header_behind_a_linked_directory_is_the_one_that_is_hashed(tmp_path: Path) -> None:
    _write(tmp_path, {"p/a.cc": '#include "x.h"\n#include "sub/y.h"\n', "p/x.h": "//near\n"})
    _write(tmp_path, {"far/deep/y.h": '#include "../x.h"\n', "far/x.h": "//far\n"})
    (tmp_path / "p" / "sub").symlink_to(tmp_path / "far" / "deep")
    before = _print(tmp_path / "p")
    (tmp_path / "far" / "x.h").write_text("//changed\n")
    assert _print(tmp_path / "p") != before


@st.composite
def _trees(draw: st.DrawFn) -> tuple[dict[str, str], tuple[str, ...]]:
    """Draw random headers in several directories that include each other in every way, also in cycles or missing."""
    folders = ["", "p/", "q/", "q/r/"]
    names = draw(st.lists(st.sampled_from(["x.h", "y.h", "z.h"]), min_size=1, max_size=3, unique=True))
    files = [folder + name for folder in folders for name in names if draw(st.booleans())]
    tree = {}
    for file in ["a.cc", *files]:
        lines = ["#pragma once"] if file != "a.cc" else []
        for _ in range(draw(st.integers(0, 3))):
            target = draw(st.sampled_from([*names, "r/" + names[0], "../" + names[0], "q/" + names[-1]]))
            form = draw(
                st.sampled_from(['#include "{}"', "#include <{}>", '#if __has_include("{0}")\n#include "{0}"\n#endif'])
            )
            guard = draw(st.sampled_from(["{}", "#if 0\n{}\n#endif", "#if 1\n{}\n#endif"]))
            lines.append(
                guard.format(
                    f'#if __has_include("{target}") || __has_include(<{target}>)\n{form.format(target)}\n#endif'
                )
            )
        tree[file] = "\n".join(lines) + "\n"
    return tree, ("", *draw(st.permutations(["p", "q"])))


@given(_trees())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(
    ({"a.cc": "#include <x.h>\n", "p/x.h": '#pragma once\n#include "y.h"\n', "p/y.h": "#pragma once\n"}, ("", "p", "q"))
)
def test_the_scan_covers_the_compilers_list_in_random_trees(
    shared_directory: Path, case: tuple[dict[str, str], tuple[str, ...]]
) -> None:
    tree, dirs = case
    root = shared_directory / f"scan-{os.getpid()}"
    shutil.rmtree(root, ignore_errors=True)
    _write(root, {"p/.keep": "", "q/.keep": "", **tree})
    try:
        reads = _compiler_reads(root, dirs)
    except dm.BuildError:
        return  # an include that the compiler reaches is missing
    assert set(reads) <= set(_as_real(_scan(root, dirs), root))


@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.name)
def test_the_scan_covers_the_compilers_list_for_real_units(tmp_path: Path, kernel: dm.Kernel) -> None:
    instantiations = kernel.instantiations()
    units = [plan.entry_unit(instantiations)]
    if kernel.case:
        units.append(plan.case_unit(next(iter(instantiations))))
    compiler = host.find(dimorph_settings.current())
    for unit in units:
        generated = tmp_path / unit.kind
        generated.mkdir()
        (generated / f"{kernel.name}_config.h").write_text(unit.header)
        (generated / "unit.cc").write_text(unit.text)
        found = read_by(
            compiler,
            generated / "unit.cc",
            tmp_path,
            target=targets.runnable()[0],
            include_dirs=[generated, *unit.include_dirs],
            system_include_dirs=plan.system_include_dirs(),
        )
        ours = {path.resolve() for path in found if any(path.is_relative_to(d) for d in unit.include_dirs)}
        assert ours
        assert ours <= {Path(source.path).resolve() for source in unit.sources}


# --- Changes that a scan shows, and changes that it does not show ---


def test_a_new_header_that_shadows_changes_the_scan(tmp_path: Path) -> None:
    dirs = ("", "p", "q")
    _write(
        tmp_path,
        {"a.cc": '#include <x.h>\n#include "d/y.h"\n', "q/x.h": "//q\n", "d/y.h": '#include "z.h"\n', "z.h": ""},
    )
    before = _print(tmp_path, dirs)
    for new, text in (("p/x.h", "//q\n"), ("d/z.h", "")):  # with the same content, even
        _write(tmp_path, {new: text})
        assert _print(tmp_path, dirs) != before
        (tmp_path / new).unlink()
        assert _print(tmp_path, dirs) == before


def test_a_header_that_shadows_a_system_header_changes_the_scan(tmp_path: Path) -> None:
    _write(tmp_path, {"a.cc": "#include <vector>\n#include <tvm/ffi/c_api.h>\n"})
    before = _print(tmp_path)
    for new in ("vector", "tvm/ffi/c_api.h"):
        _write(tmp_path, {new: ""})
        assert _print(tmp_path) != before
        (tmp_path / new).unlink()


def test_a_header_that_is_only_probed_for_changes_the_scan_when_it_appears(tmp_path: Path) -> None:
    _write(tmp_path, {"a.cc": '#if __has_include("extra.h")\n#endif\n'})
    before = _print(tmp_path)
    _write(tmp_path, {"extra.h": ""})
    assert _print(tmp_path) != before


def test_the_order_of_the_include_directories_counts(tmp_path: Path) -> None:
    """The order counts even if the same two files are found, each by the other's name."""
    _write(
        tmp_path, {"a.cc": '#include "p/x.h"\n#include "q/x.h"\n#include <x.h>\n', "p/x.h": "//p\n", "q/x.h": "//q\n"}
    )
    assert _print(tmp_path, ("", "p", "q")) != _print(tmp_path, ("", "q", "p"))


def test_a_link_that_leads_elsewhere_changes_the_scan(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {"a.cc": '#include "p/x.h"\n#include "q/x.h"\n#include "now/x.h"\n', "p/x.h": "//p\n", "q/x.h": "//q\n"},
    )
    link = tmp_path / "now"
    link.symlink_to("p")
    before = _print(tmp_path)
    link.unlink()
    link.symlink_to("q")
    assert _print(tmp_path) != before


def test_content_counts_and_time_stamps_do_not(tmp_path: Path) -> None:
    _write(tmp_path, {"a.cc": '#include "x.h"\n', "x.h": "int a = 1;\n"})
    before, header = _print(tmp_path), tmp_path / "x.h"
    stamp = header.stat()
    header.write_text("int a = 2;\n")
    os.utime(header, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert header.stat().st_mtime_ns == stamp.st_mtime_ns and header.stat().st_size == stamp.st_size
    assert _print(tmp_path) != before
    header.write_text("int a = 1;\n")
    os.utime(header, (1, 1))
    assert _print(tmp_path) == before


def test_the_same_tree_elsewhere_scans_the_same(tmp_path: Path) -> None:
    tree = {"a.cc": '#include "d/x.h"\n#include <y.h>\n', "d/x.h": '#include "../z.h"\n', "p/y.h": "", "z.h": "//z\n"}
    _write(tmp_path / "one", tree)
    _write(tmp_path / "two" / "deeper", tree)
    (tmp_path / "three").symlink_to(tmp_path / "two" / "deeper")
    texts = {_print(tmp_path / name, ("", "p")) for name in ("one", "two/deeper", "three")}
    assert len(texts) == 1
    assert str(tmp_path) not in texts.pop()


# --- Refused includes and files ---


@pytest.mark.parametrize(
    "text",
    [
        '#define HAS __has_include\n#if HAS("extra.h")\n#endif\n',
        "#define HAS(name) __has_include(name)\n#if HAS(<extra.h>)\n#endif\n",
        '#define HAS(name) __has_include(name)\n#define EXTRA HAS("extra.h")\n#if EXTRA\n#endif\n',
        '#include "has.h"\n#if LIBRARY_HAS_INCLUDE /**/ ( /* two\nlines */ <extra.h>)\n#endif\n',
        '#include "has.h"\n#ifdef A\n#elif defined(B) && LIBRARY_HAS_INCLUDE("extra.h")\n#endif\n',
        '#include "has.h"\n#define EXTRA LIBRARY_HAS_INCLUDE("extra.h")\n',
        '#include <string_view>\n#if A_SYSTEM_HEADERS_HAS_INCLUDE("extra.h")\n#endif\n',
    ],
    ids=["alias", "function", "in_a_body", "another_file", "elif", "body_of_another_file", "system"],
)
def test_a_macro_that_asks_for_a_header_is_followed(tmp_path: Path, text: str) -> None:
    """{fmt}, libcu++ and many others wrap the question."""
    wrapper = "#ifdef __has_include\n#  define LIBRARY_HAS_INCLUDE(x) __has_include(x)\n#else\n"
    wrapper += "#  define LIBRARY_HAS_INCLUDE(x) 0\n#endif\n"
    _write(tmp_path, {"a.cc": text, "has.h": wrapper})
    before = _print(tmp_path)
    _write(tmp_path, {"extra.h": ""})
    assert _print(tmp_path) != before


@pytest.mark.parametrize(
    "text",
    [
        "#define HAS(x) __has_include(x)\n#if HAS(HEADER)\n#endif\n",
        "#define HAS __has_include\n#if A && HAS(HEADER)\n#endif\n",
        "#define HAS_EXTRA __has_include(HEADER)\n",
        'int n = 10\'000; const char* s = "\'/*";\n#include HEADER\nconst char* e = "*/";\n',
        'const char* s = R"(" /* )";\n#include HEADER\nconst char* t = R"( */ ")";\n',
    ],
    ids=["function", "alias", "in_a_body", "digit_separator", "raw_string"],
)
def test_a_computed_name_is_refused_wherever_it_hides(tmp_path: Path, text: str) -> None:
    _write(tmp_path, {"a.cc": text})
    with pytest.raises(dm.DeclarationError, match="HEADER"):
        _scan(tmp_path)


@pytest.mark.parametrize("how", [".incbin", ".include"])
def test_a_file_that_the_assembler_would_read_is_refused(tmp_path: Path, how: str) -> None:
    _write(tmp_path, {"a.cc": f'asm(".section .rodata\\n{how} \\"x.bin\\"");\n'})
    with pytest.raises(dm.DeclarationError, match=rf"a\.cc: `\{how}` makes the assembler read"):
        _scan(tmp_path)


@pytest.mark.parametrize(
    "line", ["#include HEADER", "#include INC(x.h)", "# /* c */ include HEADER", "#if __has_include(HEADER)\n#endif"]
)
def test_a_computed_include_of_a_project_file_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    _write(tmp_path, {"a.cc": '#include "d/x.h"\n', "d/x.h": f"{line}\n"})
    with pytest.raises(dm.DeclarationError, match=r"d/x\.h.*(HEADER|INC)"):
        _scan(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "// #include HEADER\n",
        "#ifndef __has_include\n#define __has_include(name) 0\n#endif\n",
        "#if defined(__has_include)\n#endif\n#ifdef __has_include\n#endif\n",
        '#include "' + "x" * 300 + '.h"\n',
        "#ifdef __has_include\n#define HAS(x) __has_include(x)\n#else\n#define HAS(x) 0\n#endif\n",
        'void f(); asm("nop"); int g = list.include("x");\n// .incbin "x"\n',
    ],
    ids=["comment", "fallback", "defined", "long_name", "wrapper", "include_of_an_object"],
)
def test_what_only_looks_computed_or_cannot_be_a_file_is_not_refused(tmp_path: Path, text: str) -> None:
    _write(tmp_path, {"a.cc": text})
    assert _scan(tmp_path) == ["a.cc"]


def test_a_missing_source_is_refused_with_the_places_searched(tmp_path: Path) -> None:
    with pytest.raises(dm.DeclarationError, match=rf"source 'a.cc' is not in any of: .*{tmp_path}/p"):
        _scan(tmp_path, ("", "p"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not read a file")
def test_an_unreadable_header_is_an_error_not_a_guess() -> None:
    with tempfile.TemporaryDirectory(prefix="dimorph-test-") as name:
        root = Path(name)
        root.chmod(0o755)
        _write(root, {"a.cc": '#include "x.h"\n', "x.h": ""})
        (root / "x.h").chmod(0o600)

        def attempt() -> str:
            try:
                return str(_scan(root))
            except OSError as error:
                return str(error)

        assert in_child(attempt) == "['a.cc', 'x.h']"
        assert "Permission denied" in in_child(attempt, uid=STRANGER)


def test_a_stale_copy_of_the_generated_header_is_refused(copy_of: Callable[..., dm.Kernel]) -> None:
    """A quoted include finds a file beside the source first, and its constants would silently be the ones compiled."""
    kernel = copy_of(PICK)
    (kernel.root / "pick_config.h").write_text("constexpr int WIDTH = 4711;\n")
    with pytest.raises(dm.DeclarationError, match=r"pick_config\.h"):
        kernel.load(width=1, depth=1)
    nested = kernel.root / "nested"
    nested.mkdir()
    for name in ("pick_config.h", "pick_case.cc"):
        (kernel.root / name).rename(nested / name)
    (kernel.root / "pick_case.cc").write_text('#include "nested/pick_case.cc"\n')
    with pytest.raises(dm.DeclarationError, match=r"nested/pick_config\.h"):
        kernel.load(width=1, depth=1)


@pytest.mark.parametrize("misspelt", ["includes", "../third-party", "pick.cc"])
def test_an_include_directory_that_does_not_exist_is_named(copy_of: Callable[..., dm.Kernel], misspelt: str) -> None:
    """Without it, a header of the same name in the system's directories would be compiled."""
    kernel = copy_of(PICK, include_dirs=("..", misspelt))
    with pytest.raises(dm.DeclarationError, match=rf"kernel pick: include_dirs: '{misspelt}': there is no directory /"):
        kernel.load(width=1, depth=1)


@pytest.fixture(autouse=True)
def _compiler_there() -> Iterator[None]:
    assert shutil.which("g++"), "these tests compare with g++"
    yield


def test_the_compilers_list_is_what_we_think_it_is(tmp_path: Path) -> None:
    """This guards the comparisons above: an empty list of the compiler would agree with every scan."""
    _write(tmp_path, {"a.cc": '#include "x.h"\n#if 0\n#include "y.h"\n#endif\n', "x.h": "", "y.h": ""})
    assert _compiler_reads(tmp_path) == ["a.cc", "x.h"]
    assert _scan(tmp_path) == ["a.cc", "x.h", "y.h"]
    done = subprocess.run(["g++", "-E", "-o", os.devnull, str(tmp_path / "a.cc")], check=False)
    assert done.returncode == 0


def test_scans_that_belong_together_see_the_same_of_a_file_that_changes(tmp_path: Path) -> None:
    source, late = tmp_path / "a.cc", tmp_path / "late.h"
    source.write_text('#include "late.h"\n')
    files = Files()
    first = Scanner([tmp_path], {}, files).scan(["a.cc"])
    source.write_text('#include "late.h"\nint changed;\n')
    late.touch()
    assert Scanner([tmp_path], {}, files).scan(["a.cc"]) == first
    assert [file.logical for file in Scanner([tmp_path], {}).scan(["a.cc"])] == ["0:a.cc", "0:late.h"]
