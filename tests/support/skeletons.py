"""Copies of the skeleton example to plant mistakes in, and to build, debug and open in an editor."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import dimorph as dm
from support.paths import EXAMPLES

SKELETON = EXAMPLES / "skeleton"


def copy_skeleton(directory: Path) -> Path:
    """A copy of the skeleton in a new directory of `directory`; the directory of its sources."""
    root = directory / "skeleton"
    shutil.copytree(SKELETON, root, ignore=shutil.ignore_patterns("__pycache__", ".dimorph", "compile_commands.json"))
    return root


def declared(root: Path) -> dm.Kernel:
    """The kernel that the copy in `root` declares."""
    spec = importlib.util.spec_from_file_location(f"skeleton_{abs(hash(root))}", root / "skeleton.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel: dm.Kernel = module.affine
    return kernel


def replace(file: Path, old: str, new: str) -> int:
    """Replaces the one place in a file that reads `old`; the number of its line, from 1."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
    file.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def line_of(file: Path, text: str) -> int:
    """The number of the one line that holds `text`, from 1."""
    return replace(file, text, text)
