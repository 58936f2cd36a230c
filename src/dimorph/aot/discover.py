"""Finds the kernels that a module or file declares."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from dimorph.declare.declaration import Declaration
from dimorph.errors import DeclarationError


def load_kernels(spec: str) -> list[Declaration]:
    """The kernels at the module level of `PACKAGE_OR_FILE[:KERNEL]`, in the order in which it binds them.

    The module is imported, so its code runs. A file in a package is imported as that package's module, so that its
    relative imports work; any other file as Python would run it, with its directory searched for what it imports,
    but under a private name.

    Args:
        spec: an importable module (`mypkg.kernels`) or the path of a Python file; then, after a colon, the name of
            one kernel, or of the variable that holds it.

    Raises:
        DeclarationError: there is no such module, file or kernel; the message names it and what there is.
        Exception: whatever the module raises when it is imported.
    """
    place, name = _split(spec)
    module = _import_file(Path(place)) if _is_file(place) else _import_module(place)
    bound = [(variable, value) for variable, value in vars(module).items() if isinstance(value, Declaration)]
    found = list(dict.fromkeys(kernel for _, kernel in bound))
    if not found:
        raise DeclarationError(f"{place}: no dimorph.Kernel at its module level")
    declared = [(kernel.origin, kernel.name) for kernel in found]
    if twice := [f"{origin}:{kernel}" for origin, kernel in declared if declared.count((origin, kernel)) > 1]:
        raise DeclarationError(f"{place}: two kernels are called {twice[0]}; manifests tell them by their names")
    if name is None:
        return found
    asked = list(dict.fromkeys(kernel for variable, kernel in bound if name in (variable, kernel.name)))
    if not asked:
        there = ", ".join(kernel.name for kernel in found)
        raise DeclarationError(f"{place}: no kernel is called {name!r}; there are: {there}")
    return asked


def _split(spec: str) -> tuple[str, str | None]:
    place, colon, name = spec.rpartition(":")
    # A colon in a directory's name is no separator.
    if colon and name.isidentifier():
        return place, name
    return spec, None


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _import_module(name: str) -> ModuleType:
    try:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name)
        # As `python -m` finds it.
        with _searched(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the module itself fails to import is its own business.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise DeclarationError(
            f"{name}: no module of this name can be imported ({error}); a file needs its path, ending in .py"
        ) from error


def _import_file(given: Path) -> ModuleType:
    path = given.resolve()
    if not path.is_file():
        raise DeclarationError(f"{given}: there is no such file")
    root, parts = path.parent, [] if path.name == "__init__.py" else [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    with _searched(root):
        if len(parts) > 1 or path.name == "__init__.py":
            return _import_from_package(".".join(parts), path)
        return _execute(path)


def _import_from_package(name: str, path: Path) -> ModuleType:
    module = importlib.import_module(name)
    if Path(module.__file__ or "").resolve() != path:
        raise DeclarationError(
            f"{path}: as module {name} it is hidden by {module.__file__}; name the module, or another process"
        )
    return module


def _execute(path: Path) -> ModuleType:
    """Runs a file that is in no package, as a module under a name that nothing else has."""
    name = f"_dimorph_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _searched(directory: Path) -> Iterator[None]:
    """A directory first on the search path."""
    entry = str(directory)
    sys.path.insert(0, entry)
    # Directories that were listed before files came into them are listed anew.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)
