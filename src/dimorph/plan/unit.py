"""Units of compilation, each with its content key."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.declare.variant import Variant
from dimorph.errors import DeclarationError, no_descriptors
from dimorph.plan.key import content_key
from dimorph.settings import Settings
from dimorph.source.config_header import config_header, header_name
from dimorph.source.cpp_text import without_comments
from dimorph.source.include_scan import Files, Scanner, SourceFile
from dimorph.source.signature import Signature, signatures
from dimorph.toolchain import flags
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.compiler import Level

INCLUDE = Path(__file__).parent.parent.resolve() / "include"
# The header that a case includes to use the thread pool of the process.
PARALLEL_HEADER = "dimorph/parallel.h"

_EXPORT = re.compile(r"\bDIMORPH_EXPORT\s*\(\s*([A-Za-z_]\w*)\s*\)")


@dataclass(frozen=True)
class Unit:
    """One compile: an entry, a case, or the device code of a case.

    Attributes:
        kind: `entry`, `case` or `device`.
        kernel: the kernel that it belongs to.
        values: axis name -> value, as text; for a dispatching entry, the values, comma separated, of the axes whose
            values differ from the declared ones.
        text: the text of the translation unit, a few lines that include the author's sources.
        header: the text of the config header.
        include_dirs: the include directories, searched after the directory of the generated files.
        sources: every project file that the compile can include.
        exports: for an entry, function that Python can call -> its signature.
        archs: for device code, the architectures that can serve the GPU; a load compiles for the first.
        variants: the variant that it is compiled for, and the parts of a composition.
        known: name -> variant, for all variants of its set.
        first_tier: True for device code that is compiled faster, to serve until the optimised code is there.
    """

    kind: str
    kernel: Declaration
    values: Mapping[str, str]
    text: str
    header: str
    include_dirs: tuple[Path, ...]
    sources: tuple[SourceFile, ...]
    exports: Mapping[str, Signature] = field(default_factory=dict)
    archs: tuple[Arch, ...] = ()
    variants: tuple[Variant, ...] = ()
    known: Mapping[str, Variant] = field(default_factory=dict)
    first_tier: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The author's sources that determine its key."""
        # A case is loaded together with its device code, so the key of a case covers the device sources too.
        kernel = self.kernel
        device = tuple(kernel.device)
        return {"entry": (kernel.entry,), "case": (*kernel.case, *device), "device": device}[self.kind]

    def __repr__(self) -> str:
        return f"<Unit {self.label}>"

    @property
    def label(self) -> str:
        """Kernel, kind and the values of the axes, for people."""
        values = ", ".join(f"{name}={text}" for name, text in self.values.items())
        tier = ", first tier" if self.first_tier else ""
        return f"{self.kernel.name} {self.kind}{tier}" + (f" ({values})" if values else "")

    @cached_property
    def parallel(self) -> bool:
        """True if it uses the thread pool of the process."""
        return any(source.logical.partition(":")[2] == PARALLEL_HEADER for source in self.sources)

    def flags(self, settings: Settings) -> tuple[str, ...]:
        """Return the flags of this unit in addition to those of all units, the user's own last."""
        # An entry with cases only checks and dispatches, a case with device code only launches. A level above -O1 does
        # not make them faster, but the compile takes 1.5 times as long for such a case, and twice as long for an entry
        # of many combinations.
        light = bool(self.kernel.device) or (self.kind == "entry" and bool(self.kernel.case))
        mine = ("-O1",) if light and not settings.debug else ()
        return (*mine, *settings.cxxflags)

    def options(self, target: Level, settings: Settings) -> tuple[str, ...]:
        """Return the options that can change the output, as texts for the key that are the same for every compiler."""
        if isinstance(target, Arch):
            text = flags.device_id(arch=target, debug=settings.debug, first_tier=self.first_tier)
        else:
            text = flags.host_id(target=target, debug=settings.debug, extra_flags=self.flags(settings))
        # A debugger finds sources by their paths, so the key of a debug build contains the path.
        root = (str(self.kernel.root),) if settings.debug else ()
        return (text, *root, *(dependency.key_text for dependency in self.kernel.dependencies))

    def key(self, target: Level, settings: Settings) -> str:
        """Return the content key for a target level or an architecture, with the flags of the settings."""
        return content_key(
            unit=self.text,
            header=self.header,
            sources=self.sources,
            options=self.options(target, settings),
            target=target.name,
        )

    def rescanned(self, files: Files) -> Unit:
        """Return the same unit with its sources scanned again.

        Args:
            files: the files already read; none, to see whether any has changed.

        Raises:
            DeclarationError: as for `entry_unit`.
        """
        generated = {header_name(self.kernel): self.header}
        return replace(self, sources=Scanner(self.include_dirs, generated, files).scan(self.names))


def entry_unit(instantiations: InstantiationSet, files: Files | None = None) -> Unit:
    """Plan the entry of an instantiation set: in JIT form for a single specialization, otherwise dispatching.

    Args:
        instantiations: the set.
        files: the files already read for units of the same load; default: none.

    Raises:
        DeclarationError: a source is missing, or it includes a file that cannot be determined, or Python cannot have a
            default of an exported function.
    """
    kernel = instantiations.kernel
    path = kernel.root / kernel.entry
    try:
        entry = path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        if no_descriptors(error):
            raise
        raise _missing_source(kernel, "entry", kernel.entry, str(error.strerror)) from error
    exports = signatures(entry, _EXPORT.findall(without_comments(entry)), str(path))
    if kernel.device:
        _check_device(path, exports.values())
    names = [f"#define DIMORPH_ARGUMENTS_{name} {signature.names}".rstrip() for name, signature in exports.items()]
    text = "\n".join([*_device_macro(kernel), *names, f'#include "{kernel.entry}"', ""])
    if instantiations.specialized:
        values = next(iter(instantiations)).texts()
    else:
        beyond = instantiations.beyond_declared()
        values = {axis.name: ",".join(map(axis.text, beyond[axis.name])) for axis in kernel.axes if axis.name in beyond}
    return _unit("entry", values, text, instantiations, files, exports)


def _check_device(path: Path, exports: Iterable[Signature]) -> None:
    """Refuse parameters that functions of kernels with device sources cannot have.

    Raises:
        DeclarationError: there is one; the message names it.
    """
    for signature in exports:
        for parameter in signature.parameters or ():
            if parameter.name == "stream":
                problem = "Python has an argument of this name there; give the parameter another name"
            elif "TensorList" in parameter.type:
                problem = "the stream of arrays in a list is not known; take the tensors one by one"
            else:
                continue
            raise DeclarationError(
                f"{path}: {signature.name}: parameter {parameter.name!r}: in kernels with device sources {problem}"
            )


def case_unit(specialization: Specialization, files: Files | None = None) -> Unit:
    """Plan the case of one specialization; it is the same in JIT and in AOT mode.

    Args:
        specialization: the specialization.
        files: the files already read for units of the same load; default: none.

    Raises:
        DeclarationError: as for `entry_unit`.
    """
    kernel = specialization.kernel
    lines = [*_device_macro(kernel), *(f'#include "{name}"' for name in kernel.case)]
    lines += [f'DIMORPH_CASE_IS("{kernel.name}", "{specialization}")']
    lines += [f"DIMORPH_EXPORT_CASE({name})" for name in kernel.functions]
    return _unit("case", specialization.texts(), "\n".join([*lines, ""]), specialization.alone(), files)


def _device_macro(kernel: Declaration) -> list[str]:
    """Return the line that tells the headers of a kernel with device code."""
    return ["#define DIMORPH_HAS_DEVICE 1"] if kernel.device else []


def device_unit(specialization: Specialization, levels: tuple[Arch, ...], files: Files | None = None) -> Unit:
    """Plan the device code of one specialization; it is the same in JIT and in AOT mode.

    Args:
        specialization: the specialization.
        levels: the architectures that can serve the GPU; a load compiles for the first.
        files: the files already read for units of the same load; default: none.

    Raises:
        DeclarationError: as for `entry_unit`.
    """
    text = "".join(f'#include "{name}"\n' for name in specialization.kernel.device)
    unit = _unit("device", specialization.texts(), text, specialization.alone(), files)
    return replace(unit, archs=levels)


def system_include_dirs() -> tuple[Path, ...]:
    """Return the directories of the headers of tvm-ffi's C interface and of DLPack.

    Keys contain the version of this interface (`key.FFI_ABI`) instead of the content of its headers.

    Raises:
        DeclarationError: the package apache-tvm-ffi is not installed.
    """
    spec = find_spec("tvm_ffi")
    if spec is None or not spec.submodule_search_locations:
        raise DeclarationError("the package apache-tvm-ffi is not installed: pip install apache-tvm-ffi")
    return (Path(spec.submodule_search_locations[0]) / "include",)


def _unit(
    kind: str,
    values: Mapping[str, str],
    text: str,
    instantiations: InstantiationSet,
    files: Files | None,
    exports: Mapping[str, Signature] | None = None,
) -> Unit:
    kernel = instantiations.kernel
    header = config_header(instantiations, kind)
    bound = [left[0] for left in instantiations.values if len(left) == 1]
    variants = [inner for value in bound if isinstance(value, Variant) for inner in value.structs()]
    dirs = [kernel.root, *(_include_dir(kernel, name) for name in kernel.include_dirs)]
    dirs += [variant.root for variant in variants]
    include_dirs = tuple(dict.fromkeys([*dirs, INCLUDE]))
    for variant in variants:
        _check_header(variant, include_dirs)
        _check_params(variant, kernel)
    known = {value.name: value for left in instantiations.values for value in left if isinstance(value, Variant)}
    own = tuple(variants)
    unit = Unit(kind, kernel, values, text, header, include_dirs, (), exports or {}, variants=own, known=known)
    try:
        return replace(unit, sources=Scanner(include_dirs, {header_name(kernel): header}, files).scan(unit.names))
    except DeclarationError as error:
        for name in unit.names:
            if not any((directory / name).is_file() for directory in include_dirs):
                what = "case" if name in kernel.case else "device source"
                raise _missing_source(kernel, what, name, os.strerror(errno.ENOENT)) from error
        raise


def _missing_source(kernel: Declaration, what: str, name: str, reason: str) -> DeclarationError:
    """Return the error for a source of the author's that cannot be read, with one of a similar name beside it."""
    from difflib import get_close_matches  # here, because only an error needs it

    path = kernel.root / name
    others = get_close_matches(path.name, [found.name for found in path.parent.glob("*.c*")], 1)
    there = f"; there is {others[0]}" if others else ""
    return DeclarationError(f"{kernel.declared_at}: kernel {kernel.name}: {what} {path}: {reason}{there}")


def _include_dir(kernel: Declaration, name: str) -> Path:
    """Return the path of an include directory.

    Raises:
        DeclarationError: there is no such directory, so that the system's headers would be compiled instead.
    """
    path = (kernel.root / name).resolve()
    if not path.is_dir():
        raise DeclarationError(
            f"{kernel.declared_at}: kernel {kernel.name}: include_dirs: {name!r}: there is no directory {path}"
        )
    return path


def _check_header(variant: Variant, include_dirs: Sequence[Path]) -> None:
    """Refuse a variant whose header is missing, or hidden by another file, whose struct would be compiled instead.

    Raises:
        DeclarationError: the variant is refused; the message names its header.
    """
    own = variant.root / variant.header
    for directory in include_dirs:
        found = directory / variant.header
        if found == own and own.is_file():
            return
        if found.exists() and own.is_file():
            raise DeclarationError(
                f"variant {variant.name}: its header {own} is shadowed by {found}; give it another name"
            )
        if found.exists():
            raise DeclarationError(
                f"{variant.declared_at}: variant {variant.name}: there is no header {own}, beside the file that "
                f"declares the variant; for {found}, write root={str(directory)!r}"
            )
    others = ", ".join(sorted(found.name for found in variant.root.glob("*.h*"))) or "no headers"
    raise DeclarationError(
        f"{variant.declared_at}: variant {variant.name}: there is no header {own}; its directory has {others}"
    )


def _check_params(variant: Variant, kernel: Declaration) -> None:
    """Refuse a variant with a parameter whose name a kernel binds to a value of an axis.

    Raises:
        DeclarationError: there is one; the message names it.
    """
    for axis in kernel.axes:
        if clashes := [param.name for param in variant.params if param.name in axis.binds]:
            raise DeclarationError(
                f"{variant.declared_at}: variant {variant.name}: parameter {clashes[0]!r}: axis {axis.name} of kernel "
                f"{kernel.name} binds this name; give the parameter another name"
            )
