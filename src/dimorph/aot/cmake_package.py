"""Write a CMake package: kernels built ahead of time, for programs in C, C++ and Rust that run without Python.

DIR/include/<name>.h                       the C functions of all kernels
DIR/include/<name>/<kernel>.h              the C++ functions of a kernel
DIR/lib/lib<name>.so                       the library that programs link
DIR/lib/<name>/<level>/*.so                the objects that it loads: entries, cases, the thread pool
DIR/lib/<name>/<architecture>/*.cubin      device code
DIR/lib/cmake/<name>/<name>Config.cmake
DIR/rust/<name>.rs                         the same functions in Rust
DIR/src/<name>.cc                          the source of the library
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dimorph.aot.builder import Report, build
from dimorph.aot.discover import declared_in, package_name
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.declare.names import cpp_name_problem
from dimorph.declare.variant import Param, Variant
from dimorph.errors import DeclarationError
from dimorph.plan.key import digest
from dimorph.plan.pool import POOL
from dimorph.plan.unit import INCLUDE, entry_unit, system_include_dirs
from dimorph.settings import Settings
from dimorph.source.native_headers import c_header, cpp_header
from dimorph.source.native_library import NativeKernel, library_source
from dimorph.source.native_rust import rust_source
from dimorph.source.native_signature import signature
from dimorph.store.artifact import Artifact
from dimorph.toolchain import archs, targets
from dimorph.toolchain.elf_names import rename_undefined
from dimorph.toolchain.targets import Target

# The names of tvm-ffi's functions begin so.
_FFI = b"TVMFFI"
# Functions that every package has.
_OWN = ("last_error", "level", "set_stream", "on_missing", "build_missing", "dimorph_serve_1")
_CMAKE = """\
# {name}Config.cmake: find_package({name}) defines the target {name}::{name}; generated.
get_filename_component(_{name}_prefix "${{CMAKE_CURRENT_LIST_DIR}}/../../.." ABSOLUTE)
if(NOT TARGET {name}::{name})
  add_library({name}::{name} SHARED IMPORTED)
  set_target_properties({name}::{name} PROPERTIES
    IMPORTED_LOCATION "${{_{name}_prefix}}/lib/lib{name}.so"
    IMPORTED_NO_SONAME TRUE
    INTERFACE_INCLUDE_DIRECTORIES "${{_{name}_prefix}}/include")
  if(CMAKE_CXX_COMPILER_LOADED)
    set_property(TARGET {name}::{name} PROPERTY INTERFACE_COMPILE_FEATURES cxx_std_17)
  endif()
endif()
unset(_{name}_prefix)
"""


@dataclass(frozen=True)
class Package:
    """A package that was written: its name, its directory, and the number of objects that its library loads."""

    name: str
    directory: Path
    objects: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.objects} objects and lib{self.name}.so in {self.directory}; "
            f"find_package({self.name}) with CMAKE_PREFIX_PATH={self.directory}"
        )


def write(
    directory: Path,
    spec: str,
    built: Sequence[tuple[InstantiationSet, Report]],
    command: str,
    settings: Settings,
) -> Package:
    """Write the package of sets that were built.

    Args:
        directory: the prefix of the package; several packages can share it.
        spec: the `PACKAGE_OR_FILE[:KERNEL]` that declares the kernels, after which the package is named.
        built: each set with the report of its build, all for the same target levels.
        command: the command that builds the package, for messages of calls whose values it lacks.
        settings: the settings of the builds.

    Raises:
        DeclarationError: a function has a parameter or result that C cannot pass, or two kernels export one name.
        BuildError: the library could not be compiled.
        OSError: the directory cannot be written.
    """
    source = declared_in(spec)
    name = package_name(spec)
    if problem := cpp_name_problem(name):
        raise DeclarationError(f"the name of the package: {problem}")
    kernels = [_kernel(instantiations, report) for instantiations, report in built]
    _check_names(name, kernels)
    artifacts = {artifact.meta.key: artifact for _, report in built for artifact in report.artifacts}
    hosts = {artifact.meta.target for artifact in artifacts.values() if artifact.meta.kind != "device"}
    levels = [level for level in _all_levels(hosts) if level.name in hosts]
    # Two packages in one process have different functions, so that each finds its own errors.
    prefix = "D" + digest([name, *sorted(artifacts)])[:5]
    functions = [function for kernel in kernels for function in kernel.functions]
    root = directory.resolve()
    objects = root / "lib" / name
    for old in (objects, root / "include" / name):
        if old.exists() and not (root / "lib" / "cmake" / name).is_dir():
            raise DeclarationError(f"{old}: expected what an earlier build of the package {name} left")
        shutil.rmtree(old, ignore_errors=True)
    for kernel, (_, report) in zip(kernels, built, strict=True):
        for artifact in report.artifacts:
            _copy(artifact, objects / artifact.meta.target / _file_name(kernel, artifact), prefix.encode())
    needed = [(level.name, sorted(level.needs)) for level in levels]
    _write(root / "src" / f"{name}.cc", library_source(name, prefix, source, command, needed, kernels))
    library = _compile(name, root / "src", levels[-1], settings)
    _replace(root / "lib" / f"lib{name}.so", library)
    _write(root / "lib" / "cmake" / name / f"{name}Config.cmake", _CMAKE.format(name=name))
    _write(root / "include" / f"{name}.h", c_header(name, functions))
    for kernel in kernels:
        _write(root / "include" / name / f"{kernel.name}.h", cpp_header(name, kernel.name, kernel.functions))
    native = INCLUDE / "dimorph" / "native"
    for header in ("status.h", "views.h"):
        _replace(root / "include" / name / "dimorph" / header, (native / header).read_bytes())
    _write(root / "rust" / f"{name}.rs", rust_source(name, functions, (native / "tensors.rs").read_text("utf-8")))
    dlpack = system_include_dirs()[0] / "dlpack" / "dlpack.h"
    _replace(root / "include" / "dlpack" / "dlpack.h", dlpack.read_bytes())
    return Package(name, root, sum(1 for found in objects.rglob("*") if found.is_file()))


def _kernel(instantiations: InstantiationSet, report: Report) -> NativeKernel:
    kernel = instantiations.kernel
    what = f"kernel {kernel.name}"
    source = (kernel.root / kernel.entry).read_text("utf-8", "surrogateescape")
    exports = entry_unit(instantiations).exports
    variant = _variant_params(instantiations)
    compiled: dict[str, set[str]] = {}
    for artifact in report.artifacts:
        if artifact.meta.kind == "device":
            compiled.setdefault(_values(artifact), set()).add(artifact.meta.target)
    cases: list[tuple[str, tuple[str, ...]] | None] = []
    for slot in range(instantiations.slots):
        specialization = instantiations.specialization(slot)
        if specialization is None or not kernel.case:
            cases.append(None)
            continue
        ordered = sorted(map(archs.by_name, compiled.get(str(specialization), ())), key=lambda one: one.rank)
        cases.append((f"{specialization.namespace}_{slot}", tuple(arch.name for arch in reversed(ordered))))
    functions = tuple(signature(source, name, variant, what) for name in exports)
    parallel = any(artifact.meta.kernel == POOL.name for artifact in report.artifacts)
    return NativeKernel(instantiations, functions, tuple(cases), parallel)


def _variant_params(instantiations: InstantiationSet) -> tuple[Param, ...] | None:
    """Return the parameters of the variant of a set, which has one or none; None if it has several."""
    variants = [value for values in instantiations.values for value in values if isinstance(value, Variant)]
    if len(variants) > 1:
        return None
    return tuple(variants[0].params) if variants else ()


def _check_names(package: str, kernels: Sequence[NativeKernel]) -> None:
    owners: dict[str, str] = dict.fromkeys(_OWN, f"the package {package}")
    for kernel in kernels:
        for function in kernel.functions:
            if other := owners.get(function.name):
                raise DeclarationError(
                    f"kernel {kernel.name}: it exports {function.name}, and so does {other}: functions of a package "
                    "need names of their own"
                )
            owners[function.name] = f"kernel {kernel.name}"


def _all_levels(names: set[str]) -> Sequence[Target]:
    """Return the levels of the machine that some levels belong to, best first."""
    return targets.levels(targets.by_name(next(iter(names))).machine)


def _values(artifact: Artifact) -> str:
    return ", ".join(f"{name}={text}" for name, text in artifact.meta.specialization.items()) or "no axes"


def _file_name(kernel: NativeKernel, artifact: Artifact) -> str:
    """Return the name under which the library finds an artifact."""
    suffix = Path(artifact.object_name()).suffix
    if artifact.meta.kernel == POOL.name or artifact.meta.kind == "entry":
        return f"{artifact.meta.kernel}{suffix}"
    slots = range(kernel.instantiations.slots)
    slot = next(slot for slot in slots if str(kernel.instantiations.specialization(slot)) == _values(artifact))
    case = kernel.cases[slot]
    assert case is not None, artifact
    return f"{case[0]}{suffix}"


def _copy(artifact: Artifact, path: Path, prefix: bytes) -> None:
    content = artifact.file.read_bytes()
    _replace(path, content if artifact.meta.kind == "device" else rename_undefined(content, _FFI, prefix))


def _compile(name: str, root: Path, level: Target, settings: Settings) -> bytes:
    """Return the content of the package's library."""
    declared = Declaration(name=name, entry=f"{name}.cc", root=root, origin=root / f"{name}.cc")
    with tempfile.TemporaryDirectory(prefix="dimorph-") as out:
        report = build(instantiate(declared), out, targets=[level.name], settings=settings)
        return report.artifacts[0].file.read_bytes()


def _write(path: Path, text: str) -> None:
    _replace(path, text.encode("utf-8", "surrogateescape"))


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew; programs that have the old one open keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
