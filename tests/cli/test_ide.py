"""clangd, as an editor runs it, understands entry, cases and headers in either form, and reports real mistakes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.attention.kernels import attention_cpu, attention_sm80, attention_sm90, paged_sm90
from dimorph.cli import ide
from dimorph.errors import ToolchainError
from dimorph.source.config_header import config_header
from dimorph.toolchain import cuda, host
from support.cuda import EXAMPLE, RMS
from support.lsp import CLANGD, clangd
from support.skeletons import copy_skeleton, declared, replace

JIT: dict[str, Any] = {"dtype": "float32", "head_dim": 128}
AOT: dict[str, Any] = {}
MODES = pytest.mark.parametrize("values", [JIT, AOT], ids=["jit", "aot"])


def _write(root: Path, values: dict[str, Any], kernel: dm.Kernel | None = None) -> ide.Written:
    return ide.write((kernel or declared(root)).instantiations(**values), root, settings.current())


def _diagnostics(written: ide.Written) -> dict[str, list[str]]:
    """File name -> what an editor underlines in it, for every file that was written for."""
    with clangd(written.database.parent) as server:
        return {file.name: server.diagnostics(file) for file in written.files}


@MODES
def test_entry_case_and_headers_open_without_diagnostics(values: dict[str, Any], root: Path) -> None:
    written = _write(root, values)
    assert _diagnostics(written) == {"affine.cc": [], "affine_case.cc": [], "scale.h": []}
    assert [file.parent for file in written.files] == [root] * 3


@MODES
@pytest.mark.parametrize("name", ["affine.cc", "affine_case.cc", "scale.h"])
def test_clangds_own_check_agrees(values: dict[str, Any], name: str, root: Path) -> None:
    _write(root, values)
    command = [str(CLANGD), f"--check={root / name}", f"--compile-commands-dir={root}", "--check-locations=false"]
    done = subprocess.run(command, cwd=root.parent, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "All checks completed, 0 errors" in done.stderr


@MODES
@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("affine.cc", "x.expect({rows", "x.expects({rows", "'expects'"),
        ("affine.cc", "DISPATCH_head_dim(x.size(1)", "DISPATCH_head_dim(x.length(1)", "'length'"),
        ("affine_case.cc", "DType sum = 0;", "DType sum = 0, never_used = 0;", "never_used"),
        ("affine_case.cc", "sum / HEAD_DIM", "sum / HEAD_DIMENSION", "'HEAD_DIMENSION'"),
        ("scale.h", "return value * scale; }", "return value * scales; }", "'scales'"),
    ],
)
def test_planted_mistakes_are_reported(
    values: dict[str, Any], name: str, old: str, new: str, complaint: str, root: Path
) -> None:
    line = replace(root / name, old, new)
    found = _diagnostics(_write(root, values))
    assert any(text.startswith(f"{line}: ") and complaint in text for text in found[name]), found
    del found[name]
    # Every other file is understood as before.
    assert not any("undeclared" in text or "unknown" in text for texts in found.values() for text in texts)


@pytest.mark.parametrize(
    "kernel", [attention_cpu, attention_sm80, attention_sm90, paged_sm90], ids=lambda kernel: kernel.name
)
def test_attentions_files_open_without_diagnostics(kernel: dm.Kernel, tmp_path: Path) -> None:
    written = ide.write(kernel.instantiations(), tmp_path, settings.current())
    with clangd(tmp_path, f"--compile-commands-dir={tmp_path}") as server:
        found = {file.relative_to(kernel.root.parent).as_posix(): server.diagnostics(file) for file in written.files}
    assert {f"csrc/{name}" for name in (kernel.entry, *kernel.case)} <= found.keys()
    # Without a CUDA toolkit device sources are left out.
    assert cuda.toolkit(settings.current()) is None or {f"csrc/{name}" for name in kernel.device} <= found.keys()
    assert not any(found.values()), found


def test_a_mistake_of_one_combination_shows_for_that_combination(root: Path) -> None:
    planted = 'static_assert(HEAD_DIM != 256, "too wide");'
    line = replace(root / "affine_case.cc", "struct Params :", f"{planted}\nstruct Params :")
    assert _diagnostics(_write(root, JIT))["affine_case.cc"] == []
    found = _diagnostics(_write(root, {"dtype": "float32", "head_dim": 256}))["affine_case.cc"]
    assert any(text.startswith(f"{line}: ") and "too wide" in text for text in found)


@MODES
def test_each_unit_gets_its_own_config_header(values: dict[str, Any], root: Path) -> None:
    kernel = declared(root)
    written = _write(root, values, kernel)
    instantiations = kernel.instantiations(**values)
    first = kernel.instantiations(**next(iter(instantiations)).texts())
    headers = {path.parent.name: path.read_text() for path in root.rglob("affine_config.h")}
    assert headers == {"entry": config_header(instantiations, "entry"), "case-Scale": config_header(first, "case")}
    commands = {entry["file"]: entry["arguments"] for entry in json.loads(written.database.read_text())}
    for name, unit in (("affine.cc", "entry"), ("affine_case.cc", "case-Scale"), ("scale.h", "case-Scale")):
        generated = next(word for word in commands[str(root / name)] if word.startswith("-I"))
        assert Path(generated.removeprefix("-I"), "affine_config.h").read_text() == headers[unit]


@MODES
def test_a_header_is_read_by_itself(values: dict[str, Any], root: Path) -> None:
    """It has every constant of the config header that it includes, and nothing that its includer included before."""
    case = root / "affine_case.cc"
    replace(case, '#include "affine_config.h"\n', '#include "affine_config.h"\n#include "parts/outer.h"\n')
    (root / "parts").mkdir()
    (root / "parts" / "outer.h").write_text(
        "#ifndef OUTER_H\n#define OUTER_H\n#include <stdint.h>\n\n"
        '#include "affine_config.h"\n#include "inner.h"\n'
        "namespace DIMORPH_CASE {\ninline int64_t outer() { return inner() + HEAD_DIM; }\n}\n#endif\n"
    )
    inner = root / "parts" / "inner.h"
    inner.write_text(
        '#pragma once\n#include <stdint.h>\n\n#include "affine_config.h"\nnamespace DIMORPH_CASE {\n'
        "inline int64_t inner() { return int64_t(sizeof(DType)) * HEAD_DIM; }\n}\n"
    )
    replace(case, "DType sum = 0;", "DType sum = DType(outer() - outer());")
    found = _diagnostics(_write(root, values))
    assert sorted(found) == ["affine.cc", "affine_case.cc", "inner.h", "outer.h", "scale.h"]
    assert not any(found.values()), found
    replace(inner, '#include "affine_config.h"\n', "\n")
    found = _diagnostics(_write(root, values))
    assert any(text.startswith("6: ") and "HEAD_DIM" in text for text in found["inner.h"]), found
    assert not found["outer.h"] and not found["affine_case.cc"]


def test_every_variants_header_opens(root: Path) -> None:
    (root / "shift.h").write_text(
        '#pragma once\n#include "affine_config.h"\n\ntemplate <typename Params>\nstruct Shift {\n'
        "  using Element = typename Params::Element;\n"
        "  Element by;\n"
        "  explicit Shift(const Params& params) : by(static_cast<Element>(params.by)) {}\n"
        "  Element transform(Element value, int column) const { return value + by * column / HEAD_DIM; }\n};\n"
    )
    shift = dm.Variant("Shift", header="shift.h", params=(dm.scalar("by"),), root=root)
    kernel = declared(root)
    *others, slot = kernel.axes
    values = (*slot.values, shift)
    several = dataclasses.replace(kernel, axes=(*others, dataclasses.replace(slot, values=values)))
    found = _diagnostics(_write(root, AOT, several))
    assert found["scale.h"] == [] and found["shift.h"] == [] and found["affine_case.cc"] == []
    # The entry lacks a dispatch for the slot that now has two values: a real mistake.
    assert any("AFFINE_VARIANT" in text for text in found["affine.cc"])


def test_every_case_source_opens(root: Path) -> None:
    text = (root / "affine_case.cc").read_text()
    start, cut = text.index("namespace DIMORPH_CASE"), text.index("void affine(")
    end = "}  // namespace DIMORPH_CASE\n"
    (root / "parts.h").write_text(
        "#pragma once\n" + text[:cut].replace("DType inverse_rms", "inline DType inverse_rms") + end
    )
    (root / "affine_case.cc").write_text(text[:start] + '#include "parts.h"\n\nDIMORPH_CASE::Params unused;\n')
    (root / "affine_more.cc").write_text(
        text[:start] + '#include "parts.h"\n\nnamespace DIMORPH_CASE {\n\n' + text[cut:]
    )
    replace(root / "skeleton.py", 'name="affine",', 'name="affine", case=["affine_case.cc", "affine_more.cc"],')
    found = _diagnostics(_write(root, JIT))
    assert found["affine_more.cc"] == [] and found["affine_case.cc"] == []


@MODES
def test_entries_of_others_are_kept(values: dict[str, Any], root: Path) -> None:
    others = [
        {"directory": "/elsewhere", "file": "main.cpp", "command": "c++ -c main.cpp"},
        {
            "directory": str(root),
            "file": str(root / "affine.cc"),
            "arguments": ["c++", "-c", "affine.cc"],
            "output": "x",
        },
    ]
    (root / ide.DATABASE).write_text(json.dumps(others))
    written = _write(root, values)
    entries = json.loads(written.database.read_text())
    assert written.kept == 2 and entries[-2:] == others and len(entries) == 5
    # Ours comes first, and clangd takes the first.
    assert _diagnostics(written)["affine.cc"] == []


def test_repeating_changes_nothing_and_the_other_form_takes_the_place(root: Path) -> None:
    database = _write(root, AOT).database
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    _write(root, AOT)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    assert after == before
    assert _write(root, JIT).kept == 0
    assert len(json.loads(database.read_text())) == 3


def test_two_kernels_share_a_database(root: Path) -> None:
    other = root.parent / "other"
    root.rename(other)
    root = copy_skeleton(root.parent)
    for place in (root, other):
        ide.write(declared(place).instantiations(), root.parent, settings.current())
    entries = json.loads((root.parent / ide.DATABASE).read_text())
    assert sorted(Path(e["file"]).relative_to(root.parent).as_posix() for e in entries) == sorted(
        f"{place.name}/{name}" for place in (root, other) for name in ("affine.cc", "affine_case.cc", "scale.h")
    )


def test_a_linked_database_stays_a_link(root: Path) -> None:
    build = root / "build"
    build.mkdir()
    (build / ide.DATABASE).write_text("[]")
    (root / ide.DATABASE).symlink_to(build / ide.DATABASE)
    _write(root, AOT)
    assert (root / ide.DATABASE).is_symlink() and len(json.loads((build / ide.DATABASE).read_text())) == 3


@pytest.mark.parametrize("text", ["{not json", '{"a": 1}', "[1]"])
def test_a_database_that_is_none_is_left_alone(text: str, root: Path) -> None:
    (root / ide.DATABASE).write_text(text)
    with pytest.raises(dm.DimorphError, match=r"compile_commands\.json: expected .*; nothing was written"):
        _write(root, AOT)
    assert (root / ide.DATABASE).read_text() == text
    assert not (root / ".dimorph").exists()


def test_git_ignores_what_is_generated(root: Path) -> None:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    _write(root, AOT)
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=all"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "compile_commands.json" in listed and ".dimorph" not in listed


def test_the_project_is_the_nearest_directory_that_looks_like_one(root: Path) -> None:
    kernel = declared(root)
    (root.parent / "pyproject.toml").touch()
    assert ide.project_directory(kernel) == root.parent
    (root / ide.DATABASE).touch()
    assert ide.project_directory(kernel) == root


def test_without_a_compiler_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXX", "no-such-compiler")
    with pytest.raises(ToolchainError, match="no-such-compiler"):
        _write(root, AOT)


def test_zigs_headers_serve_where_zig_is_the_compiler(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXX", "zig")
    try:
        host.find(settings.current())
    except ToolchainError as error:
        pytest.skip(str(error))
    case = root / "affine_case.cc"
    replace(case, '#include "affine_config.h"', '#include <initializer_list>\n\n#include "affine_config.h"')
    replace(case, "DType sum = 0;", "DType sum = std::initializer_list<DType>{0}.size();")
    written = _write(root, JIT)
    assert "libcxx" in written.database.read_text()
    assert not any(_diagnostics(written).values())


@pytest.mark.skipif(cuda.toolkit(settings.current()) is None, reason="no CUDA toolkit, whose headers an editor needs")
def test_device_sources_open_without_diagnostics(tmp_path: Path) -> None:
    example = tmp_path / "cuda"
    shutil.copytree(EXAMPLE.parent, example, ignore=shutil.ignore_patterns("__pycache__"))
    kernel = dataclasses.replace(RMS, root=example, origin=example / "rms.py")
    written = _write(example, {"dtype": "float16", "width": 1024}, kernel)
    assert {file.name for file in written.files} == {"rms.cc", "rms_case.cc", "rms.cu", "rms_params.h"}
    found = _diagnostics(written)
    assert not any(found.values()), found
    line = replace(example / "rms.cu", "params.epsilon", "params.epsilom")
    assert any(text.startswith(f"{line}: ") and "epsilom" in text for text in _diagnostics(written)["rms.cu"])
