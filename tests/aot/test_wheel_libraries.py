"""Wheels of kernels that link libraries of others: with a copy of zlib, with the system's, with that of a package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from support.dependencies import has_pkg_config, python_package, shared_library
from support.paths import EXAMPLES
from support.wheels import Environment, build_wheel, environment_with

pytestmark = pytest.mark.skipif(
    not has_pkg_config("zlib"), reason="needs pkg-config and zlib: apt-get install pkg-config zlib1g-dev"
)

LEVEL = {"x86_64": "x86-64-v2", "aarch64": "armv8"}[os.uname().machine]
PROJECT = f"""\
[build-system]
requires = ["dimorph[wheel]", "hatchling"]
build-backend = "dimorph.wheel"

[project]
name = "checksums"
version = "1.0"
requires-python = ">=3.10"
dependencies = ["dimorph"]

[tool.dimorph]
backend = "hatchling.build"
kernels = ["checksums.crc"]
targets = ["{LEVEL}"]
"""


def project(place: Path, **changes: str) -> Path:
    """Write a project whose package is the example, with texts of its declaration replaced."""
    package = place / "project" / "checksums"
    shutil.copytree(EXAMPLES / "library", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    (package.parent / "pyproject.toml").write_text(PROJECT)
    declared = package / "crc.py"
    for old, new in changes.items():
        assert old in declared.read_text()
        declared.write_text(declared.read_text().replace(old, new))
    return package.parent


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundled")
    return build_wheel(project(place), place / "store")


@pytest.fixture(scope="module")
def environment(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_with(tmp_path_factory.mktemp("environment"), bundled)


RUN = """
import json, sys, zlib
import numpy as np
from checksums.crc import crc
rows, sums = np.arange(64, dtype=np.uint8).reshape(4, 16), np.empty(4, np.int64)
module = crc.load()
module.crc(rows, sums)
loaded = {line.split()[-1] for line in open("/proc/self/maps") if "libz.so" in line}
places = sorted({one.place.partition(" (")[0] for one in module.resolutions})
right = sums.tolist() == [zlib.crc32(row.tobytes()) for row in rows]
print(json.dumps({"right": right, "loaded": sorted(loaded), "places": places}))
"""


@pytest.mark.parametrize("policy", ["aot", "auto"])
def test_it_runs_without_a_compiler_and_writes_nothing(policy: str, environment: Environment) -> None:
    before = environment.tree()
    result = environment.run(RUN, DIMORPH_POLICY=policy)
    assert result["right"]
    assert result["places"] == ["packaged"]
    assert any(str(environment.packages) in path for path in result["loaded"]), result
    assert environment.tree() == before
    assert not (environment.root / "no-home").exists()


def test_auditwheel_agrees(bundled: Path) -> None:
    tag = re.search(r"manylinux_2_(\d+)_", bundled.name)
    assert tag, bundled.name
    command = [sys.executable, "-m", "auditwheel", "show", str(bundled)]
    shown = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    match = re.search(r'following platform tag: "manylinux_2_(\d+)_\w+"', shown)
    assert match, shown
    policies = (5, 12, 17, 24, 26, 27, 28, 31, *range(34, 100))
    assert int(match[1]) <= min(policy for policy in policies if policy >= int(tag[1]))
    with ZipFile(bundled) as archive:
        names = [name for name in archive.namelist() if "libz.so" in name]
        (listed,) = json.loads(archive.read("checksums/_dimorph/manifest.json"))["libraries"]
    assert len(names) == 1  # the entry needs none
    assert re.fullmatch(r"zlib [\d.]+ \(libz\.so\.1, bundled\)", listed)


def test_the_same_sources_make_the_same_bytes(bundled: Path, tmp_path: Path) -> None:
    again = build_wheel(project(tmp_path), tmp_path / "store")
    assert again.name == bundled.name
    assert again.read_bytes() == bundled.read_bytes()


def test_a_library_of_the_system_is_no_manylinux(tmp_path: Path) -> None:
    made = build_wheel(project(tmp_path, **{", bundle=True": ""}), tmp_path / "store")
    assert made.name == f"checksums-1.0-py3-none-linux_{os.uname().machine}.whl"
    with ZipFile(made) as archive:
        assert not [name for name in archive.namelist() if "libz.so" in name]
        (listed,) = json.loads(archive.read("checksums/_dimorph/manifest.json"))["libraries"]
    assert re.fullmatch(r"zlib [\d.]+ \(libz\.so\.1, system\)", listed)


def test_a_library_of_a_package_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = python_package(tmp_path / "site", "crc_cpp", "2.0", {})
    shared_library(site / "crc_cpp", "crc32_z", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(site)]))
    ours = 'dm.pkg_config("zlib", at_least="1.2", bundle=True, install="apt-get install zlib1g-dev")'
    root = project(tmp_path, **{ours: 'dm.python_package("crc-cpp", libraries=["crc_cpp/libcrc32_z.so.1"])'})
    case = root / "checksums" / "crc_case.cc"
    declared = 'using z_size_t = size_t;\nextern "C" int crc32_z(int, const uint8_t*, size_t);'
    text = case.read_text().replace("#include <zlib.h>\n\n", "")
    case.write_text(text.replace('#include "crc_config.h"', f'#include "crc_config.h"\n{declared}'))
    needs = r"needs libcrc32_z\.so\.1 of the Python package crc-cpp where it runs: add the package"
    with pytest.raises(AssertionError, match=needs):
        build_wheel(root, tmp_path / "store")
    settings = root / "pyproject.toml"
    settings.write_text(settings.read_text().replace('["dimorph"]\n', '["dimorph", "CRC_cpp>1"]\n'))
    made = build_wheel(root, tmp_path / "store")
    assert made.name == f"checksums-1.0-py3-none-linux_{os.uname().machine}.whl"
    with ZipFile(made) as archive:
        (listed,) = json.loads(archive.read("checksums/_dimorph/manifest.json"))["libraries"]
        assert str(tmp_path).encode() not in b"".join(archive.read(name) for name in archive.namelist())
    assert listed == "crc-cpp 2.0 (libcrc32_z.so.1, required)"
