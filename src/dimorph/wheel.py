"""A PEP 517 build backend that puts artifacts into the wheel another backend makes.

    [build-system]
    requires = ["dimorph[wheel]", "hatchling"]
    build-backend = "dimorph.wheel"

    [tool.dimorph]
    backend = "hatchling.build"              # makes the pure part, and everything but wheels
    kernels = ["mypkg.kernels"]              # modules, or module:kernel
    targets = ["x86-64-v2", "x86-64-v3"]     # default: see PORTABLE
    archs = ["sm_80", "sm_90a"]              # of device code; default: those that the kernels declare

Kernels are built from the sources inside the pure wheel, so their keys are those of what gets installed. The wheel
holds for any Python 3: `py3-none-manylinux_X_Y_<machine>`, where X.Y is the oldest glibc that its objects load on.
"""

from __future__ import annotations

import calendar
import importlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from dimorph import aot
from dimorph._lazy import logger
from dimorph.aot.discover import load_kernels
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.errors import BuildError, DeclarationError, LoadError
from dimorph.settings import Settings, current
from dimorph.store.layers import PACKAGED
from dimorph.toolchain import elf, targets

_log = logger("dimorph")

# What is built for unless the project names targets: every level without special extensions, from the one that all
# CPUs since about 2009 run. Each is built and shipped once more, so a project whose kernels gain nothing from the
# upper ones names fewer.
PORTABLE = {"x86_64": ("x86-64-v2", "x86-64-v3", "x86-64-v4"), "aarch64": ("armv8",)}

# manylinux2014, older than every glibc that a supported Python is built for; pip knows no tags much below it.
_OLDEST_GLIBC = (2, 17)
# The parts of glibc, which a manylinux tag promises.
_GLIBC_LIBRARIES = re.compile(r"(lib(c|m|dl|rt|pthread)\.so\.\d+|ld-linux[\w-]*\.so\.\d+)\Z")
# In a wheel these come from whatever other wheel was loaded first, so they have to be linked statically.
_CXX_LIBRARIES = re.compile(r"lib(stdc\+\+|gcc_s|c\+\+|c\+\+abi|unwind)\.so\b")

# GCC's and clang's words for a header that is nowhere.
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
        backend: the build backend of the pure part, `module` or `module:object`.
        kernels: what to build, each `module` or `module:kernel`.
        targets: the target levels.
        archs: the GPU architectures; none: those that the kernels declare.
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
    """The hook of PEP 517; returns the name of the wheel.

    Raises:
        ValueError: `[tool.dimorph]`, or a setting, cannot be used.
        DeclarationError: a kernel or a source is not in the wheel; the message names it.
        ToolchainError: there is no compiler.
        BuildError: a kernel could not be compiled.
        LoadError: an object needs a C++ library that the wheel does not bring.
    """
    config = read_config(Path("pyproject.toml"))
    settings = _portable(current())
    with tempfile.TemporaryDirectory(prefix="dimorph-wheel-") as scratch:
        pure, tree = Path(scratch, "pure").resolve(), Path(scratch, "tree").resolve()
        pure.mkdir()
        name = _backend(config).build_wheel(str(pure), config_settings, metadata_directory)
        made = _unpack(pure / name, tree)
        machine = _add_artifacts(tree, config, settings, made)
        objects = sorted(path for path in tree.rglob("*.so") if PACKAGED in path.parts)
        return _pack(tree, Path(wheel_directory), name, _platform(objects, tree, machine), made)


def __getattr__(name: str) -> Any:
    # A hook that the backend lacks has to be missing here too.
    if name in _DELEGATED:
        return getattr(_backend(read_config(Path("pyproject.toml"))), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_config(path: Path) -> Config:
    """The table `[tool.dimorph]` of a `pyproject.toml`.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type.
        ToolchainError: a target is unknown.
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
            f"{path}: [tool.dimorph]: backend: expected the backend of the pure part, "
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
        # Both are part of keys, so nobody who lacks the same settings would find what the wheel brings.
        raise ValueError("build_wheel: DIMORPH_DEBUG and DIMORPH_CXXFLAGS have to be unset where a wheel is built")
    return settings


def _backend(config: Config) -> Any:
    module, _, names = config.backend.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found


def _unpack(wheel: Path, tree: Path) -> float:
    """Unpacks a wheel, permissions included; the time it carries, which is SOURCE_DATE_EPOCH where that is set."""
    with ZipFile(wheel) as archive:
        archive.extractall(tree)
        for info in archive.infolist():
            if mode := info.external_attr >> 16 & 0o777:
                (tree / info.filename).chmod(mode)
        newest = max(info.date_time for info in archive.infolist())
    # Times in zip files have no zone; wheels keep UTC in them.
    return calendar.timegm((*newest, 0, 0, 0))


def _add_artifacts(tree: Path, config: Config, settings: Settings, made: float) -> str:
    """Builds every kernel beside its sources in the tree; the machine that the artifacts are for."""
    machines = sorted({targets.by_name(name).machine for name in config.targets})
    if len(machines) > 1:
        raise ValueError(f"[tool.dimorph]: targets: expected levels of one machine, got {', '.join(machines)}")
    for left in list(tree.rglob(PACKAGED)):
        # Built while developing, and packed by the backend as it found it.
        shutil.rmtree(left)
    created = datetime.fromtimestamp(made, timezone.utc).isoformat()
    with _importing_from(tree, config):
        for kernel in _declared(tree, config):
            _check_sources(kernel, tree, config)
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
            print(report, flush=True)  # front ends show what a hook prints
    return machines[0]


def _declared(tree: Path, config: Config) -> list[Declaration]:
    """The kernels to build, each once."""
    found: dict[Declaration, None] = {}
    for spec in config.kernels:
        kernels = load_kernels(spec)
        # A module may hold kernels that it imports from another distribution, which are that one's to ship.
        own = [kernel for kernel in kernels if tree in (kernel.root / kernel.entry).parents]
        if not own or (":" in spec and own != kernels):
            raise DeclarationError(
                f"[tool.dimorph]: kernels: {spec!r}: its sources are not in the wheel but in {kernels[0].root}"
            )
        found.update(dict.fromkeys(own))
    return list(found)


@contextmanager
def _importing_from(tree: Path, config: Config) -> Iterator[None]:
    """Imports find the packages in the tree, and leave no trace in it or in this process."""
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


def _not_in_wheel(kernel: Declaration, file: str, config: Config) -> DeclarationError:
    return DeclarationError(
        f"kernel {kernel.name}: {file} is not in the wheel. Sources have to be installed, because artifacts are found "
        f"by their content: have {config.backend} include it as package data"
    )


def _platform(objects: Sequence[Path], tree: Path, machine: str) -> str:
    """The platform tag that holds for every object."""
    floors, foreign = [_OLDEST_GLIBC], set()
    for path in objects:
        needs = elf.needs(path)
        if cxx := [name for name in needs.libraries if _CXX_LIBRARIES.match(name)]:
            raise LoadError(
                f"{path.relative_to(tree)} needs {', '.join(cxx)}: expected the C++ library to be linked statically "
                "or not at all; what a process has loaded may be older"
            )
        foreign |= {name for name in needs.libraries if not _GLIBC_LIBRARIES.match(name)}
        floors += [needs.glibc] if needs.glibc else []
    if foreign:
        _log.warning("the wheel is for this kind of system only, because it needs %s", ", ".join(sorted(foreign)))
        return f"linux_{machine}"
    major, minor = max(floors)
    return f"manylinux_{major}_{minor}_{machine}"


def _pack(tree: Path, directory: Path, pure_name: str, platform: str, made: float) -> str:
    """Packs the tree as a wheel for a platform, the same bytes every time; its name."""
    from wheel.wheelfile import WHEEL_INFO_RE, WheelFile  # type: ignore[import-untyped]

    parts = WHEEL_INFO_RE.match(pure_name)
    if parts is None or parts["plat"] != "any":
        raise ValueError(f"build_wheel: expected a pure wheel from the backend, got {pure_name}")
    pythons, abi = parts["pyver"], parts["abi"]
    stem = parts["namever"] + (f"-{parts['build']}" if parts["build"] else "")
    described = tree / f"{parts['namever']}.dist-info" / "WHEEL"
    info = message_from_bytes(described.read_bytes(), policy=policy.compat32)
    info.replace_header("Root-Is-Purelib", "false")
    del info["Tag"]
    for python in pythons.split("."):
        info["Tag"] = f"{python}-{abi}-{platform}"
    described.write_bytes(info.as_bytes())
    for path in tree.rglob("*"):
        if PACKAGED in path.parts and path.is_file():
            path.chmod(0o644)  # in a store nobody may write it; installers and uninstallers do
        os.utime(path, (made, made))

    class Reproducible(WheelFile):  # type: ignore[misc]
        def writestr(self, entry: Any, data: Any, compress_type: int | None = None) -> None:
            if isinstance(entry, str):  # RECORD, which otherwise carries the time of packing
                entry = ZipInfo(entry, time.gmtime(made)[:6])
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
            super().writestr(entry, data, compress_type)

    name = f"{stem}-{pythons}-{abi}-{platform}.whl"
    with Reproducible(directory / name, "w") as archive:
        archive.write_files(str(tree))
    return name
