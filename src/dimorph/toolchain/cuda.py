"""Compilers for device code: find NVRTC or nvcc, make its command lines, read its messages."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from dimorph import _lazy
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import flags, nvidia_driver
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.compiler import DeviceReport, Level
from dimorph.toolchain.identity import Identity, identify

if TYPE_CHECKING:
    from dimorph.toolchain.found import Found
    from dimorph.toolchain.process import Completed, Group

Dialect = Literal["nvrtc", "nvcc"]
Version = tuple[int, int]

_WORKER = Path(__file__).with_name("nvrtc.py")
# The first version of NVRTC that contains the CUDA headers.
_BUNDLES_HEADERS = (13, 3)
# The first version of NVRTC that keeps a cache.
_KEEPS_CACHE = (12, 9)
# The first version of NVRTC that compiles faster on demand.
_HAS_FIRST_TIER = (12, 9)
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*t?(?:-dbg|-debug|-intel64)?")
# The directory, inside an environment of conda's, that has the layout of a toolkit.
_TARGET = f"targets/{'sbsa' if os.uname().machine == 'aarch64' else os.uname().machine}-linux"
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
        variables: the other variables of the environment that it gets, with their values.
    """

    dialect: Dialect
    program: Path
    version: Version
    include: Path | None
    path: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """The compiler program (or NVRTC's library), for messages."""
        return (str(self.program),)

    @property
    def dependencies(self) -> tuple[Found, ...]:
        """None: `with_dependencies` adds those of a kernel."""
        return ()

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
        first_tier: bool = False,
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
            *(flags.DEVICE_FIRST_TIER if first_tier else ()),
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
        interpreter = _interpreter()
        # Without the program that would run it, NVRTC runs in this process, where it must not use its cache either.
        start = [interpreter, "-I", "-S", str(_WORKER)] if interpreter else []
        inside = [] if interpreter or self.version < _KEEPS_CACHE else ["--no-cache"]
        files = [str(self.program), headers, str(source), str(output)]
        return [*start, *files, f"-arch={target.name}", *words, *system, *inside]

    @property
    def has_first_tier(self) -> bool:
        """True if it has the flag with which it compiles faster, to slower code."""
        return self.dialect == "nvrtc" and self.version >= _HAS_FIRST_TIER

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
        ours = {"PATH": self.path, "LC_ALL": "C", "TMPDIR": str(work_dir), "CUDA_CACHE_DISABLE": "1"}
        return {**dict(self.variables), **ours}

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        work_dir: Path,
        memo_dir: Path | None,
        group: Group | None = None,
    ) -> Completed:
        """Run a command line of `compile_command` in `work_dir`; see `dimorph.toolchain.process.run`.

        In an application that contains Python and has no Python program, such as a frozen one, NVRTC runs in this
        process: nothing ends it when its time is up, and it ends this process if it crashes.
        """
        from dimorph.toolchain import process  # here, because only a build needs it

        if self.dialect == "nvrtc" and command[0] == str(self.program):
            from dimorph.toolchain import nvrtc

            started = time.monotonic()
            status, said = nvrtc.compile_file(*command)
            return process.Completed(tuple(command), status, said, time.monotonic() - started)
        env = self.environment(work_dir, memo_dir)
        return process.run(command, timeout=timeout, cwd=work_dir, env=env, group=group)

    def identity(self, memo_dir: Path | None, *, keep: bool = True) -> Identity:
        """Return the identity of the compiler; see `dimorph.toolchain.identity`."""
        return identify(
            (str(self.program), *self._parts()), self.dialect, self.path, memo_dir, self.variables, keep=keep
        )

    def hint(self, memo_dir: Path | None) -> str:
        """Return an empty text: every compile takes about as long as another."""
        return ""

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
            # From CUDA 13 on, the package's name has no version.
            major, minor = there.version
            older = f"nvidia-cuda-nvrtc-cu{major}" if major < 13 else f"nvidia-cuda-nvrtc=={major}.{minor}.*"
            raise ToolchainError(
                f"{self.program} is of CUDA {describe(self.version)}: its code for {target.name} needs an NVIDIA "
                f"driver for CUDA {describe(needed)}, this one is for {describe(there.version)}; update the driver, or "
                f"install an older compiler: pip install '{older}'"
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
    """Find the compiler: the nvcc that the settings name, else NVRTC, else nvcc on PATH.

    NVRTC is searched for in CUDA_HOME, in pip's packages, in conda's environment and in a toolkit; a CUDA_HOME that has
    only nvcc gives that one. Starts no process and loads no library.

    Raises:
        ToolchainError: the nvcc named is missing or is not complete, or there is no compiler; the message says what to
            install.
    """
    if settings.nvcc is not None:
        named = _lazy.shutil.which(settings.nvcc, path=settings.path)
        if named is None:
            raise ToolchainError(f"DIMORPH_NVCC={settings.nvcc}: there is no such program (PATH={settings.path})")
        return _nvcc(named, settings, named=True)
    lacking: list[str] = []
    if settings.cuda_home:
        if found := _nvrtc(_of_toolkit(settings.cuda_home), settings, lacking):
            return found
        if nvcc := _lazy.shutil.which(settings.cuda_home / "bin" / "nvcc"):
            return _nvcc(nvcc, settings, named=True)
    if found := _nvrtc(_libraries(_roots(settings)), settings, lacking):
        return found
    if nvcc := _lazy.shutil.which("nvcc", path=settings.path):
        return _nvcc(nvcc, settings)
    raise ToolchainError(
        f"no compiler for device code: {''.join(lacking)}no NVRTC in a pip package or in {_TOOLKITS[0]}, no nvcc on "
        f"PATH. Install one: `{_MEND}`"
    )


def _nvrtc(libraries: Iterable[Path], settings: Settings, lacking: list[str]) -> CudaCompiler | None:
    """Return the first usable NVRTC; say in `lacking` what others lack."""
    for library in libraries:
        version = _version(library)
        if version is None:
            continue
        include = next((folder for folder in _include_dirs(library) if (folder / "cuda_fp16.h").is_file()), None)
        if include or version >= _BUNDLES_HEADERS:
            return CudaCompiler("nvrtc", library, version, include, settings.path, settings.compiler_env)
        lacking.append(f"{library} lacks the CUDA headers (pip install nvidia-cuda-runtime); ")
    return None


def _roots(settings: Settings) -> list[Path]:
    """Return the directories of toolkits: of conda, and the system's."""
    # A Python of conda's may be used without its environment being activated.
    own = Path(sys.prefix)
    conda = [settings.conda_prefix, own if (own / "conda-meta").is_dir() else None]
    return [*(root for root in dict.fromkeys(conda) if root), *_TOOLKITS]


def _libraries(roots: Sequence[Path]) -> list[Path]:
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
    return packaged + [file for root in roots for file in _of_toolkit(root)]


def _of_toolkit(root: Path) -> list[Path]:
    """Return the NVRTC libraries of a toolkit, whose directory for them differs between NVIDIA's and conda's."""
    places = (root / "lib64", root / "lib", root / _TARGET / "lib")
    return [file for place in places for file in _numbered("libnvrtc.so.", place)]


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
    yield root / _TARGET / "include"  # conda's
    # CUDA 12's packages: nvidia/cuda_nvrtc, nvidia/cuda_runtime.
    yield root.parent / "cuda_runtime" / "include"


def toolkit(settings: Settings) -> Path | None:
    """Return the directory of a CUDA toolkit, preferably that of the nvcc in use; None if there is none."""
    nvcc = _lazy.shutil.which(settings.nvcc or "nvcc", path=settings.path)
    own = [Path(nvcc).resolve().parent.parent] if nvcc else []
    roots = [*own, *([settings.cuda_home] if settings.cuda_home else ()), *_roots(settings)]
    return next((root for root in roots if _cuda_header(root)), None)


def _cuda_header(root: Path) -> Path | None:
    places = (root / "include" / "cuda.h", root / _TARGET / "include" / "cuda.h")
    return next((place for place in places if place.is_file()), None)


def _nvcc(name: str, settings: Settings, *, named: bool = False) -> CudaCompiler:
    """Return the compiler of an nvcc program, which tells its version by the headers of its toolkit.

    An nvcc that the user named is used itself, or the one that it starts if it is a script. One found on PATH may be a
    script of any kind, so the toolkit may be the system's.
    """
    program = Path(name).absolute()
    root = _own_toolkit(program)
    if root is None and (started := _started_by(program)):
        program, root = started, _own_toolkit(started)
    if root is None and not named and (root := toolkit(settings)):
        program = real if (real := root / "bin" / "nvcc").is_file() else program
    header = _cuda_header(root) if root else None
    match = re.search(r"#define CUDA_VERSION (\d+)", header.read_text("utf-8", "replace") if header else "")
    if match is None:
        advice = "name the nvcc of a whole toolkit" if named else f"`{_MEND}` brings a compiler of its own"
        raise ToolchainError(f"{program}: its toolkit has no include/cuda.h; {advice}")
    number = int(match[1])
    version = (number // 1000, number % 1000 // 10)
    return CudaCompiler("nvcc", program, version, None, settings.path, settings.compiler_env)


def _own_toolkit(program: Path) -> Path | None:
    """Return the toolkit that an nvcc lies in, as it is named or as its link leads; None if that has no headers."""
    roots = (program.parent.parent, program.resolve().parent.parent)
    return next((root for root in roots if _cuda_header(root)), None)


def _started_by(script: Path) -> Path | None:
    """Return the nvcc that a script starts by an absolute path; None for another program."""
    with script.open("rb") as stream:
        text = stream.read(10_000)
    found = re.search(rb"(?<![\w.])/[^\s\"']*/nvcc(?![\w.])", text) if text.startswith(b"#!") else None
    return Path(os.fsdecode(found[0])) if found else None


def _interpreter() -> str | None:
    """Return a Python program that can run NVRTC; None if there is none, as in a frozen application.

    The program of an application that contains Python is no such program: it would start the application once more.
    """
    if getattr(sys, "frozen", False) or not _WORKER.is_file():
        return None
    # Where Python is embedded, `sys.executable` is the application, and the program may lie where Python is installed.
    installed = (f"{prefix}/bin/python{sys.version_info[0]}" for prefix in (sys.prefix, sys.base_prefix))
    for program in (sys.executable, *installed):
        if program and _PYTHON.fullmatch(os.path.basename(program)) and os.access(program, os.X_OK):  # noqa: PTH119
            return program
    return None


def describe(version: Version) -> str:
    """Return a version as text, e.g. `13.0`."""
    return f"{version[0]}.{version[1]}"
