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

import ctypes
import functools
import re
import shlex
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
from dimorph.errors import DeclarationError, LoadError
from dimorph.plan.key import digest
from dimorph.plan.pool import POOL
from dimorph.plan.unit import INCLUDE, entry_unit, system_include_dirs
from dimorph.settings import Settings
from dimorph.source.native_headers import c_header, cpp_header
from dimorph.source.native_library import NativeKernel, library_source
from dimorph.source.native_rust import rust_source
from dimorph.source.native_signature import signature
from dimorph.store import links
from dimorph.store.artifact import Artifact
from dimorph.toolchain import archs, targets
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.elf_names import rename_undefined, undefined
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
    directory: Path, words: Sequence[str], built: Sequence[tuple[InstantiationSet, Report]], settings: Settings
) -> Package:
    """Write the package of sets that were built.

    Args:
        directory: the prefix of the package; several packages can share it.
        words: what follows `dimorph build`, for messages of calls whose values the package lacks. The first is the
            `PACKAGE_OR_FILE[:KERNEL]` that declares the kernels, after which the package is named.
        built: each set with the report of its build, all for the same target levels.
        settings: the settings of the builds.

    Raises:
        DeclarationError: a function has a parameter or result that C cannot pass, or two kernels export one name.
        BuildError: the library could not be compiled.
        LoadError: an object takes a function that the library does not have.
        OSError: the directory cannot be written.
    """
    name = package_name(words[0])
    if problem := cpp_name_problem(name):
        raise DeclarationError(f"a CMake package has the name of the module or file that is built: {problem}")
    kernels = [_kernel(instantiations, report) for instantiations, report in built]
    _check_names(name, kernels)
    artifacts = {artifact.meta.key: artifact for _, report in built for artifact in report.artifacts}
    hosts = {artifact.meta.target for artifact in artifacts.values() if artifact.meta.kind != "device"}
    levels = [level for level in _all_levels(hosts) if level.name in hosts]
    # Two packages in one process have different functions, so that each finds its own errors.
    prefix = "D" + digest([name, *sorted(artifacts)])[:5]
    objects = {
        f"{artifact.meta.target}/{_file_name(instantiations, artifact)}": _content(artifact, prefix)
        for instantiations, report in built
        for artifact in report.artifacts
    }
    objects |= {
        f"{artifact.meta.target}/{link.file}": (artifact.path / link.file).read_bytes()
        for artifact in artifacts.values()
        for link in links.read(artifact)
        if _packed(artifact, link)
    }
    needed = [(level.name, sorted(level.needs)) for level in levels]
    command = shlex.join(["dimorph", "build", *words, "--cmake", str(directory)])
    text = library_source(name, prefix, declared_in(words[0]), command, needed, kernels)
    library = _compiled(name, text, levels[-1], settings)
    root = directory.resolve()
    own = (root / "lib" / name, root / "include" / name)
    for folder in own:
        if folder.exists() and not (root / "lib" / "cmake" / name).is_dir():
            raise DeclarationError(f"{folder}: expected what an earlier build of the package {name} left")
    files = {f"lib/{name}/{path}": content for path, content in objects.items()}
    files |= {f"lib/lib{name}.so": library, **_texts(name, text, kernels)}
    for path, content in files.items():
        _replace(root / path, content)
    for folder in own:
        for left in folder.rglob("*"):
            if left.is_file() and left.relative_to(root).as_posix() not in files:
                left.unlink()
    return Package(name, root, len(objects))


def _packed(artifact: Artifact, link: links.Link) -> bool:
    """Return True if a library lies beside the objects that need it.

    Raises:
        DeclarationError: it is in a Python package, which a program without Python cannot search.
    """
    if link.how == "required":
        raise DeclarationError(
            f"kernel {artifact.meta.kernel}: it needs {link.file} of the Python package {link.package}, which programs "
            "without Python do not have: declare the dependency with bundle=True"
        )
    return link.how == "bundled"


def _texts(name: str, source: str, kernels: Sequence[NativeKernel]) -> dict[str, bytes]:
    """Return the text files of a package, by their paths in it."""
    functions = [function for kernel in kernels for function in kernel.functions]
    native = INCLUDE / "dimorph" / "native"
    texts = {
        f"src/{name}.cc": source,
        f"lib/cmake/{name}/{name}Config.cmake": _CMAKE.format(name=name),
        f"include/{name}.h": c_header(name, functions),
        **{f"include/{name}/{one.name}.h": cpp_header(name, one.name, one.functions) for one in kernels},
        **{f"include/{name}/dimorph/{file}": (native / file).read_text("utf-8") for file in ("status.h", "views.h")},
        "include/dlpack/dlpack.h": (system_include_dirs()[0] / "dlpack" / "dlpack.h").read_text("utf-8"),
        f"rust/{name}.rs": rust_source(name, functions, (native / "tensors.rs").read_text("utf-8")),
    }
    return {path: text.encode("utf-8", "surrogateescape") for path, text in texts.items()}


def _kernel(instantiations: InstantiationSet, report: Report) -> NativeKernel:
    kernel = instantiations.kernel
    source = (kernel.root / kernel.entry).read_text("utf-8", "surrogateescape")
    variant = _variant_params(instantiations)
    functions = [
        signature(source, name, variant, f"kernel {kernel.name}") for name in entry_unit(instantiations).exports
    ]
    compiled: dict[frozenset[tuple[str, str]], list[Arch]] = {}
    for artifact in report.artifacts:
        if artifact.meta.kind == "device":
            compiled.setdefault(_values(artifact), []).append(archs.by_name(artifact.meta.target))
    cases: list[tuple[str, tuple[str, ...]] | None] = [None] * instantiations.slots
    for values, (slot, name) in _case_names(instantiations).items():
        ordered = sorted(compiled.get(values, ()), key=lambda arch: arch.rank, reverse=True)
        cases[slot] = name, tuple(arch.name for arch in ordered)
    parallel = any(artifact.meta.kernel == POOL.name for artifact in report.artifacts)
    return NativeKernel(instantiations, tuple(functions), tuple(cases), parallel)


@functools.lru_cache(maxsize=1)
def _case_names(instantiations: InstantiationSet) -> dict[frozenset[tuple[str, str]], tuple[int, str]]:
    """Return the values of each case -> its slot, and the name of its files."""
    found = {}
    for slot in range(instantiations.slots) if instantiations.kernel.case else ():
        if specialization := instantiations.specialization(slot):
            found[frozenset(specialization.texts().items())] = slot, f"{specialization.namespace}_{slot}"
    return found


def _variant_params(instantiations: InstantiationSet) -> tuple[Param, ...] | None:
    """Return the parameters of the variant of a set, which has one or none; None if it has several."""
    variants = [value for values in instantiations.values for value in values if isinstance(value, Variant)]
    if len(variants) > 1:
        return None
    return tuple(variants[0].params) if variants else ()


def _check_names(package: str, kernels: Sequence[NativeKernel]) -> None:
    if package in ("std", "dimorph", "errno") or hasattr(ctypes.CDLL(None), package):
        raise DeclarationError(
            f"package {package}: it has the name of a function of the C library, or of a namespace in C++: give the "
            "module that declares the kernels another name"
        )
    owners: dict[str, str] = dict.fromkeys(_OWN, f"the package {package}")
    for kernel in kernels:
        for function in kernel.functions:
            names = [argument.name for argument in function.arguments]
            if twice := [name for name in names if names.count(name) > 1]:
                raise DeclarationError(
                    f"kernel {kernel.name}: {function.name} and its variant both have a parameter {twice[0]!r}: "
                    "C++ programs need different names"
                )
            for argument in function.arguments:
                if argument.name.startswith(f"{package}_"):
                    raise DeclarationError(
                        f"kernel {kernel.name}: {function.name}: parameter {argument.name!r}: expected a name that "
                        f"does not begin with {package}_, as the functions in C do"
                    )
            if other := owners.get(function.name):
                raise DeclarationError(
                    f"kernel {kernel.name}: it exports {function.name}, and so does {other}: functions of a package "
                    "need names of their own"
                )
            owners[function.name] = f"kernel {kernel.name}"


def _all_levels(names: set[str]) -> Sequence[Target]:
    """Return the levels of the machine that some levels belong to, best first."""
    return targets.levels(targets.by_name(next(iter(names))).machine)


def _values(artifact: Artifact) -> frozenset[tuple[str, str]]:
    return frozenset(artifact.meta.specialization.items())


def _file_name(instantiations: InstantiationSet, artifact: Artifact) -> str:
    """Return the name under which the library finds an artifact."""
    suffix = Path(artifact.object_name()).suffix
    if artifact.meta.kernel == POOL.name or artifact.meta.kind == "entry":
        return f"{artifact.meta.kernel}{suffix}"
    return f"{_case_names(instantiations)[_values(artifact)][1]}{suffix}"


def _content(artifact: Artifact, prefix: str) -> bytes:
    """Return an artifact's object, its functions of tvm-ffi renamed to those of the library.

    Raises:
        LoadError: it takes a function that the library does not have.
    """
    content = artifact.file.read_bytes()
    if artifact.meta.kind == "device":
        return content
    if lacking := undefined(content, _FFI) - _provided():
        raise LoadError(
            f"{artifact.meta.kernel} {artifact.meta.kind}: it calls {', '.join(sorted(lacking))}, which programs "
            "without Python do not have"
        )
    return rename_undefined(content, _FFI, prefix.encode())


def _provided() -> set[str]:
    """Return the names of the functions of tvm-ffi that the library has."""
    text = (INCLUDE / "dimorph" / "native" / "ffi.h").read_text("utf-8")
    return {f"{_FFI.decode()}{name}" for name in re.findall(r"\bDIMORPH_FFI\((\w+)\)", text)}


def _compiled(name: str, text: str, level: Target, settings: Settings) -> bytes:
    """Return the content of the package's library."""
    with tempfile.TemporaryDirectory(prefix="dimorph-") as work:
        source = Path(work) / f"{name}.cc"
        source.write_text(text, "utf-8", "surrogateescape")
        declared = Declaration(name=name, entry=source.name, case=(), root=source.parent, origin=source)
        report = build(instantiate(declared), source.parent / "out", targets=[level.name], settings=settings)
        return report.artifacts[0].file.read_bytes()


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew, unless it has this content; programs that have the old one open keep it."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)
