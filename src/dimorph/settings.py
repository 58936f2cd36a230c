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

# Flags that name files or directories of files. A change of such a file would not change a key.
_READS_FILES = (
    "-I",
    "-include",
    "-imacros",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-iprefix",
    "-iwith",
    "-isysroot",
    "-cxx-isystem",
    "--include",
    "--sysroot",
    "-B",
    "-L",
    "-l",
    "-T",
    "-specs",
    "--specs",
    "-wrapper",
    "-fplugin",
    "-fprofile-use",
    "-fauto-profile",
    "-Xclang",
    "-Wp,",
    "-Wl,-T",
    "-Wl,--version-script",
)


@dataclass(frozen=True)
class Settings:
    """What the environment asks for; `current()` reads it anew at each load.

    Every field but `path` is the environment variable `DIMORPH_` plus its name in capitals. The text under a field is
    its documentation everywhere: `documentation()` reads it for the reference and for `dimorph --help`.
    """

    store: Path
    """The user's own store, where new artifacts go. Default: `$XDG_CACHE_HOME/dimorph`, or `~/.cache/dimorph`."""

    store_size: float = 10 * 2**30
    """Bytes that the user's store may take, e.g. `10GiB`: once a day the least recently used artifacts go."""

    store_age: float = 90 * 86400.0
    """The age, since its last use, at which an artifact leaves the user's store, e.g. `90d`; looked at once a day."""

    shared_stores: tuple[Path, ...] = ()
    """Read-only stores that are searched after the user's own, separated as in PATH."""

    policy: str = "auto"
    """`auto`: search everywhere, then build. `aot`: never compile. `jit`: only the user's store and builds."""

    cxx: str | None = None
    """The host compiler: a path, a name, or `zig`. Default: g++, clang++ or c++ on PATH, then the package ziglang."""

    cxxflags: tuple[str, ...] = ()
    """Flags added to every host compile and to every key. Flags that name files are refused."""

    nvcc: str | None = None
    """The nvcc for device code: a path or a name. Default: NVRTC, or nvcc on PATH where there is no NVRTC."""

    target: str | None = None
    """The one target level to use, e.g. `x86-64-v3`. Default: the best that this CPU runs."""

    arch: str | None = None
    """The one GPU architecture to use, e.g. `sm_90a`. Default: what the GPUs of this machine run."""

    jobs: int | None = None
    """Compilers that run at a time. Default: as many as cores and memory allow."""

    compile_timeout: float = 300.0
    """Seconds that one compile may take."""

    debug: bool = False
    """1: build without optimisation and with real line numbers."""

    num_threads: int | None = None
    """Threads that a kernel may use. Default: as many as the CPUs that this process may use."""

    path: str = os.defpath
    """Directories in which compilers are looked for."""


def current(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        ValueError: a variable holds something that it cannot mean; the message names it.
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
    """Read a number of bytes with a unit, e.g. `500MB`.

    Raises:
        ValueError: it is something else.
    """
    return _with_unit(text, _BYTES, "a size such as 500MB or 1GB")


def age(text: str) -> float:
    """Read an age with a unit, e.g. `30d`, as seconds.

    Raises:
        ValueError: it is something else.
    """
    return _with_unit(text, _SECONDS, "an age such as 12h, 30d or 8w")


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return "PATH" if name == "path" else f"DIMORPH_{name.upper()}"


def documentation() -> dict[str, str]:
    """Field of `Settings` -> the text under it, read from this file."""
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
    """List the variables that start with `DIMORPH_` and name no setting: misspelt ones, for example."""
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
    for flag in flags:
        if flag.startswith(_READS_FILES) or not flag.startswith("-"):
            raise ValueError(
                f"{name}: {flag} makes the compiler read files that keys do not know of; "
                "a kernel's headers belong into its `include_dirs`"
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
