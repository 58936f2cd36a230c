"""Data packages: installed packages that hold nothing but artifacts, for the kernels of another package.

A data package has one directory, `dimorph_prebuilt/PACKAGE/NAME-VERSION`, whose `_dimorph` was built ahead of time.
PACKAGE is the Python package that declares the kernels, VERSION that of the Dimorph that built it, since keys cover the
headers of Dimorph. `dimorph_prebuilt` has no `__init__.py`, so any number of data packages lie side by side.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from dimorph._lazy import logger
from dimorph.store.artifact import VERSION

_log = logger("dimorph")

NAMESPACE = "dimorph_prebuilt"


def data_packages(root: Path) -> tuple[Path, ...]:
    """Return the directories of the data packages for the kernels whose sources are in `root`.

    One that another version of Dimorph built is left out, because nothing in it would be found; a warning says so.
    """
    package = package_of(root)
    return _installed(package) if package else ()


@lru_cache(maxsize=64)
def package_of(root: Path) -> str | None:
    """Return the name of the outermost Python package that a directory is in; None: it is in none."""
    own = next((one for one in (root, *root.parents) if _is_package(one)), None)
    while own and _is_package(own.parent):
        own = own.parent
    return own.name if own else None


def _is_package(directory: Path) -> bool:
    return os.path.isfile(directory / "__init__.py")  # noqa: PTH113 (Path.is_file raises in a directory that is closed)


@lru_cache(maxsize=64)
def _installed(package: str) -> tuple[Path, ...]:
    # What is installed while a process runs is not seen by it, as with Python's own packages.
    spec = find_spec(NAMESPACE)
    places = [Path(location) / package for location in (spec.submodule_search_locations or ())] if spec else []
    found = []
    for place in places:
        for name in sorted(os.listdir(place)) if place.is_dir() else ():  # noqa: PTH208 (names are wanted)
            built_for, _, made_by = name.rpartition("-")
            if not (place / name / "_dimorph").is_dir():
                continue
            if made_by == VERSION:
                found.append(place / name)
            else:
                _log.warning(
                    "%s: built by Dimorph %s, and this is %s, so nothing in it is used; install the one for this "
                    "version, %s %s",
                    *(place / name, made_by, VERSION, built_for, VERSION),
                )
    return tuple(found)
