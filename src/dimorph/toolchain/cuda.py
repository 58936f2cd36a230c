"""The compiler for device code, NVRTC or nvcc: found, described as command lines, its messages read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from dimorph import late
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.identity import Identity, identify

Family = Literal["nvrtc", "nvcc"]
Version = tuple[int, int]

# --- Flags that decide what is produced. `flags_id` covers every table from here to the next heading. ---

_COMMON = ("-std=c++17",)
_FAMILY_FLAGS: dict[Family, tuple[str, ...]] = {
    # Without annotation, a function of a device file is one for the device: lambdas and constexpr functions above all.
    "nvrtc": ("-default-device",),
    "nvcc": ("--expt-relaxed-constexpr", "--extended-lambda"),
}
_DEBUG = ("-G",)

# --- Flags that change messages, never what is produced ---

# The assembler's word on registers, spills and serialised instructions, which `report` reads.
_VERBOSE: dict[Family, tuple[str, ...]] = {"nvrtc": ("--ptxas-options=-v",), "nvcc": ("-Xptxas", "-v")}

_WORKER = Path(__file__).with_name("nvrtc.py")
# The first NVRTC that brings the CUDA headers along.
_BUNDLES_HEADERS = (13, 3)
_TOOLKITS = (Path("/usr/local/cuda"),)
_MEND = "pip install nvidia-cuda-nvrtc"


def flags_id(*, arch: Arch, debug: bool) -> str:
    """The text of everything declared that can change what a compile produces, for the content key.

    As `host.flags_id`, it names no family: which compiler it was is the other part of an artifact's address.
    """
    tables = {"common": [_COMMON, _DEBUG if debug else ()], "families": _FAMILY_FLAGS, "arch": arch.name}
    return late.json.dumps(tables, sort_keys=True)


class CudaToolchain(NamedTuple):
    """A compiler for device code.

    Attributes:
        family: NVRTC, run in a process of its own, or nvcc.
        program: NVRTC's library, or the nvcc driver, as an absolute path.
        version: the CUDA version that it belongs to.
        include: where its CUDA headers are; None: it brings them along (NVRTC), or finds them (nvcc).
        path: the PATH that it runs with.
    """

    family: Family
    program: Path
    version: Version
    include: Path | None
    path: str

    @property
    def command(self) -> tuple[str, ...]:
        """What a message calls it."""
        return (str(self.program),)

    def compile_command(
        self,
        source: Path,
        output: Path,
        *,
        arch: Arch,
        memo_dir: Path,
        include_dirs: Sequence[Path] = (),
        debug: bool = False,
    ) -> list[str]:
        """The command line that makes `output`, a cubin or PTX as its suffix says, of `source`.

        Args:
            source: a CUDA file.
            output: the file to write.
            arch: what to compile for.
            memo_dir: a lasting directory, in which NVRTC keeps the CUDA headers that it brings along.
            include_dirs: searched for headers, in order.
            debug: no optimisation, and lines that a debugger can stop on.
        """
        flags = [
            *_COMMON,
            *_FAMILY_FLAGS[self.family],
            *(_DEBUG if debug else ()),
            *(() if arch.ptx else _VERBOSE[self.family]),
            *(f"-I{directory}" for directory in include_dirs),
        ]
        number = arch.name.partition("_")[2]
        if self.family == "nvcc":
            # Spelled out: the short form adds a second run of the front end, for PTX.
            code = f"-gencode=arch=compute_{number},code={arch.name}"
            kind = "-ptx" if arch.ptx else "-cubin"
            return [str(self.program), kind, code, *flags, str(source), "-o", str(output)]
        headers = "-" if self.include else str(memo_dir / f"nvrtc-headers-{self.version[0]}.{self.version[1]}")
        system = [f"-I{self.include}"] if self.include else []
        interpreter = [_interpreter(), "-I", "-S", str(_WORKER)]
        return [
            *interpreter,
            str(self.program),
            headers,
            str(source),
            str(output),
            f"-arch={arch.name}",
            *flags,
            *system,
        ]

    def environment(self, work_dir: Path) -> dict[str, str]:
        """The complete environment to compile in; nothing else is passed on, such as NVCC_APPEND_FLAGS."""
        # NVRTC keeps what it has compiled by itself (since 12.9), in a cache that none of our keys knows of.
        return {"PATH": self.path, "LC_ALL": "C", "TMPDIR": str(work_dir), "CUDA_CACHE_DISABLE": "1"}

    def identity(self, memo_dir: Path | None) -> Identity:
        """Which compiler this is; see `dimorph.toolchain.identity`."""
        return identify((str(self.program), *self._parts()), self.family, self.path, memo_dir)

    def oldest_driver(self, arch: Arch) -> Version:
        """The CUDA version of the oldest driver that loads what it makes for an architecture.

        Machine code runs on every driver of the same major version; PTX has to be understood by the driver, so it
        needs one as new as the compiler.
        """
        return self.version if arch.ptx else (self.version[0], 0)

    def _parts(self) -> Iterator[str]:
        """The files beside the program that decide what it produces."""
        if self.family == "nvcc":
            here = self.program.resolve().parent
            backends = (here / "cudafe++", here / "ptxas", here.parent / "nvvm/bin/cicc")
            yield from (str(file) for file in backends if file.is_file())
            return
        yield from map(str, sorted(self.program.parent.glob("libnvrtc-builtins.so.*.*")))
        if self.include:
            yield from map(str, (self.include / name for name in ("cuda_fp16.hpp", "cuda_bf16.hpp")))


def find(settings: Settings) -> CudaToolchain:
    """The compiler to use: the one the settings name, else NVRTC (of pip, then of a toolkit), else nvcc on PATH.

    Starts no process and loads nothing.

    Raises:
        ToolchainError: the one named is not there, or there is none; the message says what to install.
    """
    if settings.nvcc is not None:
        driver = late.shutil.which(settings.nvcc, path=settings.path)
        if driver is None:
            raise ToolchainError(f"DIMORPH_NVCC={settings.nvcc}: there is no such program (PATH={settings.path})")
        return _nvcc(driver, settings)
    lacking = ""
    for library in _libraries():
        version = _version(library)
        if version is None:
            continue
        include = next((place for place in _include_dirs(library) if (place / "cuda_fp16.h").is_file()), None)
        if include or version >= _BUNDLES_HEADERS:
            return CudaToolchain("nvrtc", library, version, include, settings.path)
        lacking = f"{library} lacks the CUDA headers (pip install nvidia-cuda-runtime); "
    if driver := late.shutil.which("nvcc", path=settings.path):
        return _nvcc(driver, settings)
    raise ToolchainError(
        f"no compiler for device code: {lacking}no NVRTC in a pip package or in {_TOOLKITS[0]}, no nvcc on PATH. "
        f"Install one: `{_MEND}`"
    )


def _libraries() -> list[Path]:
    """Every NVRTC there is: those of pip, newest first, then those of toolkits."""
    spec = find_spec("nvidia")
    packages = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    packaged = [
        file
        for package in packages
        for name in _names(package)
        for file in _numbered("libnvrtc.so.", package / name / "lib")
    ]
    packaged.sort(key=lambda file: _version(file) or (0, 0), reverse=True)
    return packaged + [file for root in _TOOLKITS for file in _numbered("libnvrtc.so.", root / "lib64")]


def _numbered(prefix: str, directory: Path) -> list[Path]:
    """A directory's files with that name and a version behind it."""
    return [
        directory / name for name in _names(directory) if name.startswith(prefix) and name[len(prefix) :][:1].isdigit()
    ]


def _names(directory: Path) -> list[str]:
    """What is in a directory, sorted; nothing where there is none that can be read."""
    # On the path of a store hit in a new process, where `glob` would have to compile its patterns first.
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _version(library: Path) -> Version | None:
    """The version of an NVRTC, which the name of the library of its built-in functions tells."""
    for file in _numbered("libnvrtc-builtins.so.", library.parent):
        if match := re.search(r"\.so\.(\d+)\.(\d+)", file.name):
            return int(match[1]), int(match[2])
    return None


def _include_dirs(library: Path) -> Iterator[Path]:
    root = library.parent.parent
    yield root / "include"
    # CUDA 12's packages: nvidia/cuda_nvrtc, nvidia/cuda_runtime.
    yield root.parent / "cuda_runtime" / "include"


def toolkit(settings: Settings) -> Path | None:
    """The directory of a CUDA toolkit, that of the nvcc in use first; None without one."""
    driver = late.shutil.which(settings.nvcc or "nvcc", path=settings.path)
    own = (Path(driver).resolve().parent.parent,) if driver else ()
    return next((root for root in (*own, *_TOOLKITS) if (root / "include" / "cuda.h").is_file()), None)


def _nvcc(driver: str, settings: Settings) -> CudaToolchain:
    program = Path(driver).absolute()
    root = toolkit(settings)
    text = (root / "include" / "cuda.h").read_text("utf-8", "replace") if root else ""
    match = re.search(r"#define CUDA_VERSION (\d+)", text)
    if root is None or match is None:
        raise ToolchainError(f"{program}: its toolkit has no include/cuda.h; `{_MEND}` brings a compiler of its own")
    number, real = int(match[1]), root / "bin" / "nvcc"
    # What is on PATH may be a script that starts the real one.
    found = real if real.is_file() else program
    return CudaToolchain("nvcc", found, (number // 1000, number % 1000 // 10), None, settings.path)


def _interpreter() -> str:
    if not sys.executable:
        raise ToolchainError(
            "NVRTC runs in a Python of its own, and this process knows none; name an nvcc: DIMORPH_NVCC"
        )
    return sys.executable


def describe(version: Version) -> str:
    """`13.0`."""
    return f"{version[0]}.{version[1]}"
