"""The settings, and the only reader of environment variables."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

POLICIES = ("auto", "aot", "jit")

# Units of sizes and ages, in small letters.
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Settings:
    """The settings of Dimorph; `current()` reads them from the environment, anew at each load.

    Every field but `path` is the environment variable `DIMORPH_` plus its name in capitals. The text under a field is
    its documentation everywhere: `documentation()` reads it for the reference and for `dimorph --help`.
    """

    store: Path
    """The user's store: the directory for new artifacts. Default: `$XDG_CACHE_HOME/dimorph`, or `~/.cache/dimorph`."""

    store_size: float = 10 * 2**30
    """The size of the user's store in bytes, or with a unit, e.g. `10GiB`. Once a day the least recently used artifacts
    beyond it are removed.
    """

    store_age: float = 90 * 86400.0
    """The time since its last use after which an artifact is removed from the user's store, e.g. `12h`, `90d` or `8w`;
    checked once a day. The field is in seconds.
    """

    shared_stores: tuple[Path, ...] = ()
    """Directories of read-only stores, searched after the user's store; separated by colons, as in PATH."""

    policy: str = "auto"
    """When to compile. `auto`: search all stores, then compile what is missing. `aot`: search all stores, never
    compile. `jit`: search only the user's store, then compile what is missing.
    """

    cxx: str | None = None
    """The C++ compiler for host code: a path, a name, or `zig` for the package ziglang. Default: the first of g++,
    clang++ and c++ on PATH, then the package ziglang.
    """

    cxxflags: tuple[str, ...] = ()
    """Flags added to every compile of host code; they are part of its key. Admitted are flags of optimisation, debug
    information, code generation, warnings, macros and the language (`-O`, `-g`, `-f`, `-m`, `-W`, `-D`, `-U`, `-std=`),
    except those that name files or stop the compile early, and `native`, which means another thing on every machine.
    """

    nvcc: str | None = None
    """The nvcc that compiles device code: a path or a name. Default: NVRTC, or nvcc on PATH if NVRTC is not
    installed.
    """

    target: str | None = None
    """The only target level to compile for and to load, e.g. `x86-64-v3`. Default: compile for the best level that this
    CPU runs, and load any level that it runs, the best first.
    """

    arch: str | None = None
    """The only GPU architecture to compile for and to load, e.g. `sm_90a`. Default: for each GPU of this machine, the
    best of the kernel's architectures that it runs.
    """

    jobs: int | None = None
    """The number of compilers that run at the same time. Default: as many as CPUs and free memory allow."""

    compile_timeout: float = 300.0
    """The time limit of one compile, in seconds; then the compiler is killed and the build fails."""

    debug: bool = False
    """`1`: compile without optimisation and with debug information, for a debugger."""

    num_threads: int | None = None
    """The number of CPU threads that kernels of this process use. Default: the number of CPUs that the process may use.
    The first kernel that uses threads fixes it.
    """

    path: str = os.defpath
    """The directories in which compilers are searched for, separated by colons."""


def current(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        ValueError: a variable has an invalid value; the message names the variable and what was expected.
    """
    env = os.environ if environ is None else environ
    policy = env.get("DIMORPH_POLICY") or "auto"
    if policy not in POLICIES:
        raise ValueError(f"DIMORPH_POLICY: expected one of {', '.join(POLICIES)}, got {policy!r}")
    return Settings(
        store=_store(env),
        store_size=_amount(env, "DIMORPH_STORE_SIZE", size, Settings.store_size),
        store_age=_amount(env, "DIMORPH_STORE_AGE", age, Settings.store_age),
        shared_stores=tuple(Path(p) for p in env.get("DIMORPH_SHARED_STORES", "").split(os.pathsep) if p),
        policy=policy,
        cxx=env.get("DIMORPH_CXX") or None,
        cxxflags=_flags(env, "DIMORPH_CXXFLAGS"),
        nvcc=env.get("DIMORPH_NVCC") or None,
        target=env.get("DIMORPH_TARGET") or None,
        arch=env.get("DIMORPH_ARCH") or None,
        jobs=_positive(env, "DIMORPH_JOBS"),
        compile_timeout=_seconds(env, "DIMORPH_COMPILE_TIMEOUT", 300.0),
        debug=_flag(env, "DIMORPH_DEBUG"),
        num_threads=_positive(env, "DIMORPH_NUM_THREADS"),
        path=env.get("PATH", os.defpath),
    )


def size(text: str) -> float:
    """Return the number of bytes that a text such as `500MB` or `10GiB` states; without a unit, bytes.

    Raises:
        ValueError: the text is not a number with a known unit.
    """
    return _with_unit(text, _BYTES, "a size such as 500MB or 1GB")


def age(text: str) -> float:
    """Return the seconds that a text such as `12h`, `30d` or `8w` states.

    Raises:
        ValueError: the text is not a number with a known unit.
    """
    return _with_unit(text, _SECONDS, "an age such as 12h, 30d or 8w")


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return "PATH" if name == "path" else f"DIMORPH_{name.upper()}"


def documentation() -> dict[str, str]:
    """Return field of `Settings` -> the text under it, read from this file."""
    import ast

    (declared,) = (
        node
        for node in ast.parse(Path(__file__).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == Settings.__name__
    )
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(declared.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def unknown() -> list[str]:
    """List the environment variables that start with `DIMORPH_` and name no setting, e.g. misspelt ones."""
    names = {variable(field.name) for field in fields(Settings)}
    return sorted(name for name in os.environ if name.startswith("DIMORPH_") and name not in names)


def _with_unit(text: str, units: Mapping[str, int], expected: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"expected {expected}, got {text!r}")
    return float(match[1]) * units[match[2].lower()]


def _amount(env: Mapping[str, str], name: str, read: Callable[[str], float], default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _store(env: Mapping[str, str]) -> Path:
    if named := env.get("DIMORPH_STORE"):
        return Path(named)
    if cache := env.get("XDG_CACHE_HOME"):
        return Path(cache) / "dimorph"
    try:
        home = Path(env.get("HOME") or "~").expanduser()
    except RuntimeError:
        # A user without a home and without an entry in the list of users, as in some containers.
        return Path(env.get("TMPDIR") or "/tmp") / f"dimorph-{os.getuid()}"
    return home / ".cache" / "dimorph"


def _flags(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        flags = tuple(shlex.split(env.get(name, "")))
    except ValueError as error:
        raise ValueError(f"{name}: expected flags as a shell splits them: {error}, got {env[name]!r}") from error
    if not flags:
        return ()
    from dimorph import _cxxflags  # here, because few have flags, and its patterns take a while

    for flag in flags:
        if _cxxflags.refused(flag):
            raise ValueError(
                f"{name}: {flag} is not admitted: expected flags of the kinds -O -g -f -m -W -D -U -std= that name no "
                "file, because no key would cover its content (a kernel's `include_dirs` name directories of headers), "
                "leave the output an object, and mean the same on every machine"
            )
    return flags


def _positive(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {text!r}")
    return int(text)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ValueError(f"{name}: expected seconds above 0, got {text!r}")
    return value


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").lower()
    if text not in ("", "0", "1", "false", "true"):
        raise ValueError(f"{name}: expected 0 or 1, got {text!r}")
    return text in ("1", "true")
