"""The dependencies of a kernel in the output of commands, and in the files that they write."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import dimorph as dm
from dimorph import settings
from dimorph.cli import ide
from dimorph.cli.commands import dimorph
from support.dependencies import ENTRY, headers, pc_file, probe, shared_library
from support.lsp import clangd
from support.store import tree

pytestmark = pytest.mark.usefixtures("fresh_dependencies")

LINKING = ENTRY.replace("#include <answer.h>", '#include <answer.h>\nextern "C" int linked();').replace(
    "return answer()", "return answer() + linked() + FROM_PC"
)
DECLARED = """\
import dimorph as dm
kernel = dm.Kernel("probe", case=[], dependencies=[dm.pkg_config("answer", install="apt-get install answer-dev")])
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dm.Kernel:
    """A kernel that includes and links a library, and its declaration in a file."""
    shared_library(tmp_path / "lib", "linked")
    flags = f"-I{headers(tmp_path)} -DFROM_PC=7"
    pc_file(tmp_path / "pc", "answer", version="1.5", cflags=flags, libs=f"-L{tmp_path}/lib -llinked")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(tmp_path / "pc"))
    made = probe(tmp_path / "kernel", dm.pkg_config("answer", install="apt-get install answer-dev"), entry=LINKING)
    (made.root / "declared.py").write_text(DECLARED)
    return made


def explained(kernel: dm.Kernel) -> str:
    result = CliRunner().invoke(dimorph, ["explain", str(kernel.origin)])
    assert result.exit_code in (0, 1), result.output
    return result.output


def test_explain_names_them(kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "would be compiled by" in explained(kernel)
    assert kernel.load().probe() == 9
    before = tree(tmp_path)
    assert "with answer 1.5; needs answer 1.5 (liblinked.so.1, bundled)" in explained(kernel)
    assert tree(tmp_path) == before
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PKG_CONFIG_PATH", "")
    assert "fails: the library answer is missing" in (said := explained(kernel))
    assert "Install it: apt-get install answer-dev" in said


def test_an_editor_finds_them(kernel: dm.Kernel) -> None:
    written = ide.write(kernel.instantiations(), kernel.root, settings.current())
    with clangd(written.database.parent) as server:
        found = {file.name: server.diagnostics(file) for file in written.files}
    # This kernel has no axes, of which the config header would tell.
    assert found == {"probe.cc": ["2: Included header probe_config.h is not used directly (fix available)"]}


def test_doctor_knows_the_programs_that_find_them() -> None:
    shown = CliRunner().invoke(dimorph, ["doctor"]).output
    for program in ("pkg-config", "cmake"):
        assert f" {program} " in shown
