"""The surroundings of builds and loads: compilers, flags, environments, paths; and the effects of an import."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from support.compilers import Compiler, counting_compiler
from support.kernels import KINDS, PICK, SCALE
from support.store import in_child

Copier = Callable[..., dm.Kernel]


@pytest.fixture
def kernel(copy_of: Copier) -> dm.Kernel:
    return copy_of(PICK)


def _use(kernel: dm.Kernel) -> int:
    """Run in a new process, which has nothing loaded yet."""
    return int(in_child(lambda: kernel.load(width=1, depth=2).pick(1, 2)))


def _checksums(kernel: dm.Kernel, **values: object) -> list[str]:
    module = kernel.load(**values)
    artifacts = [resolution.artifact for resolution in module.resolutions]
    return [artifact.meta.files[artifact.file.name].sha256 for artifact in artifacts]


# --- Compilers and flags ---


def test_a_compiler_that_is_replaced_builds_everything_anew(kernel: dm.Kernel, compiler: Compiler, store: Path) -> None:
    for _ in range(2):
        assert _use(kernel) == 1002
    assert len(compiler.compiled()) == 2
    with compiler.driver.open("a") as driver:
        driver.write("# version 2\n")
    for _ in range(2):
        assert _use(kernel) == 1002
    assert len(compiler.compiled()) == 4


def test_a_compiler_replaced_by_one_of_the_same_size_and_time_is_noticed(
    kernel: dm.Kernel, compiler: Compiler, tmp_path: Path
) -> None:
    """A package manager may replace a compiler and give its files the time stamps of the package."""
    with compiler.driver.open("a") as driver:
        driver.write("# version 1\n")
    assert _use(kernel) == 1002
    stamp = compiler.driver.stat()
    new = tmp_path / "new"
    new.write_text(compiler.driver.read_text().replace("# version 1", "# version 2"))
    new.chmod(0o755)
    os.utime(new, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    new.replace(compiler.driver)
    assert compiler.driver.stat().st_size == stamp.st_size
    assert _use(kernel) == 1002
    assert len(compiler.compiled()) == 4


def test_a_compiler_that_is_only_touched_or_moved_is_the_same(
    kernel: dm.Kernel, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _use(kernel) == 1002
    os.utime(compiler.driver, (1, 1))
    assert _use(kernel) == 1002
    moved = tmp_path / "elsewhere" / "counting-g++"
    moved.parent.mkdir()
    shutil.copy(compiler.driver, moved)
    monkeypatch.setenv("DIMORPH_CXX", str(moved))
    assert _use(kernel) == 1002
    assert len(compiler.compiled()) == 2


def test_flags_reach_the_compiler_and_are_kept_apart(kernel: dm.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    case = kernel.root / "pick_case.cc"
    case.write_text("#ifndef ADDED\n#define ADDED 0\n#endif\n" + case.read_text().replace("DEPTH;", "DEPTH + ADDED;"))
    for flags, answer in (("", 1002), ("-DADDED=500000", 501002), ("-DADDED=600000 -O1", 601002), ("", 1002)):
        monkeypatch.setenv("DIMORPH_CXXFLAGS", flags)
        assert _use(kernel) == answer
        assert kernel.load(width=1, depth=2).pick(1, 2) == answer, "in one process, too"


def test_the_environment_changes_neither_keys_nor_objects(
    copy_of: Copier, compiler: Compiler, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = copy_of(SCALE)
    values = {"dtype": "float32", "width": 7}
    before = _checksums(kernel, **values)
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("stdio.h", "stdint.h", "string.h", "stddef.h"):
        (evil / name).write_text("#error this header came from the environment\n")
    for name in ("as", "ld", "cc1plus", "collect2"):
        (evil / name).write_text("#!/bin/sh\nexit 9\n")
        (evil / name).chmod(0o755)
    environment = {
        **{name: str(evil) for name in ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "COMPILER_PATH")},
        **{name: str(evil) for name in ("LIBRARY_PATH", "LD_RUN_PATH", "OBJC_INCLUDE_PATH")},
        **{"GCC_EXEC_PREFIX": f"{evil}/", "DEPENDENCIES_OUTPUT": str(tmp_path / "written"), "LANG": "de_DE.UTF-8"},
        **{"CXXFLAGS": "-DWIDTH=1", "CPPFLAGS": "-DWIDTH=1", "SOURCE_DATE_EPOCH": "1", "TMPDIR": "/nonexistent"},
        **{"GCC_COLORS": "error=01;31", "LC_ALL": "tr_TR.UTF-8", "SUNPRO_DEPENDENCIES": str(tmp_path / "written")},
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _checksums(kernel, **values) == before
    count = len(compiler.compiled())
    assert count == 2, "the second load was a hit"
    shutil.rmtree(store)
    assert _checksums(kernel, **values) == before
    assert len(compiler.compiled()) == 4
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("original", [SCALE, KINDS], ids=lambda kernel: kernel.name)
def test_equal_sources_give_equal_objects_wherever_they_lie(
    copy_of: Copier, original: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(original.instantiations()))
    values = {axis.name: first[axis.name] for axis in original.axes if axis.choose is None}
    values = {name: value.name if isinstance(value, dm.Variant) else value for name, value in values.items()}
    found = []
    for number, place in enumerate(("one", "a much longer path/with blanks/two")):
        kernel = copy_of(original, place)
        monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / f"store{number}"))
        found.append(in_child(lambda kernel=kernel: _checksums(kernel, **values)))
    assert found[0] == found[1]


def test_a_source_edited_while_it_is_compiled_is_not_published(
    kernel: dm.Kernel, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler may have read either version of the sources, so its result belongs to no key."""
    case = kernel.root / "pick_case.cc"
    edit = f'case " $* " in *case_unit.cc*) echo "// later" >> {case};; esac'
    editing = counting_compiler(tmp_path, "editing-g++", before=edit)
    monkeypatch.setenv("DIMORPH_CXX", str(editing.driver))
    with pytest.raises(dm.BuildError, match=r"pick case .*sources changed while it was compiled"):
        kernel.load(width=1, depth=2)
    assert not [meta for meta in store.rglob("meta.json") if json.loads(meta.read_text())["kind"] == "case"]
    monkeypatch.delenv("DIMORPH_CXX")
    assert _use(kernel) == 1002


def test_a_path_that_needs_quoting_anywhere_is_just_a_path(
    copy_of: Copier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = 'it\'s "quoted" & $HOME; \u00e9\u4e2d #1, (x) %s'
    kernel = copy_of(PICK, place)
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / place / "store"))
    for debug in ("0", "1"):
        monkeypatch.setenv("DIMORPH_DEBUG", debug)
        assert kernel.load().pick(1, 2) == 1002
        assert kernel.load(width=1, depth=2).pick(1, 2) == 1002


def test_sources_in_directories_of_their_own_are_found(copy_of: Copier) -> None:
    original = copy_of(PICK)
    (original.root / "cases").mkdir()
    (original.root / "include").mkdir()
    (original.root / "pick_case.cc").rename(original.root / "cases" / "pick_case.cc")
    (original.root / "include" / "extra.h").write_text("constexpr int extra = 7000000;\n")
    case = original.root / "cases" / "pick_case.cc"
    case.write_text("#include <extra.h>\n" + case.read_text().replace("DEPTH;", "DEPTH + extra;"))
    kernel = copy_of(PICK, case=["cases/pick_case.cc"], include_dirs=["include"])
    assert kernel.load(width=1, depth=2).pick(1, 2) == 7001002


# --- Importing ---

WATCH = """
import sys, time
seen = []
def hook(event, args):
    if event in ("open", "socket.connect", "subprocess.Popen", "os.fork", "os.posix_spawn", "os.mkdir",
                 "ctypes.dlopen"):
        seen.append([event, str(args[0]), args[2] if event == "open" else 0])
sys.addaudithook(hook)
before = set(sys.modules)
started = time.process_time()
import dimorph
seconds = time.process_time() - started
modules = sorted(set(sys.modules) - before)
import json
print(json.dumps({"seen": seen, "seconds": seconds, "modules": modules}))
"""


def _import(**environment: str) -> dict[str, Any]:
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-c", WATCH], env=clean, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_an_import_touches_no_file_but_its_own_modules() -> None:
    found = _import(DIMORPH_POLICY="nonsense", DIMORPH_STORE="/nonexistent/store")
    package = Path(dm.__file__).parent
    standard = [Path(os.__file__).parent, *map(Path, sys.path[1:])]
    for event, path, flags in found["seen"]:
        if (event, path) == ("ctypes.dlopen", "None"):
            continue  # ctypes opens Python itself
        assert event == "open", (event, path)
        assert flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0, path
        assert Path(path).suffix in (".py", ".pyc", ".so"), path
        assert any(Path(path).is_relative_to(place) for place in (package, *standard)), path
    assert found["seen"], "the hook has seen the modules being read"


def test_an_import_brings_nothing_heavy_along() -> None:
    modules = {name.partition(".")[0] for name in _import()["modules"]}
    assert "dimorph" in modules
    heavy = {"torch", "numpy", "tvm_ffi", "asyncio", "click", "rich", "ml_dtypes", "multiprocessing"}
    # No modules that only a miss needs.
    heavy |= {"subprocess", "concurrent", "tempfile", "secrets", "random"}
    # No modules that tvm-ffi imports at every load.
    heavy |= {"datetime", "hashlib", "json", "shutil"}
    # No modules that only a message needs.
    heavy |= {"logging", "traceback"}
    assert not modules & heavy


def test_an_import_takes_less_than_100_ms(tmp_path: Path) -> None:
    """The best CPU time in a minute counts, because the machine may be busy and the first try writes bytecode."""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    seconds = []
    end = time.monotonic() + 60
    while not seconds or (min(seconds) >= 0.1 and time.monotonic() < end):
        seconds.append(_import(**kept)["seconds"])
    assert min(seconds) < 0.1


def test_a_declaration_needs_no_more_than_the_import(tmp_path: Path) -> None:
    """An import needs neither tvm-ffi nor a compiler nor the sources; only a load does."""
    script = (
        "import sys\nsys.modules['tvm_ffi'] = None\nimport dimorph as dm\n"
        "k = dm.Kernel(name='k', entry='nowhere.cc', case=['no.cc'], axes=[dm.int_axis('d', 'D', [1, 2])])\n"
        "print(k, list(k.instantiations()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert "nowhere.cc" in done.stdout
