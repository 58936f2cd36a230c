"""The settings, and the only reader of environment variables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

POLICIES = ("auto", "aot", "jit")

# Flags that name files or places of files: what changes there would not change a key.
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

    Attributes:
        store: the user's own store (`DIMORPH_STORE`; default `$XDG_CACHE_HOME/dimorph` or `~/.cache/dimorph`).
        shared_stores: read-only stores searched after it (`DIMORPH_SHARED_STORES`, separated as in PATH).
        policy: `auto`, `aot` (never compile) or `jit` (no packaged or shared artifacts) (`DIMORPH_POLICY`).
        cxx: the host compiler to use, a path, a name or `zig` (`DIMORPH_CXX`; default: the first one found).
        cxxflags: flags added to every host compile (`DIMORPH_CXXFLAGS`).
        nvcc: the nvcc to use for device code, a path or a name (`DIMORPH_NVCC`; default: NVRTC where it is found).
        target: the one target level to use (`DIMORPH_TARGET`; default: the best this CPU runs).
        arch: the one GPU architecture to use (`DIMORPH_ARCH`; default: what the GPUs of this machine run).
        jobs: compilers at a time (`DIMORPH_JOBS`; default: as many as cores and memory allow).
        compile_timeout: seconds one compile may take (`DIMORPH_COMPILE_TIMEOUT`).
        debug: build without optimisation and with real line numbers (`DIMORPH_DEBUG`).
        num_threads: threads that a kernel may use (`DIMORPH_NUM_THREADS`; default: the CPUs this process may use).
        path: where compilers are looked for (`PATH`).
    """

    store: Path
    shared_stores: tuple[Path, ...] = ()
    policy: str = "auto"
    cxx: str | None = None
    cxxflags: tuple[str, ...] = ()
    nvcc: str | None = None
    target: str | None = None
    arch: str | None = None
    jobs: int | None = None
    compile_timeout: float = 300.0
    debug: bool = False
    num_threads: int | None = None
    path: str = os.defpath


def current(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings from the environment.

    Raises:
        ValueError: a variable holds something that it cannot mean; the message names it.
    """
    env = os.environ if environ is None else environ
    policy = env.get("DIMORPH_POLICY") or "auto"
    if policy not in POLICIES:
        raise ValueError(f"DIMORPH_POLICY: expected one of {', '.join(POLICIES)}, got {policy!r}")
    return Settings(
        store=_store(env),
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


def variable(name: str) -> str:
    """What the setting of that name is called in the environment."""
    return "PATH" if name == "path" else f"DIMORPH_{name.upper()}"


def unknown() -> list[str]:
    """Variables that look like settings and are none, as misspelt ones are."""
    names = {variable(field.name) for field in fields(Settings)}
    return sorted(name for name in os.environ if name.startswith("DIMORPH_") and name not in names)


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
