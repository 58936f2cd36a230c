"""Copies of the skeleton example, in which tests plant mistakes, or which they build, debug and open in an editor."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import dimorph as dm
from support.paths import EXAMPLES

SKELETON = EXAMPLES / "skeleton"


def copy_skeleton(directory: Path) -> Path:
    """Copy the skeleton into a new directory in `directory` and return the directory of its sources."""
    root = directory / "skeleton"
    shutil.copytree(SKELETON, root, ignore=shutil.ignore_patterns("__pycache__", ".dimorph", "compile_commands.json"))
    return root


def declared(root: Path) -> dm.Kernel:
    """Return the kernel that the copy in `root` declares."""
    spec = importlib.util.spec_from_file_location(f"skeleton_{abs(hash(root))}", root / "skeleton.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel: dm.Kernel = module.affine
    return kernel


def replace(file: Path, old: str, new: str) -> int:
    """Replace the only occurrence of `old` in a file and return the number of its line, from 1."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
    file.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def line_of(file: Path, text: str) -> int:
    """Return the number of the only line that contains `text`, from 1."""
    return replace(file, text, text)
