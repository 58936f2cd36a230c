"""The bill of materials of a store: everything that an artifact was made from, by name and checksum."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib, of the extra `sbom`, is not installed")

from dimorph import settings
from dimorph.aot import sbom
from dimorph.cli.commands import dimorph
from dimorph.errors import ArtifactCorrupt, DimorphError
from dimorph.store.artifact import Artifact
from dimorph.store.store import Store
from support.kernels import SCALE


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sbom")
    config = replace(settings.current(), store=root / "store")
    SCALE.build(root / "out", settings=config, targets=["x86-64-v3"], dtype="float32", width=7)
    return root / "out"


@pytest.fixture
def bill(built: Path) -> dict[str, Any]:
    done = CliRunner().invoke(dimorph, ["sbom", "--from", str(built)])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.output))


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {one["name"].removeprefix("dimorph:"): one["value"] for one in component.get("properties", ())}


def checksum(component: dict[str, Any]) -> str:
    (one,) = component["hashes"]
    assert (one["alg"], len(one["content"])) == ("SHA-256", 64)
    return str(one["content"])


def test_each_artifact_has_its_files_and_flags(bill: dict[str, Any], built: Path) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {one["bom-ref"]: one for one in bill["components"]}
    artifacts = [item for item in Store(built, private=False).entries() if isinstance(item, Artifact)]
    assert len(artifacts) == 2
    for artifact in artifacts:
        component = listed[f"{artifact.meta.key}/{artifact.meta.toolchain_id}"]
        assert component["type"] == "library"
        files = {one["name"]: checksum(one) for one in component["components"]}
        assert files == {name: record.sha256 for name, record in artifact.meta.files.items()}
        told = properties(component)
        assert (told["target"], told["axis:width"], told["key"]) == ("x86-64-v3", "7", artifact.meta.key)
        assert "-march=x86-64-v3" in told["flags"] or "x86-64-v3" in told["flags"]


def test_each_artifact_depends_on_what_it_was_made_from(bill: dict[str, Any]) -> None:
    listed = {one["bom-ref"]: one for one in bill["components"]}
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    (case,) = [one for one in bill["components"] if one["name"].startswith("scale case")]
    used = {listed[ref]["name"]: listed[ref] for ref in needs[case["bom-ref"]]}
    assert checksum(used["scale_case.cc"]) == hashlib.sha256((SCALE.root / "scale_case.cc").read_bytes()).hexdigest()
    assert "scale.cc" not in used
    assert len(properties(used["dimorph/case.h"])["sha256-without-comments"]) == 64
    assert "hashes" not in used["dimorph/case.h"]
    (compiler,) = [one for one in used.values() if one["type"] == "application"]
    assert compiler["version"] == case["bom-ref"].rpartition("/")[2]
    system = [one for name, one in used.items() if name.startswith("/usr/")]
    assert system
    read = next(one for one in system if one["name"].endswith(".h"))
    assert checksum(read) == hashlib.sha256(Path(read["name"]).read_bytes()).hexdigest()


def test_equal_stores_have_equal_bills(built: Path) -> None:
    store = Store(built, writable=False, private=False)
    assert sbom.describe(store) == sbom.describe(store)


def test_an_empty_store(tmp_path: Path) -> None:
    assert json.loads(sbom.describe(Store(tmp_path / "none", writable=False))).get("components", []) == []


def test_a_spoiled_artifact_is_refused(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    file = next(copy.rglob("case.so"))
    file.chmod(0o644)
    file.write_bytes(b"spoiled")
    with pytest.raises(ArtifactCorrupt, match=r"case\.so: expected"):
        sbom.describe(Store(copy, writable=False, private=False))


def test_a_missing_package_is_named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.output.json", None)
    with pytest.raises(DimorphError, match=r"pip install 'dimorph\[sbom\]'"):
        sbom.describe(Store(built, writable=False, private=False))
