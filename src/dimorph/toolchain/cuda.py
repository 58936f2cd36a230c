"""Compilers for device code: find NVRTC or nvcc, make its command lines, read its messages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from dimorph import _lazy
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import flags, nvidia_driver
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.compiler import DeviceReport, Level
from dimorph.toolchain.identity import Identity, identify

Dialect = Literal["nvrtc", "nvcc"]
Version = tuple[int, int]

_WORKER = Path(__file__).with_name("nvrtc.py")
# The first version of NVRTC that contains the CUDA headers.
_BUNDLES_HEADERS = (13, 3)
_TOOLKITS = (Path("/usr/local/cuda"),)
_MEND = "pip install nvidia-cuda-nvrtc"


class CudaCompiler(NamedTuple):
    """A compiler for device code; see `dimorph.toolchain.compiler.Compiler`.

    Attributes:
        dialect: `nvrtc`, which runs in a process of its own, or `nvcc`.
        program: the absolute path of NVRTC's library or of the nvcc program.
        version: the CUDA version that the compiler belongs to.
        include: the directory of the CUDA headers; None: NVRTC contains them, or nvcc finds them itself.
        path: the PATH that the compiler runs with.
    """

    dialect: Dialect
    program: Path
    version: Version
    include: Path | None
    path: str

    @property
    def command(self) -> tuple[str, ...]:
        """The compiler program (or NVRTC's library), for messages."""
        return (str(self.program),)

    def compile_command(
        self,
        source: Path,
        output: Path,
        *,
        target: Level,
        include_dirs: Sequence[Path] = (),
        system_include_dirs: Sequence[Path] = (),
        prefix_map: Mapping[Path, str] | None = None,
        debug: bool = False,
        extra_flags: Sequence[str] = (),
        memo_dir: Path | None = None,
        listing: bool = False,
    ) -> list[str]:
        """Return the command line that compiles `source` to `output`, a cubin or PTX as its suffix says.

        The prefix map, the system directories and the extra flags have no effect: device code contains no file names,
        uses no headers of the host and takes no flags of the user. NVRTC installs the CUDA headers that it contains in
        `memo_dir`.
        """
        assert isinstance(target, Arch) and memo_dir is not None
        words = [
            *flags.DEVICE_COMMON,
            *flags.DEVICE_DIALECTS[self.dialect],
            *(flags.DEVICE_DEBUG if debug else ()),
            *(() if target.ptx else flags.DEVICE_VERBOSE[self.dialect]),
            *(f"-I{directory}" for directory in include_dirs),
            *(flags.LISTING[self.dialect] if listing else ()),
        ]
        number = target.name.partition("_")[2]
        if self.dialect == "nvcc":
            # `-arch=sm_90` would be shorter, but makes nvcc run its front end a second time, for PTX.
            code = f"-gencode=arch=compute_{number},code={target.name}"
            kind = "-ptx" if target.ptx else "-cubin"
            return [str(self.program), kind, code, *words, str(source), "-o", str(output)]
        headers = "-" if self.include else str(memo_dir / f"nvrtc-headers-{self.version[0]}.{self.version[1]}")
        system = [f"-I{self.include}"] if self.include else []
        worker = [_interpreter(), "-I", "-S", str(_WORKER), str(self.program), headers, str(source), str(output)]
        return [*worker, f"-arch={target.name}", *words, *system]

    def roots(self) -> dict[str, Path]:
        """Return the directory of the CUDA headers for NVRTC."""
        return {"cuda": self.include} if self.include else {}

    def tools(self) -> tuple[str, ...]:
        """Return the libraries of NVRTC, or the host compiler with which nvcc preprocesses."""
        if self.dialect == "nvcc":
            return ("g++",)
        return (str(self.program), *map(str, sorted(self.program.parent.glob("libnvrtc-builtins.so.*.*"))))

    def environment(self, work_dir: Path, memo_dir: Path | None = None) -> dict[str, str]:
        """Return the complete environment for a compile; NVCC_APPEND_FLAGS and the like are not passed on."""
        # Since 12.9 NVRTC caches its output in a cache of its own, which our content keys do not cover.
        return {"PATH": self.path, "LC_ALL": "C", "TMPDIR": str(work_dir), "CUDA_CACHE_DISABLE": "1"}

    def identity(self, memo_dir: Path | None) -> Identity:
        """Return the identity of the compiler; see `dimorph.toolchain.identity`."""
        return identify((str(self.program), *self._parts()), self.dialect, self.path, memo_dir)

    def suffix(self, target: Level) -> str:
        """Return `.ptx` for PTX, `.cubin` for machine code."""
        return ".ptx" if isinstance(target, Arch) and target.ptx else ".cubin"

    def check(self, target: Level) -> None:
        """Refuse to compile code that the NVIDIA driver of this machine would not load.

        Raises:
            ToolchainError: the NVIDIA driver is too old; the message says how to mend it.
        """
        assert isinstance(target, Arch)
        needed, there = self.oldest_driver(target), nvidia_driver.find()
        if there and needed > there.version:
            raise ToolchainError(
                f"{self.program} is of CUDA {describe(self.version)}: its code for {target.name} needs an NVIDIA "
                f"driver for CUDA {describe(needed)}, this one is for {describe(there.version)}; update the driver, or "
                f"install an older compiler: pip install 'nvidia-cuda-nvrtc-cu{there.version[0]}'"
            )

    def report(self, target: Level, output: str) -> DeviceReport | None:
        """Return the assembler's report on registers and spills, and the warnings."""
        from dimorph.toolchain import ptxas  # here, because only a build needs its patterns

        assert isinstance(target, Arch)
        kernels, messages = ptxas.report(output)
        return DeviceReport(describe(self.oldest_driver(target)), kernels, messages)

    def oldest_driver(self, arch: Arch) -> Version:
        """Return the CUDA version of the oldest NVIDIA driver that loads its code for an architecture.

        Every driver of the same major version loads machine code. PTX is compiled by the driver, which must be as new
        as the compiler.
        """
        return self.version if arch.ptx else (self.version[0], 0)

    def _parts(self) -> Iterator[str]:
        """Yield the files besides the program that determine its output."""
        if self.dialect == "nvcc":
            here = self.program.resolve().parent
            backends = (here / "cudafe++", here / "ptxas", here.parent / "nvvm/bin/cicc")
            yield from (str(file) for file in backends if file.is_file())
            return
        yield from map(str, sorted(self.program.parent.glob("libnvrtc-builtins.so.*.*")))
        if self.include:
            yield from map(str, (self.include / name for name in ("cuda_fp16.hpp", "cuda_bf16.hpp")))


def find(settings: Settings) -> CudaCompiler:
    """Find the compiler: the nvcc that the settings name, else NVRTC (pip's, then a toolkit's), else nvcc on PATH.

    Starts no process and loads no library.

    Raises:
        ToolchainError: the nvcc named is missing, or there is no compiler; the message says what to install.
    """
    if settings.nvcc is not None:
        named = _lazy.shutil.which(settings.nvcc, path=settings.path)
        if named is None:
            raise ToolchainError(f"DIMORPH_NVCC={settings.nvcc}: there is no such program (PATH={settings.path})")
        return _nvcc(named, settings)
    lacking = ""
    for library in _libraries():
        version = _version(library)
        if version is None:
            continue
        include = next((folder for folder in _include_dirs(library) if (folder / "cuda_fp16.h").is_file()), None)
        if include or version >= _BUNDLES_HEADERS:
            return CudaCompiler("nvrtc", library, version, include, settings.path)
        lacking = f"{library} lacks the CUDA headers (pip install nvidia-cuda-runtime); "
    if nvcc := _lazy.shutil.which("nvcc", path=settings.path):
        return _nvcc(nvcc, settings)
    raise ToolchainError(
        f"no compiler for device code: {lacking}no NVRTC in a pip package or in {_TOOLKITS[0]}, no nvcc on PATH. "
        f"Install one: `{_MEND}`"
    )


def _libraries() -> list[Path]:
    """Return every NVRTC library on this machine: those of pip, newest first, then those of toolkits."""
    spec = find_spec("nvidia")
    packages = [Path(location) for location in (spec.submodule_search_locations or ())] if spec else []
    packaged = [
        file
        for package in packages
        for name in _names(package)
        for file in _numbered("libnvrtc.so.", package / name / "lib")
    ]
    packaged.sort(key=lambda file: _version(file) or (0, 0), reverse=True)
    return packaged + [file for root in _TOOLKITS for file in _numbered("libnvrtc.so.", root / "lib64")]


def _numbered(prefix: str, directory: Path) -> list[Path]:
    """Return the files of a directory whose names are `prefix` and a version."""
    return [
        directory / name for name in _names(directory) if name.startswith(prefix) and name[len(prefix) :][:1].isdigit()
    ]


def _names(directory: Path) -> list[str]:
    """Return the names in a directory, sorted; none if it is missing or cannot be read."""
    # Every store hit in a new process runs this; `glob` would be slower, because it compiles its patterns first.
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _version(library: Path) -> Version | None:
    """Return the version of an NVRTC, read from the name of the library of its built-in functions; None: unknown."""
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
    """Return the directory of a CUDA toolkit, preferably that of the nvcc in use; None if there is none."""
    nvcc = _lazy.shutil.which(settings.nvcc or "nvcc", path=settings.path)
    own = (Path(nvcc).resolve().parent.parent,) if nvcc else ()
    return next((root for root in (*own, *_TOOLKITS) if (root / "include" / "cuda.h").is_file()), None)


def _nvcc(name: str, settings: Settings) -> CudaCompiler:
    program = Path(name).absolute()
    root = toolkit(settings)
    text = (root / "include" / "cuda.h").read_text("utf-8", "replace") if root else ""
    match = re.search(r"#define CUDA_VERSION (\d+)", text)
    if root is None or match is None:
        raise ToolchainError(f"{program}: its toolkit has no include/cuda.h; `{_MEND}` brings a compiler of its own")
    number, real = int(match[1]), root / "bin" / "nvcc"
    # The nvcc on PATH may be a script that starts the real one.
    found = real if real.is_file() else program
    return CudaCompiler("nvcc", found, (number // 1000, number % 1000 // 10), None, settings.path)


def _interpreter() -> str:
    if not sys.executable:
        raise ToolchainError(
            "NVRTC runs in a separate Python process, but sys.executable names no interpreter; "
            "name an nvcc instead: DIMORPH_NVCC"
        )
    return sys.executable


def describe(version: Version) -> str:
    """Return a version as text, e.g. `13.0`."""
    return f"{version[0]}.{version[1]}"
