"""Make a new project from the files of `template/`: a package with one kernel, its tests, benchmark, CI and wheel.

The templates are projects that work as they are, under the name `my_kernel`: tests run them, and linters read them. A
project is a copy with another name in that place. A template library would make files of another language out of them,
which no tool reads, for the sake of one replacement.
"""

from __future__ import annotations

import ctypes
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from dimorph.declare.names import cpp_name_problem, python_name_problem
from dimorph.errors import DimorphError

TEMPLATE = Path(__file__).parent / "template"
PLACEHOLDER = "my_kernel"
# With a longer name, lines of the project would exceed the width that its linter allows.
_LONGEST = 40

# Sources, whose words cannot be the name of a kernel too.
_CODE = {".cc", ".cu", ".h", ".py"}
_DIRECTORIES = {"build", "dist", "src", "benchmark"}
_TAKEN = sys.stdlib_module_names | {"dimorph", "numpy", "pytest", "torch"}


def name_problem(name: str, *, cuda: bool) -> str:
    """Return why a project cannot have a name, which is that of its package and kernel too; empty if it can."""
    if problem := cpp_name_problem(name) or python_name_problem(name):
        return problem
    code = [text.replace(PLACEHOLDER, "") for file, text in _files(cuda) if file.suffix in _CODE]
    if name.strip("_") != name or "__" in name:
        problem = "cannot be the name of a distribution: begin and end it with a letter or digit, no __ inside"
    elif name != name.lower() or len(name) > _LONGEST:
        problem = f"cannot be the name of a project: expected at most {_LONGEST} characters and no capital letters"
    elif name in _TAKEN:
        problem = "is the name of a module that every project needs: choose another name"
    elif name in _DIRECTORIES or name.startswith("test"):
        problem = "is a directory or a test of every project: choose another name"
    elif name in packages_distributions():
        problem = "is the name of an installed module: choose another name"
    elif hasattr(ctypes.CDLL(None), name):
        problem = "is a function of the C library: choose another name"
    elif any(re.search(rf"\b{name}\b", text) for text in code):
        problem = "is a word in the sources of a new project: choose another name"
    return f"{name!r} {problem}" if problem else ""


def create(name: str, parent: Path, *, cuda: bool) -> list[Path]:
    """Make the directory `name` in `parent`, which appears with all its files or not at all; return the files.

    Args:
        name: the name of the project, its package and its kernel, without a problem (see `name_problem`).
        parent: an existing directory.
        cuda: make a kernel for the GPU.

    Raises:
        DimorphError: there is a file of that name, or a directory that is not empty.
        OSError: the files cannot be written.
    """
    project = (parent / name).resolve()
    if project.exists() and (not project.is_dir() or any(project.iterdir())):
        raise DimorphError(f"{project}: expected a new name or an empty directory; nothing was written")
    with tempfile.TemporaryDirectory(dir=project.parent, prefix=f".{name}-") as work:
        made = Path(work, name)
        made.mkdir()  # with the permissions of any new directory, which those of `work` are not
        for file, text in _files(cuda):
            written = made / str(file).replace(PLACEHOLDER, name)
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(text.replace(PLACEHOLDER, name), "utf-8")
        files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
        made.replace(project)
    return [project / file for file in files]


def _files(cuda: bool) -> Iterator[tuple[Path, str]]:
    """Yield the relative path and the text of each file of a template."""
    for part in ("common", "cuda" if cuda else "cpu"):
        for path in sorted((TEMPLATE / part).rglob("*")):
            file = path.relative_to(TEMPLATE / part)
            # Installers leave __pycache__ beside Python files, and linters caches where a pyproject.toml is.
            if path.is_file() and "cache" not in str(file):
                yield file, path.read_text("utf-8")
