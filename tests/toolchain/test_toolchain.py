"""The host compiler: the objects that its command lines make, and the inputs on which these depend."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import flags, host, process, targets
from dimorph.toolchain.diagnostics import parse_diagnostics
from support.compilers import read_by

_EXPORT = '#define EXPORT extern "C" __attribute__((visibility("default")))\n'
_TARGET = targets.runnable()[0]


def _settings(cxx: str) -> Settings:
    return Settings(store=Path("unused"), cxx=cxx, path=os.environ["PATH"])


@pytest.fixture(params=["g++", "clang++"])
def compiler(request: pytest.FixtureRequest) -> host.HostCompiler:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return host.find(_settings(name))


@pytest.fixture(scope="module")
def zig(request: pytest.FixtureRequest) -> tuple[host.HostCompiler, Path]:
    """Return zig and a lasting directory: it builds its C++ library at first use, which takes about a minute."""
    try:
        toolchain = host.find(_settings("zig"))
    except ToolchainError as error:
        pytest.skip(str(error))
    assert request.config.cache is not None
    return toolchain, request.config.cache.mkdir("zig")


def _run(
    toolchain: host.HostCompiler,
    source: Path,
    *,
    memo: Path | None = None,
    more_env: Mapping[str, str] | None = None,
    target: targets.Target = _TARGET,
    include_dirs: Sequence[Path] = (),
    system_include_dirs: Sequence[Path] = (),
    prefix_map: Mapping[Path, str] | None = None,
    debug: bool = False,
    extra_flags: Sequence[str] = (),
) -> tuple[Path, process.Completed]:
    work = source.parent / "work"
    work.mkdir(exist_ok=True)
    output = work / "out.so"
    command = toolchain.compile_command(
        source,
        output,
        target=target,
        include_dirs=include_dirs,
        system_include_dirs=system_include_dirs,
        prefix_map=prefix_map,
        debug=debug,
        extra_flags=extra_flags,
    )
    env = {**toolchain.environment(work, memo), **(more_env or {})}
    return output, process.run(command, timeout=300, cwd=work, env=env)


def _build(toolchain: host.HostCompiler, source: Path, text: str, **options: object) -> Path:
    source.write_text(_EXPORT + text)
    output, done = _run(toolchain, source, **options)  # type: ignore[arg-type]
    assert (done.exit_code, done.output) == (0, "")
    return output


def _exports(path: Path) -> set[str]:
    with path.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".dynsym")
        assert isinstance(table, SymbolTableSection)
        return {s.name for s in table.iter_symbols() if s.name and s["st_shndx"] != "SHN_UNDEF"}


def _bindings(path: Path) -> set[str]:
    with path.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".dynsym")
        assert isinstance(table, SymbolTableSection)
        return {symbol["st_info"]["bind"] for symbol in table.iter_symbols()}


def _libraries(path: Path) -> set[str]:
    with path.open("rb") as stream:
        dynamic = ELFFile(stream).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        return {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")}  # type: ignore[attr-defined]


def _glibc(path: Path) -> tuple[int, ...]:
    """Return the newest version of the C library that the object requires."""
    with path.open("rb") as stream:
        needs = ELFFile(stream).get_section_by_name(".gnu.version_r")
        if needs is None:
            return (0,)
        assert isinstance(needs, GNUVerNeedSection)
        names = [aux.name for _, auxiliaries in needs.iter_versions() for aux in auxiliaries]
    versions = [name.removeprefix("GLIBC_") for name in names if name.startswith("GLIBC_")]
    return max((tuple(map(int, version.split("."))) for version in versions), default=(0,))


# --- The objects that a compile makes ---


def test_object_loads_exports_only_what_is_marked_and_needs_little(compiler: host.HostCompiler, tmp_path: Path) -> None:
    text = """
    inline int twice(int x) noexcept { return 2 * x; }
    int not_marked(int x) noexcept { return twice(x); }
    EXPORT int marked(int x) noexcept { return not_marked(x) + ANSWER; }
    """
    path = _build(compiler, tmp_path / "a.cc", text, extra_flags=["-DANSWER=42"])
    assert ctypes.CDLL(str(path)).marked(4) == 50
    assert _exports(path) == {"marked"}
    assert not [name for name in _libraries(path) if "stdc++" in name]
    assert _glibc(path) <= (2, 17)


def test_exceptions_work_and_ask_for_no_cpp_library(compiler: host.HostCompiler, tmp_path: Path) -> None:
    text = """
    #include <stdexcept>
    #include <string>
    EXPORT int caught(int x) {
      try { if (x > 1) throw std::runtime_error("too large: " + std::to_string(x)); return 0; }
      catch (const std::exception& e) { return static_cast<int>(std::string(e.what()).size()); }
    }
    """
    path = _build(compiler, tmp_path / "a.cc", text)
    assert ctypes.CDLL(str(path)).caught(7) == len("too large: 7")
    assert not [name for name in _libraries(path) if "stdc++" in name or "libgcc" in name]
    # std::to_string has a table inside an inline function, which g++ makes unique in the process by default.
    assert "STB_LOOS" not in _bindings(path)


def test_floating_point_keeps_its_meaning(compiler: host.HostCompiler, tmp_path: Path) -> None:
    text = """
    #include <cmath>
    EXPORT int is_nan(float x) { return x != x && std::isnan(x); }
    EXPORT float minus_itself(float x) { return x - x; }
    EXPORT float times_zero(float x) { return x * 0.0f; }
    EXPORT float larger(float a, float b) { return a > b ? a : b; }
    EXPORT float sum(const float* x, int n) { float s = 0; for (int i = 0; i < n; ++i) s += x[i]; return s; }
    """
    library = ctypes.CDLL(str(_build(compiler, tmp_path / "a.cc", text)))
    for name, arguments in (("minus_itself", 1), ("times_zero", 1), ("larger", 2), ("is_nan", 1)):
        getattr(library, name).argtypes = [ctypes.c_float] * arguments
        getattr(library, name).restype = ctypes.c_int if name == "is_nan" else ctypes.c_float
    assert (library.is_nan(math.nan), library.is_nan(1.0)) == (1, 0)
    assert math.isnan(library.minus_itself(math.inf))
    assert math.isnan(library.times_zero(math.inf))
    assert math.copysign(1.0, library.times_zero(-1.0)) == -1.0
    assert library.larger(math.nan, 3.0) == 3.0
    values = [1e20, 1.0, -1e20, 1.0] * 64
    library.sum.restype = ctypes.c_float
    # In order, each 1 vanishes beside 1e20 or stays after it; any other order gives another sum.
    assert library.sum((ctypes.c_float * len(values))(*values), len(values)) == 1.0


@pytest.mark.parametrize("target", targets.runnable(), ids=lambda target: target.name)
def test_every_level_that_this_cpu_runs(compiler: host.HostCompiler, tmp_path: Path, target: targets.Target) -> None:
    text = "EXPORT void axpy(float* y, const float* x, int n) { for (int i = 0; i < n; ++i) y[i] += 3 * x[i]; }"
    library = ctypes.CDLL(str(_build(compiler, tmp_path / "a.cc", text, target=target)))
    y, x = (ctypes.c_float * 100)(*range(100)), (ctypes.c_float * 100)(*range(100))
    library.axpy(y, x, 100)
    assert list(y) == [4.0 * i for i in range(100)]


_PLACES = """
#include "other.h"
#include <vector>
namespace { struct Count { std::vector<int> all; Count() : all(3) {} } count; }
EXPORT const char* here() { return __FILE__; }
EXPORT const char* there() { return other_file(); }
EXPORT int size() { return static_cast<int>(count.all.size()) + [] { return 1; }(); }
"""


def _in_places(toolchain: host.HostCompiler, root: Path, *, mapped: bool, memo: Path | None = None) -> list[bytes]:
    contents = []
    for name in ("one", "a-much-longer-second-place"):
        directory = root / name
        (directory / "inner").mkdir(parents=True, exist_ok=True)
        (directory / "inner" / "other.h").write_text("inline const char* other_file() { return __FILE__; }\n")
        names = {directory: "/project", directory / "inner": "/inner"} if mapped else {}
        path = _build(
            toolchain,
            directory / "a.cc",
            _PLACES,
            include_dirs=[directory / "inner"],
            prefix_map=names,
            memo=memo,
        )
        contents.append(path.read_bytes())
    return contents


def test_equal_sources_give_equal_objects_wherever_they_lie(compiler: host.HostCompiler, tmp_path: Path) -> None:
    first, second = _in_places(compiler, tmp_path, mapped=True)
    assert first == second
    assert os.fsencode(tmp_path) not in first
    assert b"/project/a.cc" in first
    assert b"/inner/other.h" in first
    # Without the map the objects differ; otherwise the comparison above would prove nothing.
    first, second = _in_places(compiler, tmp_path, mapped=False)
    assert first != second


def test_debug_build_has_real_places(compiler: host.HostCompiler, tmp_path: Path) -> None:
    source = tmp_path / "a.cc"
    text = "EXPORT int f(int x) { return x + 1; }"
    names = {tmp_path: "/project"}
    debug = _build(compiler, source, text, debug=True, prefix_map=names).read_bytes()
    assert b".debug_line" in debug
    assert os.fsencode(tmp_path) in debug
    release = _build(compiler, source, text, prefix_map=names).read_bytes()
    assert b".debug_" not in release


def test_missing_symbols_may_be_linked_and_are_reported_when_loaded(
    compiler: host.HostCompiler, tmp_path: Path
) -> None:
    path = _build(compiler, tmp_path / "a.cc", 'extern "C" int nowhere(int); EXPORT int f() { return nowhere(1); }')
    with pytest.raises(OSError, match="undefined symbol: nowhere"):
        ctypes.CDLL(str(path))


def test_surroundings_do_not_matter(
    compiler: host.HostCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "cfloat").write_text("#error shadowed\n")
    for name in ("CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, str(shadow))
    text = "#include <cfloat>\nEXPORT float f() { return FLT_MAX; }"
    assert _build(compiler, tmp_path / "a.cc", text).exists()
    # With the variable passed on, the compile is refused; otherwise the test above would prove nothing.
    _, done = _run(compiler, tmp_path / "a.cc", more_env={"CPATH": str(shadow)})
    assert "shadowed" in done.output


def test_environment_is_the_path_and_constants(compiler: host.HostCompiler, tmp_path: Path) -> None:
    environment = compiler.environment(tmp_path)
    assert set(environment) == {"PATH", "LC_ALL", "TMPDIR"}
    assert environment["TMPDIR"] == str(tmp_path)


def test_paths_may_hold_blanks(compiler: host.HostCompiler, tmp_path: Path) -> None:
    directory = tmp_path / "a b" / "c"
    directory.mkdir(parents=True)
    (directory / "h.h").write_text("#define NINE 9\n")
    names = {directory: "/d"}
    text = "#include <h.h>\nEXPORT int f() { return NINE; }"
    for include in ({"include_dirs": [directory]}, {"system_include_dirs": [directory]}):
        path = _build(compiler, directory / "a.cc", text, prefix_map=names, **include)
        assert ctypes.CDLL(str(path)).f() == 9


def test_the_users_flags_come_last(compiler: host.HostCompiler, tmp_path: Path) -> None:
    text = "#ifdef __OPTIMIZE__\n#error optimised\n#endif\nEXPORT int f() { return X; }"
    path = _build(compiler, tmp_path / "a.cc", text, extra_flags=["-DX=1", "-O0", "-UX", "-DX=2"])
    assert ctypes.CDLL(str(path)).f() == 2


# --- Flags in the key ---


@pytest.mark.parametrize("dialect", ["gcc", "clang", "zig"])
@pytest.mark.parametrize("debug", [False, True])
def test_every_flag_that_decides_what_is_made_is_in_the_key(dialect: host.Dialect, debug: bool) -> None:
    command = host.HostCompiler(("program",), dialect, "").compile_command(
        Path("/s.cc"), Path("/o.so"), target=_TARGET, debug=debug, extra_flags=["-DUSER"]
    )
    declared = flags.host_id(target=_TARGET, debug=debug, extra_flags=["-DUSER"])
    elsewhere = {"program", "/s.cc", "-o", "/o.so", "-target", *flags.MESSAGES}
    for flag in set(command) - elsewhere:
        assert flag.removeprefix(f"{_TARGET.machine}-") in declared


def test_different_options_have_different_keys() -> None:
    first, second = targets.levels("x86_64")[:2]
    texts = [
        flags.host_id(target=first, debug=False, extra_flags=()),
        flags.host_id(target=second, debug=False, extra_flags=()),
        flags.host_id(target=first, debug=True, extra_flags=()),
        flags.host_id(target=first, debug=False, extra_flags=("-a", "-b")),
        flags.host_id(target=first, debug=False, extra_flags=("-a -b",)),
    ]
    assert len(set(texts)) == len(texts)


# --- Messages of compilers ---


def test_a_mistake_is_shown_at_its_place(compiler: host.HostCompiler, tmp_path: Path) -> None:
    (tmp_path / "h.h").write_text("// one\ninline int f() { int x = 0; return not_there + x; }\n")
    (tmp_path / "a.cc").write_text('#include "h.h"\n')
    _, done = _run(compiler, tmp_path / "a.cc")
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    errors = [found for found in parse_diagnostics(done.output) if found.severity == "error"]
    assert [(found.file, found.line, found.column) for found in errors] == [(str(tmp_path / "h.h"), 2, 36)]
    assert "not_there" in errors[0].message


def test_the_clock_is_refused(compiler: host.HostCompiler, tmp_path: Path) -> None:
    (tmp_path / "a.cc").write_text("const char* when() { return __DATE__ __TIME__; }\n")
    _, done = _run(compiler, tmp_path / "a.cc")
    assert done.exit_code == 1
    assert parse_diagnostics(done.output)[0].severity == "error"


def test_projects_are_warned_and_systems_are_not(compiler: host.HostCompiler, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.mkdir()
    (headers / "h.h").write_text("static int idle(int x) { return 1; }\n")
    (tmp_path / "a.cc").write_text("#include <h.h>\n")
    _, done = _run(compiler, tmp_path / "a.cc", system_include_dirs=[headers])
    assert done.output == ""
    _, done = _run(compiler, tmp_path / "a.cc", include_dirs=[headers])
    found = parse_diagnostics(done.output)
    assert {(each.file, each.line, each.severity) for each in found} == {(str(headers / "h.h"), 1, "warning")}


def test_the_rule_names_all_that_is_read(compiler: host.HostCompiler, tmp_path: Path) -> None:
    directory = tmp_path / "a b$c#d"
    directory.mkdir()
    (directory / "used.h").write_text("#include <cstddef>\n")
    (directory / "not-used.h").write_text("")
    source = directory / "a.cc"
    source.write_text('#ifdef YES\n#include "used.h"\n#else\n#include "not-used.h"\n#endif\n')
    found = read_by(compiler, source, tmp_path, target=_TARGET, extra_flags=["-DYES=1"])
    assert {source, directory / "used.h"} <= set(found)
    assert directory / "not-used.h" not in found
    assert "cstddef" in {path.name for path in found}


# --- Zig ---


def test_zig_keeps_its_library_where_it_lasts(tmp_path: Path) -> None:
    toolchain = host.HostCompiler(("/zig", "c++"), "zig", "/bin")
    work, memo = tmp_path / "work", tmp_path / "memo"
    memo.mkdir()
    assert toolchain.environment(work, memo)["ZIG_GLOBAL_CACHE_DIR"] == str(memo / "zig")
    assert toolchain.environment(work, tmp_path / "absent")["ZIG_GLOBAL_CACHE_DIR"] == str(work / "zig")
    assert toolchain.environment(work)["ZIG_LOCAL_CACHE_DIR"] == str(work / "zig-local")


@pytest.mark.long
def test_zig_makes_portable_equal_objects(zig: tuple[host.HostCompiler, Path], tmp_path: Path) -> None:
    toolchain, memo = zig
    first, second = _in_places(toolchain, tmp_path, mapped=True, memo=memo)
    assert first == second
    assert os.fsencode(Path(toolchain.command[0]).parent) not in first
    path = tmp_path / "one" / "work" / "out.so"
    assert ctypes.CDLL(str(path)).size() == 4
    assert _glibc(path) <= (2, 17)
    # Its linker cannot hide the C++ library's operators new and delete.
    assert {name for name in _exports(path) if not name.startswith(("_Zn", "_Zd"))} == {"here", "there", "size"}
