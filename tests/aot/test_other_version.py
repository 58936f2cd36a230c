"""Artifacts that another version of Dimorph built: their keys are others, and the message says why and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import aot
from dimorph.plan import key
from dimorph.store import manifest
from dimorph.store.layers import PACKAGED
from support.kernels import PICK

OTHER = f"built by Dimorph 9.8.7, and this is {dm.__version__}: install 9.8.7, or build it again with {dm.__version__}"


@pytest.fixture
def kernel(copy_of: Callable[..., dm.Kernel], monkeypatch: pytest.MonkeyPatch) -> dm.Kernel:
    """A kernel whose package was built by another version, whose artifacts have another format."""
    kernel = copy_of(PICK)
    with monkeypatch.context() as other:
        other.setattr(manifest, "VERSION", "9.8.7")
        other.setattr(key, "FORMAT_VERSION", 99)
        kernel.build(width=1, depth=1)
    return kernel


def test_a_load_names_both_versions(kernel: dm.Kernel) -> None:
    with pytest.raises(dm.MissingSpecialization, match=re.escape(OTHER)):
        kernel.load(policy="aot", width=1, depth=1)
    module = kernel.load(width=1, depth=1)
    assert any(OTHER in reason for one in module.resolutions for reason in one.passed)
    assert module.pick(1, 1) == 1001


def test_a_shared_store_names_both_versions(kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    (kernel.root / PACKAGED).rename(shared)
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(shared))
    with pytest.raises(dm.MissingSpecialization, match=re.escape(f"{shared}): {OTHER}")):
        kernel.load(policy="aot", width=1, depth=1)


def test_a_manifest_of_another_format_names_both_versions(kernel: dm.Kernel) -> None:
    file = kernel.root / PACKAGED / manifest.NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": manifest.FORMAT + 1}))
    for use in (kernel.build, lambda: aot.verify([kernel], file.parent)):
        with pytest.raises(dm.ArtifactCorrupt, match=re.escape(f"got {manifest.FORMAT + 1}; {OTHER}")):
            use()
    with pytest.raises(dm.MissingSpecialization, match=re.escape(OTHER)):
        kernel.load(policy="aot", width=1, depth=1)


def test_a_build_with_this_version_mends_it(kernel: dm.Kernel) -> None:
    kernel.build(width=1, depth=1)
    assert kernel.load(policy="aot", width=1, depth=1).pick(1, 1) == 1001


@pytest.mark.parametrize("text", ["", "{", "[]", '{"dimorph": 1, "format": 3}', '{"dimorph": null}'])
def test_a_damaged_manifest_says_nothing_of_versions_that_it_has_not(kernel: dm.Kernel, text: str) -> None:
    (kernel.root / PACKAGED / manifest.NAME).write_text(text)
    with pytest.raises(dm.MissingSpecialization) as caught:
        kernel.load(policy="aot", width=1, depth=1)
    assert "9.8.7" not in str(caught.value)


def test_the_version_of_the_project_is_that_of_the_package() -> None:
    project = Path(dm.__file__).parents[2] / "pyproject.toml"
    assert f'version = "{dm.__version__}"' in project.read_text()
