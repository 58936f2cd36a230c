"""Finding the kernels that a module or a file declares."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import aot
from support.paths import ROWMATH


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A file that declares two kernels, in no package."""
    declaration = ROWMATH / "src" / "rowmath" / "kernels.py"
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(declaration, root)
    return root


def test_a_file_is_loaded_with_its_neighbours_and_its_own_path(project: Path) -> None:
    (project / "neighbour.py").write_text("WIDTHS = [64]\n")
    declaration = project / "kernels.py"
    declaration.write_text(declaration.read_text().replace("[64, 128]", "WIDTHS"))
    declaration.write_text("from neighbour import WIDTHS\n" + declaration.read_text())
    found = aot.load_kernels(str(declaration))
    assert [kernel.name for kernel in found] == ["rms_norm", "row_dot"]
    assert found[0].axes[1].values == (64,)
    assert {(kernel.origin, kernel.root) for kernel in found} == {(declaration, project)}


def test_a_file_in_a_package_is_loaded_as_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "aot_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("NAME = 'one'\n")
    (package / "inner" / "__init__.py").write_text("")
    text = "import dimorph as dm\nfrom .. import NAME\none = two = dm.Kernel(NAME, 'one.cc')\n"
    (package / "inner" / "kernels.py").write_text(text)
    (by_file,) = aot.load_kernels(str(package / "inner" / "kernels.py"))
    assert by_file.name == "one"
    assert by_file.root == package / "inner"
    monkeypatch.syspath_prepend(tmp_path)
    assert aot.load_kernels("aot_package.inner.kernels") == [by_file]
    assert aot.load_kernels("aot_package.inner.kernels:two") == [by_file]


def test_a_module_in_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package_here"
    package.mkdir()
    (package / "kernels.py").write_text("import dimorph as dm\none = dm.Kernel('one', 'one.cc')\n")
    monkeypatch.chdir(tmp_path)
    (found,) = aot.load_kernels("package_here.kernels")
    assert found.name == "one"


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("no_such_module_at_all", "no module of this name"),
        ("os.no_such_module", "no module of this name"),
        ("json", "no dimorph.Kernel"),
        ("{project}/no.py", "there is no such file"),
        ("{project}/kernels.py:softmax", "there are: rms_norm, row_dot"),
        ("{project}/twice.py", "two kernels are called"),
    ],
)
def test_what_cannot_be_found_is_named(spec: str, complaint: str, project: Path) -> None:
    (project / "twice.py").write_text("import dimorph as dm\na = dm.Kernel('k', 'k.cc')\nb = dm.Kernel('k', 'k.cc')\n")
    with pytest.raises(dm.DeclarationError, match=complaint):
        aot.load_kernels(spec.format(project=project))


def test_a_mistake_in_a_module_is_its_own_error(project: Path) -> None:
    (project / "broken.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        aot.load_kernels(str(project / "broken.py"))
