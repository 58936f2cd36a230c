"""Make a data package from a manifest: a wheel that holds artifacts for the kernels of another package, and no code.

    name = "mypkg-kernels-cpu"            # the name of the wheel
    kernels = "mypkg.kernels"             # the module that declares the kernels
    variants = "mypkg"                    # the module of the variants that sets name; may be left out
    targets = ["x86-64-v2", "x86-64-v3"]  # target levels of host code; a set may name others

    [[set]]
    kernels = ["rms"]                     # names of kernels, or of the variables that hold them
    archs = ["sm_80", "compute_80"]       # architectures of device code; default: those that the kernel declares
    values.head_dim = [64, 128]           # axis -> values; other axes keep their declared values
    values.variant = ["Plain", "Causal + Window"]  # the second is made by `compose` of the module of the variants

See `dimorph.store.data_packages` for where the artifacts lie and how they are found.
"""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from dimorph.aot import packing
from dimorph.aot.builder import Report, build
from dimorph.aot.discover import load_kernels
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.declare.variant import BoundVariant, Variant
from dimorph.errors import DeclarationError
from dimorph.resolve.build import Progress
from dimorph.settings import Settings
from dimorph.store.artifact import VERSION
from dimorph.store.data_packages import NAMESPACE, package_of
from dimorph.store.layers import PACKAGED
from dimorph.toolchain import targets as levels

# The time of every file in the wheel, so that the same artifacts make the same wheel: 1980, the first of zip files.
_TIME = 315532800
_KEYS = {"name", "kernels", "variants", "targets", "set"}
_SET_KEYS = {"kernels", "targets", "archs", "values"}
_NAME = re.compile(r"[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")


class Part(NamedTuple):
    """One set of a manifest.

    Attributes:
        instantiations: what is built.
        targets: names of the target levels.
        archs: names of the architectures; none: those that the kernel declares.
    """

    instantiations: InstantiationSet
    targets: tuple[str, ...]
    archs: tuple[str, ...]


class Package(NamedTuple):
    """The content of a manifest.

    Attributes:
        name: the name of the wheel.
        package: the Python package that declares the kernels.
        parts: what is built.
    """

    name: str
    package: str
    parts: tuple[Part, ...]


def read(path: Path) -> Package:
    """Read a manifest, and import the modules that it names.

    Raises:
        DeclarationError: a key is missing, unknown or of the wrong type, or names what does not exist.
        ToolchainError: a target level is unknown.
        OSError: the file cannot be read.
    """
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table = toml.loads(path.read_text("utf-8"))
    except ValueError as error:  # TOMLDecodeError is one
        raise DeclarationError(f"{path}: not TOML: {error}") from error
    _check_keys(table, _KEYS, str(path))
    name, module = (_text(table, key, str(path)) for key in ("name", "kernels"))
    if not _NAME.fullmatch(name):
        raise DeclarationError(f"{path}: name: expected letters, digits and -, got {name!r}")
    targets = _texts(table, "targets", str(path))
    variants = _module(table["variants"], str(path)) if "variants" in table else None
    parts = []
    for number, given in enumerate(table.get("set", ()), 1):
        where = f"{path}: set {number}"
        _check_keys(given, _SET_KEYS, where)
        named = _texts(given, "targets", where) if "targets" in given else targets
        archs = tuple(_texts(given, "archs", where)) if "archs" in given else ()
        for kernel in _texts(given, "kernels", where):
            try:
                (declared,) = load_kernels(f"{module}:{kernel}")
            except DeclarationError as error:
                raise DeclarationError(f"{where}: kernels: {error}") from error
            values = given.get("values", {})
            parts.append(Part(_instantiated(declared, values, variants, where), tuple(named), archs))
    if not parts:
        raise DeclarationError(f"{path}: expected at least one [[set]]")
    machines = sorted({levels.by_name(level).machine for part in parts for level in part.targets})
    if len(machines) > 1:
        raise DeclarationError(f"{path}: targets: expected levels of one machine, got {', '.join(machines)}")
    package = package_of(parts[0].instantiations.kernel.root)
    if package is None:
        raise DeclarationError(f"{path}: kernels: expected a module in a Python package, got {module!r}")
    return Package(name, package, tuple(parts))


def make(
    package: Package, out: Path, settings: Settings, progress: Progress | None = None
) -> tuple[Path, list[Report]]:
    """Build the sets of a manifest and pack them as a wheel into a directory; return its path, and a report a set.

    Raises:
        ValueError: a setting is part of keys, so that nobody else would find the artifacts.
        Exception: as for `aot.build`.
    """
    if settings.debug or settings.cxxflags:
        raise ValueError("DIMORPH_DEBUG and DIMORPH_CXXFLAGS must be unset when a data package is made")
    stem = package.name.replace("-", "_")
    with tempfile.TemporaryDirectory(prefix="dimorph-package-") as scratch:
        tree = Path(scratch).resolve()
        place = tree / NAMESPACE / package.package / f"{stem}-{VERSION}" / PACKAGED
        created = datetime.fromtimestamp(_TIME, timezone.utc).isoformat()
        reports = [
            build(
                part.instantiations,
                place,
                targets=part.targets,
                archs=part.archs or None,
                settings=settings,
                progress=progress,
                created=created,
                reads=False,
            )
            for part in package.parts
        ]
        described = tree / f"{stem}-{VERSION}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {VERSION}\n"
            f"Summary: Kernels of {package.package}, compiled for Dimorph {VERSION}\n"
            f"Requires-Dist: dimorph=={VERSION}\n"
        )
        (described / "WHEEL").write_text(
            f"Wheel-Version: 1.0\nGenerator: dimorph {VERSION}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        out.mkdir(parents=True, exist_ok=True)
        objects = sorted(place.rglob("*.so*"))
        tag = packing.platform(objects, tree, levels.by_name(package.parts[0].targets[0]).machine)
        wheel = packing.pack(tree, out, f"{stem}-{VERSION}-py3-none-any.whl", tag, _TIME)
    return out / wheel, reports


def _instantiated(kernel: Declaration, values: Mapping[str, Any], variants: Any, where: str) -> InstantiationSet:
    given: dict[str, Any] = {}
    for name, listed in values.items():
        texts = listed if isinstance(listed, list) else [listed]
        if kernel.axes[kernel.position(name)].kind == "variant":
            given[name] = [_variant(text, variants, where) for text in texts]
        else:
            given[name] = [tuple(one) if isinstance(one, list) else one for one in texts]
    try:
        return instantiate(kernel, given)
    except DeclarationError as error:
        raise DeclarationError(f"{where}: {error}") from error


def _module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DeclarationError(f"{where}: variants: {error}") from error


def _variant(text: str, module: Any, where: str) -> Variant:
    """Return the variant of a name, or the composition of several with a `+` between."""
    if module is None:
        raise DeclarationError(
            f"{where}: variant {text!r}: expected `variants`, the module that has it, in the manifest"
        )
    parts = list(_parts(text, module, where))
    if len(parts) == 1:
        return parts[0]
    composed: BoundVariant = module.compose(*(BoundVariant(one, (None,) * len(one.params)) for one in parts))
    return composed.variant


def _parts(text: str, module: Any, where: str) -> Iterator[Variant]:
    for name in (word.strip() for word in text.split("+")):
        found = getattr(module, name, None)
        if not isinstance(found, Variant):
            raise DeclarationError(f"{where}: variant {text!r}: {module.__name__} has no variant {name!r}")
        yield found


def _check_keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise DeclarationError(f"{where}: unknown key {unknown[0]!r}; there are: {', '.join(sorted(known))}")


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(table.get(key), str):
        raise DeclarationError(f"{where}: {key}: expected a string, got {table.get(key)!r}")
    return str(table[key])


def _texts(table: Mapping[str, Any], key: str, where: str) -> list[str]:
    given = table.get(key)
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise DeclarationError(f"{where}: {key}: expected a list of strings, got {given!r}")
    return given
