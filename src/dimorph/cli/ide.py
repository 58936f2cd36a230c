"""Write `compile_commands.json` and the config headers, so that clangd and the editors that use it read a kernel."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimorph._lazy import logger
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.errors import DimorphError, ToolchainError
from dimorph.plan.load_plan import declared_archs, load_plan
from dimorph.plan.unit import INCLUDE, Unit, system_include_dirs
from dimorph.resolve import dependencies
from dimorph.resolve.levels import target_levels
from dimorph.settings import Settings
from dimorph.source.config_header import header_name
from dimorph.source.include_scan import Scanner
from dimorph.store.layers import memo_dir, user_store
from dimorph.toolchain import archs, cuda, host, process
from dimorph.toolchain.host import HostCompiler
from dimorph.toolchain.with_dependencies import WithDependencies

_log = logger("dimorph")

DATABASE = "compile_commands.json"
# Generated files, in the project's directory; it tells git to ignore it.
GENERATED = Path(".dimorph", "ide")

# clang reads this header of cuRAND in front of every CUDA file, whether or not it is used. A toolkit need not have it,
# and a fatal error in front of a file makes clang misread the file.
_CURAND_HEADER = "curand_mtgp32_kernel.h"

# The compiler whose command line an editor reads, and the libraries of a kernel that has dependencies.
Driver = HostCompiler | WithDependencies

_SOURCES = {".cc", ".cpp", ".cxx", ".c++"}
_DEFINE = re.compile(r"^#define (\w+) ?(.*)$", re.MULTILINE)
# What says that a directory is a project's own, and so where clangd will look for the database.
_PROJECT_MARKS = (DATABASE, ".git", "pyproject.toml")


@dataclass(frozen=True)
class Written:
    """The files that `write` has written.

    Attributes:
        database: the `compile_commands.json`.
        files: the files that an editor can now open, entry and cases first.
        kept: how many entries of others it holds.
    """

    database: Path
    files: tuple[Path, ...]
    kept: int


def project_directory(kernel: Declaration) -> Path:
    """Return the directory at or above a kernel's sources that holds a project; without one, that of the sources."""
    for directory in (kernel.root, *kernel.root.parents):
        if any((directory / mark).exists() for mark in _PROJECT_MARKS):
            return directory
    return kernel.root


def write(instantiations: InstantiationSet, directory: Path, settings: Settings) -> Written:
    """Describe for an editor the compile of each of a kernel's sources and headers.

    The entry is read with the header of `instantiations`: specialized for a single one, otherwise dispatching. The
    cases, and the headers they reach, are read with the header of the first specialization, as every case is; a
    header that only another variant reaches, with that of the first specialization that has it. Each file is read by
    itself, so it has to include what it uses, the config header too. Device sources are read for the best
    architecture that they are declared for; an editor needs a CUDA toolkit's headers for that, so without one they
    are left out, and the log says so. Entries of other tools and kernels in a database that is there are kept.

    Raises:
        DeclarationError: a source is missing, or one that cannot be keyed.
        ToolchainError: there is no compiler, whose system headers an editor needs, or a dependency is missing.
        DimorphError: there is a `compile_commands.json` that is not one.
        OSError: the files cannot be written.
    """
    # Resolved: it may be a link into a build directory, and the link is to stay.
    database = (directory / DATABASE).resolve()
    others = _read(database)
    kernel = instantiations.kernel
    # Its suffix keeps it apart from the directories of sources, which are above it.
    place = directory.resolve() / GENERATED / _relative(kernel.root, directory.resolve()) / f"{kernel.name}.kernel"
    driver = _with_dependencies(kernel, _driver(settings), settings)
    described: dict[Path, dict[str, Any]] = {}
    for name, unit in _units(instantiations, settings).items():
        _put(place / name / header_name(kernel), unit.header)
        if unit.kind == "device" and not (Path(str(cuda.toolkit(settings))) / "include" / _CURAND_HEADER).is_file():
            _put(place / name / _CURAND_HEADER, "")
        for file in _files(unit):
            if file not in described:
                described[file] = _described(file, unit, place / name, driver, settings)
    _put(directory / GENERATED.parts[0] / ".gitignore", "*\n")
    ours = f"-I{place}{os.sep}"
    kept = [other for other in others if not any(str(word).startswith(ours) for word in other.get("arguments", ()))]
    # In front: of several entries for one file, clangd takes the first.
    _put(database, json.dumps([*described.values(), *kept], indent=1) + "\n")
    first = {(kernel.root / name).resolve() for name in (kernel.entry, *kernel.case)}
    return Written(database, tuple(sorted(described, key=lambda file: (file not in first, file))), len(kept))


def _units(instantiations: InstantiationSet, settings: Settings) -> dict[str, Unit]:
    """Return the units to show, by the name of their directory: a case for each variant, the entry, device code.

    A file is read as part of the first one that reaches it.
    """
    kernel, has_toolkit = instantiations.kernel, cuda.toolkit(settings) is not None
    if kernel.device and not has_toolkit:
        _log.warning("%s: device sources are left out: no CUDA toolkit is installed", kernel.name)
    shown: dict[tuple[str, str], Specialization] = {}
    for specialization in instantiations:
        shown.setdefault((_variants(specialization), _best_arch(specialization)), specialization)
    plan = load_plan(
        instantiations,
        lambda specialization: [(archs.by_name(_best_arch(specialization)),)] if has_toolkit else [],
        shown.values(),
    )
    order = {"case": 0, "entry": 1, "device": 2}
    units: dict[str, Unit] = {}
    for unit in sorted((unit for unit in plan if unit.kernel is kernel), key=lambda unit: order[unit.kind]):
        units.setdefault(_directory(unit), unit)
    return units


def _best_arch(specialization: Specialization) -> str:
    """Return the name of the best architecture that the device code is declared for; empty without device code."""
    if not specialization.kernel.device:
        return ""
    return max(declared_archs(specialization), key=lambda arch: arch.rank).name


def _directory(unit: Unit) -> str:
    """Name the directory of a unit's generated files."""
    if unit.kind == "device":
        return f"device-{unit.archs[0].name}"
    variants = [unit.values[axis.name] for axis in unit.kernel.axes if axis.for_cases_only and axis.name in unit.values]
    return "-".join([unit.kind, *variants]) if unit.kind == "case" else unit.kind


def _variants(specialization: Specialization) -> str:
    return "-".join(axis.text(value) for axis, value in specialization.pairs() if axis.for_cases_only)


def _files(unit: Unit) -> list[Path]:
    """Return the author's files that the compile of a unit can reach."""
    kernel = unit.kernel
    names = {"entry": (kernel.entry,), "case": kernel.case, "device": kernel.device}[unit.kind]
    sources = Scanner(unit.include_dirs, {header_name(kernel): unit.header}).scan(names)
    files = dict.fromkeys(Path(source.path).resolve() for source in sources)
    return [file for file in files if INCLUDE not in file.parents]


def _described(file: Path, unit: Unit, place: Path, driver: Driver, settings: Settings) -> dict[str, Any]:
    """Return the database's entry for one file."""
    if unit.kind == "device":
        command = _device_command(file, unit, place, driver, settings)
    else:
        command = driver.compile_command(
            file,
            Path(os.devnull),
            target=target_levels(settings)[0],
            include_dirs=(place, *unit.include_dirs),
            system_include_dirs=system_include_dirs(),
            debug=True,
            extra_flags=settings.cxxflags,
        )
    # The macros that the unit's own text defines in front of its first source.
    before = [f"-D{name}={value}" for name, value in _DEFINE.findall(unit.text)]
    if file.suffix not in _SOURCES and unit.kind != "device":
        before += ["-x", "c++-header"]
    position = len(driver.command)
    return {
        "directory": str(unit.kernel.root),
        "file": str(file),
        "arguments": [*command[:position], *before, *command[position:]],
    }


def _device_command(file: Path, unit: Unit, place: Path, driver: Driver, settings: Settings) -> list[str]:
    """Return the command with which clang, inside the editor, reads a device source; no build uses it."""
    return [
        *driver.command,
        *("-x", "cuda", "--cuda-device-only", f"--cuda-gpu-arch={unit.archs[0].name}"),
        *(f"--cuda-path={cuda.toolkit(settings)}", "-nocudalib", "-std=c++17"),
        *(f"-I{directory}" for directory in (place, *unit.include_dirs)),
        *(driver.compile_words() if isinstance(driver, WithDependencies) else ()),
        str(file),
    ]


def _with_dependencies(kernel: Declaration, driver: HostCompiler, settings: Settings) -> Driver:
    if not kernel.dependencies:
        return driver
    found = dependencies.found(kernel, settings, memo_dir(user_store(settings, read_only=True)), keep=False)
    return WithDependencies(driver, found)


def _driver(settings: Settings) -> HostCompiler:
    """Return the compiler in use with the command line of clang, which clangd understands.

    Its path stays, because clangd looks for the C++ library near it.
    """
    found = host.find(settings)
    if found.dialect == "zig":
        return found._replace(command=("clang++", *_zig_headers(found, settings)), dialect="clang")
    return found._replace(dialect="clang")


def _zig_headers(zig: HostCompiler, settings: Settings) -> list[str]:
    """Return flags that make clang read the system headers of zig in place of the machine's."""
    target = target_levels(settings)[0]
    memo = memo_dir(user_store(settings))
    with tempfile.TemporaryDirectory() as work:
        command = zig.compile_command(Path(os.devnull), Path(os.devnull), target=target)
        shown = process.run(
            [*command[: command.index(os.devnull)], "-E", "-v", "-x", "c++", os.devnull],
            timeout=settings.compile_timeout,
            cwd=Path(work),
            env=zig.environment(Path(work), memo),
        ).output
    planned = re.search(r'^ *("[^"\n]+" "?-cc1"? .*)$', shown, re.M)
    listed = re.search(r"^#include <\.\.\.> search starts here:\n(.*?)^End of search list", shown, re.M | re.S)
    if planned is None or listed is None:
        raise ToolchainError(f"{zig.command[0]} does not say where its headers are: {shown.strip()[:300]}")
    words = shlex.split(planned[1])
    defines = [f"-D{words[at + 1]}" for at, word in enumerate(words) if word == "-D"]
    # The compiler's own headers (the directory that has stddef.h) must be clangd's: they are of one version.
    directories = [Path(line.strip()) for line in listed[1].splitlines()]
    system = [
        f"-isystem{directory}" for directory in directories if not (directory / "__stddef_max_align_t.h").exists()
    ]
    return ["-nostdlibinc", "-nostdinc++", *defines, *system]


def _read(database: Path) -> list[dict[str, Any]]:
    """Return the entries of a database; none if there is no such file."""
    try:
        entries = json.loads(database.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DimorphError(f"{database}: expected JSON, got: {error}; nothing was written") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DimorphError(f"{database}: expected a list of entries; nothing was written")
    return entries


def _relative(path: Path, base: Path) -> Path:
    """Return a relative path for `path` that is unique among those made for `base` and never leads upwards."""
    return path.relative_to(base) if path.is_relative_to(base) else Path(*path.parts[1:])


def _put(path: Path, text: str) -> None:
    """Write a file by one rename; leave one that is right already, so that clangd need not read it again."""
    content = text.encode("utf-8", "surrogateescape")
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".dimorph-") as work:
        written = Path(work, path.name)
        written.write_bytes(content)
        written.replace(path)
