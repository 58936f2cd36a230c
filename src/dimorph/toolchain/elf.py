"""Requirements of a shared object: the libraries that it loads, and the oldest glibc that has all its symbols."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dimorph.errors import LoadError, ToolchainError

Version = tuple[int, int]

_GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)")
# The version name that marks an object with packed relative relocations, and the first glibc whose loader reads them.
_RELR, _RELR_VERSION = "GLIBC_ABI_DT_RELR", (2, 36)

_MISSING = "the package pyelftools, which reads the requirements of objects, is not installed: pip install pyelftools"


@dataclass(frozen=True)
class Needs:
    """The requirements of one shared object.

    Attributes:
        libraries: the names of the shared libraries that it loads, in order.
        glibc: the oldest glibc that it loads on, (major, minor); None: it uses no symbol of glibc.
    """

    libraries: tuple[str, ...]
    glibc: Version | None


def check_installed() -> None:
    """Refuse to go on without the package that `needs` takes, before anything is compiled in vain.

    Raises:
        ToolchainError: it is not installed.
    """
    if find_spec("elftools") is None:
        raise ToolchainError(_MISSING)


def needs(path: Path) -> Needs:
    """Return the requirements of a shared object, read from its dynamic section and symbol versions.

    Raises:
        LoadError: the file is no shared object, or uses glibc's private symbols, which belong to one build of glibc.
        ToolchainError: the package pyelftools is not installed.
        OSError: the file cannot be read.
    """
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.dynamic import DynamicSection
        from elftools.elf.elffile import ELFFile
        from elftools.elf.gnuversions import GNUVerNeedSection
    except ModuleNotFoundError as error:
        raise ToolchainError(_MISSING) from error
    with path.open("rb") as stream:
        try:
            elf = ELFFile(stream)
            dynamic = elf.get_section_by_name(".dynamic")
            versions = elf.get_section_by_name(".gnu.version_r")
        except ELFError as error:
            raise LoadError(f"{path}: expected a shared object: {error}") from error
        if not isinstance(dynamic, DynamicSection):
            raise LoadError(f"{path}: expected a shared object, it has no dynamic section")
        libraries = tuple(str(tag.needed) for tag in dynamic.iter_tags("DT_NEEDED"))  # type: ignore[attr-defined]
        needed = versions.iter_versions() if isinstance(versions, GNUVerNeedSection) else ()
        used = [version.name for _, names in needed for version in names]
    if "GLIBC_PRIVATE" in used:
        raise LoadError(f"{path}: it uses symbols that are private to one build of glibc (GLIBC_PRIVATE)")
    floors = [(int(m[1]), int(m[2])) for name in used if (m := _GLIBC.match(name))]
    return Needs(libraries, max([*floors, *([_RELR_VERSION] if _RELR in used else [])], default=None))


def text(version: Version | None) -> str | None:
    """Return a version as text, e.g. `2.17`; None stays None."""
    return version and f"{version[0]}.{version[1]}"


def parse(version: str | None) -> Version | None:
    """Return the version that `text` printed."""
    if version is None:
        return None
    major, minor = version.split(".")
    return int(major), int(minor)


def newest(versions: list[Version | None]) -> Version | None:
    """Return the newest of the glibc versions that several objects require; None if none requires any."""
    return max((version for version in versions if version), default=None)
