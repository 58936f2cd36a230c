"""A PEP 517 build backend that adds artifacts to the wheel of another backend.

    [build-system]
    requires = ["dimorph[wheel]", "hatchling"]
    build-backend = "dimorph.wheel"

    [tool.dimorph]
    backend = "hatchling.build"              # builds the pure wheel, the sdist and editable installs
    kernels = ["mypkg.kernels"]              # modules, or module:kernel
    targets = ["x86-64-v2", "x86-64-v3"]     # target levels of host code; default: see PORTABLE
    archs = ["sm_80", "sm_90a"]              # architectures of device code; default: those that the kernels declare

Kernels are built from the sources inside the pure wheel, so that their keys match the installed sources. The wheel
serves every Python 3: its tag is `py3-none-manylinux_X_Y_<machine>`, where X.Y is the oldest glibc that can load its
objects.
"""

from __future__ import annotations

import calendar
import importlib
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from email import message_from_bytes
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from dimorph import aot
from dimorph._lazy import logger
from dimorph.aot import packing
from dimorph.aot.discover import load_kernels
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.errors import BuildError, DeclarationError
from dimorph.plan.unit import case_unit, device_unit, entry_unit
from dimorph.settings import Settings, current
from dimorph.source.include_scan import Files
from dimorph.store import links
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED
from dimorph.toolchain import targets

_log = logger("dimorph")

# Default target levels by machine: every level without special extensions. The lowest runs on all CPUs since about
# 2009. Each level adds a copy of every artifact to the wheel, so a project whose kernels gain nothing from the upper
# levels names fewer.
PORTABLE = {"x86_64": ("x86-64-v2", "x86-64-v3", "x86-64-v4"), "aarch64": ("armv8",)}

# The messages of clang and GCC about a header that does not exist.
_NO_HEADER = re.compile(r"fatal error: (?:'([^']+)' file not found|([^:\s]+): No such file)")

_DELEGATED = (
    "build_editable",
    "build_sdist",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
)


@dataclass(frozen=True)
class Config:
    """The table `[tool.dimorph]` of a project.

    Attributes:
        backend: the build backend that makes the pure wheel, `module` or `module:object`.
        kernels: the kernels to build: each item is `module`, for all kernels of a module, or `module:kernel`.
        targets: names of target levels to build host code for.
        archs: names of GPU architectures to build device code for; empty: those that the kernels declare.
    """

    backend: str
    kernels: tuple[str, ...]
    targets: tuple[str, ...]
    archs: tuple[str, ...] = ()


def build_wheel(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel and return its file name: the hook `build_wheel` of PEP 517.

    Raises:
        ValueError: `[tool.dimorph]` or a setting has an invalid value, or the backend made a wheel that is not pure.
        DeclarationError: a kernel or a source is not in the wheel, or a package that it needs is not among its
            requirements; the message names it.
        ToolchainError: there is no compiler, or a target or architecture is unknown.
        BuildError: a kernel could not be compiled.
        LoadError: an object links a C++ library dynamically.
    """
    config = read_config(Path("pyproject.toml"))
    settings = _portable(current())
    with tempfile.TemporaryDirectory(prefix="dimorph-wheel-") as scratch:
        pure, tree = Path(scratch, "pure").resolve(), Path(scratch, "tree").resolve()
        pure.mkdir()
        name = _backend(config).build_wheel(str(pure), config_settings, metadata_directory)
        made = _unpack(pure / name, tree)
        machine = _add_artifacts(tree, config, settings, made)
        # Copies of libraries may have a version behind the suffix.
        objects = sorted(path for path in tree.rglob("*.so*") if PACKAGED in path.parts)
        return packing.pack(tree, Path(wheel_directory), name, packing.platform(objects, tree, machine), made)


def __getattr__(name: str) -> Any:
    # Front ends test for optional hooks, so a hook that the backend lacks must be missing here too.
    if name in _DELEGATED:
        return getattr(_backend(read_config(Path("pyproject.toml"))), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_config(path: Path) -> Config:
    """Read the table `[tool.dimorph]` of a `pyproject.toml`.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type.
        OSError: the file cannot be read.
    """
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    table = toml.loads(path.read_text("utf-8")).get("tool", {}).get("dimorph", {})
    known = {"backend", "kernels", "targets", "archs"}
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{path}: [tool.dimorph]: unknown key {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    backend = table.get("backend")
    if not isinstance(backend, str) or backend == __name__:
        raise ValueError(
            f"{path}: [tool.dimorph]: backend: expected the build backend of the pure wheel, "
            f'e.g. "hatchling.build", got {backend!r}'
        )
    machine = os.uname().machine
    levels = PORTABLE.get(machine) or (targets.levels()[-1].name,)
    return Config(
        backend=backend,
        kernels=_texts(path, "kernels", table.get("kernels")),
        targets=_texts(path, "targets", table.get("targets", list(levels))),
        archs=_texts(path, "archs", table["archs"]) if "archs" in table else (),
    )


def _texts(path: Path, name: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(item, str) for item in given):
        raise ValueError(f"{path}: [tool.dimorph]: {name}: expected a list of strings, got {given!r}")
    return tuple(given)


def _portable(settings: Settings) -> Settings:
    if settings.debug or settings.cxxflags:
        # Both are part of keys: a user without the same settings would not find the artifacts of the wheel.
        raise ValueError("build_wheel: DIMORPH_DEBUG and DIMORPH_CXXFLAGS must be unset when a wheel is built")
    return settings


def _backend(config: Config) -> Any:
    module, _, names = config.backend.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found


def _unpack(wheel: Path, tree: Path) -> float:
    """Unpack a wheel with its permissions; return the newest time in it, in seconds since 1970.

    A backend writes SOURCE_DATE_EPOCH as that time, if it is set.
    """
    with ZipFile(wheel) as archive:
        archive.extractall(tree)
        for info in archive.infolist():
            if mode := info.external_attr >> 16 & 0o777:
                (tree / info.filename).chmod(mode)
        newest = max(info.date_time for info in archive.infolist())
    # Times in zip files have no zone; wheels hold UTC.
    return calendar.timegm((*newest, 0, 0, 0))


def _add_artifacts(tree: Path, config: Config, settings: Settings, made: float) -> str:
    """Build every kernel beside its sources in the tree; return the machine, e.g. `x86_64`, of the artifacts."""
    machines = sorted({targets.by_name(name).machine for name in config.targets})
    if len(machines) > 1:
        raise ValueError(f"[tool.dimorph]: targets: expected levels of one machine, got {', '.join(machines)}")
    for left in list(tree.rglob(PACKAGED)):
        # Artifacts of the developer's own builds, which the backend packed with the sources.
        shutil.rmtree(left)
    created = datetime.fromtimestamp(made, timezone.utc).isoformat()
    with _importing_from(tree, config):
        for kernel in _declared(tree, config):
            _check_sources(kernel, tree, config)
            _check_headers(kernel, tree, config)
            try:
                report = aot.build(
                    instantiate(kernel),
                    kernel.root / PACKAGED,
                    targets=config.targets,
                    archs=config.archs,
                    settings=settings,
                    created=created,
                )
            except BuildError as error:
                if found := _NO_HEADER.search(error.output):
                    raise _not_in_wheel(kernel, found[1] or found[2], config) from error
                raise
            _check_required(kernel, report.artifacts, tree)
            print(report, flush=True)  # front ends show the output of a hook
    return machines[0]


def _declared(tree: Path, config: Config) -> list[Declaration]:
    """Load the kernels to build, each once."""
    found: dict[Declaration, None] = {}
    for spec in config.kernels:
        try:
            kernels = load_kernels(spec)
        except ModuleNotFoundError as error:
            # Build front ends install nothing but what the project asks for.
            raise DeclarationError(
                f"[tool.dimorph]: kernels: {spec!r}: importing it needs {error.name}, which is not installed where the "
                "wheel is built: add the package that has it to `requires` of [build-system] in pyproject.toml, or "
                "declare the kernels in a module that does not import it"
            ) from error
        # A module may import kernels of another distribution, which has to ship them itself.
        own = [kernel for kernel in kernels if tree in (kernel.root / kernel.entry).parents]
        if not own or (":" in spec and own != kernels):
            raise DeclarationError(
                f"[tool.dimorph]: kernels: {spec!r}: its sources are not in the wheel but in {kernels[0].root}"
            )
        found.update(dict.fromkeys(own))
    return list(found)


@contextmanager
def _importing_from(tree: Path, config: Config) -> Iterator[None]:
    """Let imports find the packages of the tree, without traces in the tree or, afterwards, in this process."""
    tops = {spec.partition(":")[0].partition(".")[0] for spec in config.kernels} - {"dimorph"}

    def take_out() -> dict[str, Any]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}

    before, bytecode = take_out(), sys.dont_write_bytecode
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(tree))
        sys.dont_write_bytecode = bytecode
        take_out()
        sys.modules.update(before)


def _check_sources(kernel: Declaration, tree: Path, config: Config) -> None:
    for name in (kernel.entry, *kernel.case, *kernel.device):
        if not (kernel.root / name).is_file():
            raise _not_in_wheel(kernel, (kernel.root / name).relative_to(tree).as_posix(), config)


def _check_headers(kernel: Declaration, tree: Path, config: Config) -> None:
    """Refuse a wheel that lacks headers of the project, because the system's would be compiled instead.

    Raises:
        DeclarationError: a directory of headers lies outside of the wheel, or a header that the project has is not in
            the wheel; the message names it.
    """
    for name in kernel.include_dirs:
        directory = (kernel.root / name).resolve()
        if tree not in directory.parents:
            raise DeclarationError(
                f"kernel {kernel.name}: include_dirs: {name!r} lies outside of the wheel, so an installed kernel would "
                "be compiled with other headers: move the headers into the package"
            )
        if not directory.is_dir():
            raise _not_in_wheel(kernel, directory.relative_to(tree).as_posix(), config)
    first = next(iter(instantiate(kernel)))
    units = [entry_unit(first.alone()), *([case_unit(first)] if kernel.case else [])]
    units += [device_unit(first, ())] if kernel.device else []
    files = Files()
    contents = [files.read(source.path)[1] for unit in units for source in unit.sources]
    named = {mention.name for content in contents if content for mention in content.mentions.found}
    for root in _checkouts(kernel, tree):
        for folder, name in itertools.product((".", *kernel.include_dirs), sorted(named)):
            here = kernel.root / folder / name
            if (root / folder / name).is_file() and not here.is_file():
                raise _not_in_wheel(kernel, os.path.normpath(here.relative_to(tree)), config)


def _check_required(kernel: Declaration, artifacts: Sequence[Artifact], tree: Path) -> None:
    """Refuse a wheel that does not ask for the Python packages whose libraries its objects need.

    Raises:
        DeclarationError: a package is not among its requirements; the message names it.
    """
    (described,) = tree.glob("*.dist-info/METADATA")
    asked = message_from_bytes(described.read_bytes()).get_all("Requires-Dist", [])
    listed = {_canonical(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in asked}
    for link in (link for artifact in artifacts for link in links.read(artifact)):
        if link.how == "required" and _canonical(link.package) not in listed:
            raise DeclarationError(
                f"kernel {kernel.name}: it needs {link.file} of the Python package {link.package} where it runs: add "
                "the package to `dependencies` of [project] in pyproject.toml, or say bundle=True"
            )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _checkouts(kernel: Declaration, tree: Path) -> list[Path]:
    """Return the directories of the project, from which the hook is called, that hold the sources of a kernel."""
    entry = (kernel.root / kernel.entry).relative_to(tree)
    depth = len(Path(kernel.entry).parts)
    found = Path.cwd().rglob(entry.name)
    return [path.parents[depth - 1] for path in found if path.parts[-len(entry.parts) :] == entry.parts]


def _not_in_wheel(kernel: Declaration, file: str, config: Config) -> DeclarationError:
    return DeclarationError(
        f"kernel {kernel.name}: {file} is not in the wheel. Sources must be installed, because artifacts are found "
        f"by the content of their sources: let {config.backend} include it as package data"
    )
