"""Find the kernels that a module or file declares."""

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
from typing import TypeVar

from dimorph._lazy import logger
from dimorph.declare.declaration import Declaration
from dimorph.declare.reference import Made, Reference, made_variant
from dimorph.declare.variant import Variant
from dimorph.errors import DeclarationError, MissingSpecialization

_log = logger("dimorph")
_T = TypeVar("_T", Declaration, Variant)


def load_kernels(spec: str) -> list[Declaration]:
    """Import `PACKAGE_OR_FILE[:KERNEL]` and return the kernels at its module level, in the order of its variables.

    The code of the module runs. A file in a package is imported as a module of that package, so that its relative
    imports work. Any other file is run under a private module name, with its directory first on the import path.

    Args:
        spec: an importable module (`mypkg.kernels`) or the path of a Python file, optionally followed by a colon and
            the name of one kernel, or of the variable that holds it.

    Raises:
        DeclarationError: there is no such module, file or kernel, or it declares none, or two of one name.
        Exception: any other exception that the module raises during its import. After a MissingSpecialization, which a
            script may raise, the kernels count that it declares before.
    """
    source, name = _split(spec)
    module = _import_file(Path(source)) if _is_file(source) else _import_module(source)
    bound = [(variable, value) for variable, value in vars(module).items() if isinstance(value, Declaration)]
    found = list(dict.fromkeys(kernel for _, kernel in bound))
    if not found:
        raise DeclarationError(f"{source}: no dimorph.Kernel at its module level")
    declared = [(kernel.origin, kernel.name) for kernel in found]
    if twice := [f"{origin}:{kernel}" for origin, kernel in declared if declared.count((origin, kernel)) > 1]:
        raise DeclarationError(f"{source}: two kernels are called {twice[0]}; their names must differ")
    if name is None:
        return found
    asked = list(dict.fromkeys(kernel for variable, kernel in bound if name in (variable, kernel.name)))
    if not asked:
        there = ", ".join(kernel.name for kernel in found)
        raise DeclarationError(f"{source}: no kernel is called {name!r}; there are: {there}")
    return asked


def load_object(spec: str) -> object:
    """Import `MODULE:NAME`, where the module may be the path of a Python file, and return what the name is bound to.

    Raises:
        DeclarationError: there is no such module, file or name.
        Exception: any other exception that the module raises during its import.
    """
    source, name = _split(spec)
    if name is None:
        raise DeclarationError(f"{spec!r}: expected MODULE:NAME, or the path of a Python file, a colon and a name")
    module = _import_file(Path(source)) if _is_file(source) else _import_module(source)
    try:
        return getattr(module, name)
    except AttributeError:
        near = ", ".join(sorted(one for one in vars(module) if not one.startswith("_"))) or "none"
        raise DeclarationError(f"{source}: no variable is called {name!r}; there are: {near[:300]}") from None


def find_kernel(found: Reference, name: str) -> Declaration:
    """Return the kernel that a record refers to.

    Raises:
        DeclarationError: there is no such kernel; the message says where it was searched and what to do.
    """
    kernel, problem = _referred(found, Declaration)
    if kernel is None:
        raise DeclarationError(f"kernel {name} {problem}")
    return kernel


def find_variant(found: Reference, name: str) -> Variant:
    """Return the variant that a record or a command line refers to, or an equal one.

    Raises:
        DeclarationError: there is no such variant; the message says where it was searched and what to do.
        ArtifactCorrupt: its description cannot be read.
    """
    variant, problem = _referred(found, Variant)
    if variant is not None:
        return variant
    if not found.made:
        raise DeclarationError(f"variant {name} {problem}")
    made = Made.from_text(found.made)
    parts = [variant_named(text) for text in made.parts]
    if made.package:
        _import_module(made.package)
    elif not Path(made.root).is_dir():
        raise DeclarationError(
            f"variant {made.name}: no module holds it, and there is no directory {made.root} here: declare it in a "
            "module beside its header, and record again"
        )
    return made_variant(made, parts)


def variant_named(text: str) -> Variant:
    """Return the variant that a command line names: `MODULE_OR_FILE:NAME`, or the text of a `Made`.

    Raises:
        DeclarationError, ArtifactCorrupt: as for `find_variant`.
    """
    if text.startswith("{"):
        return find_variant(Reference(made=text), "of that description")
    source, _ = _split(text)
    return find_variant(Reference(file=text) if _is_file(source) else Reference(module=text), text)


def _referred(found: Reference, kind: type[_T]) -> tuple[_T | None, str]:
    """Return the value that the module of a reference holds, else the module's file; or None, and why there is none."""
    if found.why or not (found.module or found.file):
        return None, f"cannot be found again: {found.why or 'nothing says where it is'}"
    passed = []
    for spec in filter(None, (found.module, found.file)):
        source, _, name = spec.rpartition(":")
        try:
            module = _import_file(Path(source)) if _is_file(source) else _import_module(source)
        except DeclarationError as error:
            passed.append(str(error))
            continue
        except Exception as error:  # of the module's own code; the kernels of other modules may be fine
            passed.append(f"{source} cannot be imported: {type(error).__name__}: {error}")
            continue
        held = [(variable, value) for variable, value in vars(module).items() if isinstance(value, kind)]
        # Its own name first: a variable may hold another one than in the program that was recorded.
        named = [value for _, value in held if value.name == name] or [value for key, value in held if key == name]
        if len(set(named)) == 1:
            return named[0], ""
        several = "several of the name" if named else "none of the name"
        passed.append(f"of the {kind.__name__.lower()}s at its module level, {source} holds {several} {name!r}")
    return None, f"is not found: {'; '.join(passed)}: bring it back, or record again"


def declared_in(spec: str) -> str:
    """Return the module of `PACKAGE_OR_FILE[:KERNEL]`, or the absolute path of its file."""
    source, _ = _split(spec)
    return str(Path(source).resolve()) if _is_file(source) else source


def package_name(spec: str) -> str:
    """Return the name of the Python package that `PACKAGE_OR_FILE[:KERNEL]` is in; of a file in none, its stem."""
    source = declared_in(spec)
    if not _is_file(source):
        return source.partition(".")[0]
    path = Path(source)
    name, root = path.stem, path.parent
    while (root / "__init__.py").is_file():
        name, root = root.name, root.parent
    return name


def _split(spec: str) -> tuple[str, str | None]:
    source, colon, name = spec.rpartition(":")
    # A colon may also be part of a directory's name.
    if colon and name.isidentifier():
        return source, name
    return spec, None


def _is_file(source: str) -> bool:
    return source.endswith(".py") or os.sep in source


def _import_module(name: str) -> ModuleType:
    if not all(name.split(".")):
        raise DeclarationError(
            f"{name!r}: expected a module that can be imported, such as mypkg.kernels, or the path of a Python file"
        )
    try:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name)
        # The working directory, as with `python -m`.
        with _searched(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # If the module exists but fails to import another one, that error is passed on.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise DeclarationError(
            f"{name}: no module of this name can be imported ({error}); for a file give its path, ending in .py"
        ) from error


def _import_file(given: Path) -> ModuleType:
    path = given.resolve()
    if not path.is_file():
        actual = "is a directory, expected a Python file" if path.is_dir() else "there is no such file"
        raise DeclarationError(f"{given}: {actual}")
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
            f"{path}: importing its module {name} gives {module.__file__} instead; name a module that can be imported"
        )
    return module


def _execute(path: Path) -> ModuleType:
    """Run a file that is in no package, as a module under a unique private name."""
    name = f"_dimorph_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except MissingSpecialization as error:
        # A script loads its kernels while it runs, and what it lacks is what is about to be built.
        _log.warning("%s stopped where it loads what is not built yet: %s", path, str(error).partition("\n")[0])
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _searched(directory: Path) -> Iterator[None]:
    """Put a directory first on the import path while the block runs."""
    entry = str(directory)
    sys.path.insert(0, entry)
    # The import system caches listings of directories, which may lack new files.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)
