"""The settings, and the only reader of environment variables."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

POLICIES = ("auto", "aot", "jit")
ON_MISS = ("wait", "serve")
LOG_LEVELS = ("debug", "info", "warning", "error", "off")

# Fields that are variables of other programs too.
_OTHERS = {
    "omp_num_threads": "OMP_NUM_THREADS",
    "path": "PATH",
    "default_cxx": "CXX",
    "cuda_home": "CUDA_HOME",
    "conda_prefix": "CONDA_PREFIX",
    "pkg_config_path": "PKG_CONFIG_PATH",
    "cmake_prefix_path": "CMAKE_PREFIX_PATH",
}
# The variables that every compiler gets, with values of our own.
_OURS = ("PATH", "LC_ALL", "TMPDIR")
# Units of sizes and ages, in small letters.
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# More than this is a slip of the pen: no calendar holds such an age, no file system such a size, no machine such a
# number of processes or threads.
_LONGEST, _LARGEST, _MOST = 36525 * 86400, 2**63 - 1, 65536


@dataclass(frozen=True)
class Settings:
    """The settings of Dimorph; `current()` reads them from the environment, anew at each load.

    Every field is the environment variable `DIMORPH_` plus its name in capitals, except the last seven: those variables
    are for other programs too. The text under a field is its documentation everywhere: `cli/settings_texts.py` reads it
    for the reference and for `dimorph --help`.
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

    remote_stores: tuple[str, ...] = ()
    """URLs of remote stores, searched last and separated by blanks; each may end with `#ed25519=` and the public key
    whose signature its artifacts must have.
    """

    remote_timeout: float = 5.0
    """The longest time that a remote store may take for one artifact, in seconds."""

    policy: str = "auto"
    """When to compile. `auto`: search all stores, then compile what is missing. `aot`: search all stores, never
    compile. `jit`: search only the user's store, then compile what is missing.
    """

    record: Path | None = None
    """The file that gets a record of the specializations that this process uses, for `dimorph build --from`."""

    on_miss: str = "wait"
    """What a call does whose case is in no store. `wait`: it waits for the compile. `serve`: another case computes the
    same meanwhile, where the kernel declares one (`covers`), or device code that was compiled in less time; the case
    itself is compiled in the background, and the first call after that takes it.
    """

    cxx: str | None = None
    """The C++ compiler for host code: a path, a name, or `zig` for the package ziglang; programs that start it go
    before it, e.g. `ccache g++`. Default: `CXX`, else the first of g++, clang++ and c++ on PATH, conda's compilers on
    PATH, and the package ziglang.
    """

    cxxflags: tuple[str, ...] = ()
    """Flags added to every compile of host code; they are part of its key. `-Werror` makes errors of warnings, which
    are only shown otherwise. Admitted are flags of optimisation, debug information, code generation, warnings, macros
    and the language (`-O`, `-g`, `-f`, `-m`, `-W`, `-D`, `-U`, `-std=`), except those that name files or stop
    the compile early, and `native`, which means another thing on every machine.
    """

    nvcc: str | None = None
    """The nvcc that compiles device code: a path or a name. Default: NVRTC, or nvcc if NVRTC is not installed, each
    of `CUDA_HOME` before any other.
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
    """The number of compilers that run at the same time, over all processes of a machine with the same store. Default:
    as many as CPUs and free memory allow.
    """

    compile_timeout: float = 300.0
    """The time limit of one compile, in seconds; then the compiler is killed and the build fails."""

    compiler_env: tuple[tuple[str, str], ...] = ()
    """The variables of the environment that compilers get besides PATH, LC_ALL and TMPDIR: their names, separated by
    commas, e.g. `LD_LIBRARY_PATH,LM_LICENSE_FILE`. Their values count as part of the compiler's identity, except those
    that cannot change what it makes, such as licences and LD_LIBRARY_PATH. The field holds names with values.
    """

    log: str | None = None
    """The lowest level of log records that are shown on standard error, where the program does not handle log records
    itself: `debug`, `info`, `warning`, `error` or `off`. Default: `warning`, which includes the compilers' warnings
    about the kernel's sources, and a line about every compile that takes more than a second. `debug` includes all that
    a compiler prints about a source that it refuses.
    """

    debug: bool = False
    """`1`: compile for a debugger, without optimisation, and with checks of indices into views, lengths and tables."""

    num_threads: int | None = None
    """The number of CPU threads that kernels of this process use; the first kernel that uses threads fixes it. Default:
    `torch.get_num_threads()` at each call if torch is imported, else `OMP_NUM_THREADS`, but at most the number of CPUs
    that the process may use by its affinity and its control groups.
    """

    omp_num_threads: int | None = None
    """The default of `num_threads` in a process without torch; of several numbers, the first."""

    path: str = os.defpath
    """The directories in which compilers are searched for, separated by colons."""

    default_cxx: str | None = None
    """The C++ compiler for host code where `DIMORPH_CXX` is not set; flags in it are left out."""

    cuda_home: Path | None = None
    """The CUDA toolkit whose NVRTC or nvcc is used before any other. `CUDA_PATH` counts where this is not set."""

    conda_prefix: Path | None = None
    """The conda environment in which NVRTC is searched for after pip's packages."""

    pkg_config_path: str = ""
    """The directories in which pkg-config searches for a kernel's dependencies first, separated by colons. Other
    variables of pkg-config and CMake are named in `DIMORPH_COMPILER_ENV`.
    """

    cmake_prefix_path: str = ""
    """The directories in which CMake searches for a kernel's dependencies first, separated by colons."""

    def __post_init__(self) -> None:
        # A str in place of another type means what it means in the environment.
        typed = (f.name for f in fields(self) if f.type not in ("str", "str | None"))
        if texts := {name: text for name in typed if isinstance(text := getattr(self, name), str)}:
            mine = {variable(f.name) for f in fields(self)}
            others = {name: text for name, text in os.environ.items() if name not in mine}
            read = current({**others, **{variable(name): text for name, text in texts.items()}})
            for name in texts:
                object.__setattr__(self, name, getattr(read, name))


def current(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        ValueError: a variable has an invalid value; the message names the variable and what was expected.
    """
    env = os.environ if environ is None else environ
    return Settings(
        store=_store(env),
        store_size=_amount(env, "DIMORPH_STORE_SIZE", size, Settings.store_size),
        store_age=_amount(env, "DIMORPH_STORE_AGE", age, Settings.store_age),
        shared_stores=tuple(_path(env, p) for p in env.get("DIMORPH_SHARED_STORES", "").split(os.pathsep) if p),
        remote_stores=tuple(env.get("DIMORPH_REMOTE_STORES", "").split()),
        remote_timeout=_seconds(env, "DIMORPH_REMOTE_TIMEOUT", Settings.remote_timeout),
        policy=_choice(env, "DIMORPH_POLICY", POLICIES) or "auto",
        record=_optional_path(env, "DIMORPH_RECORD"),
        on_miss=_choice(env, "DIMORPH_ON_MISS", ON_MISS) or "wait",
        cxx=_program(env, "DIMORPH_CXX"),
        cxxflags=_flags(env, "DIMORPH_CXXFLAGS"),
        nvcc=_program(env, "DIMORPH_NVCC"),
        target=env.get("DIMORPH_TARGET") or None,
        arch=env.get("DIMORPH_ARCH") or None,
        jobs=_positive(env, "DIMORPH_JOBS"),
        compile_timeout=_seconds(env, "DIMORPH_COMPILE_TIMEOUT", 300.0),
        compiler_env=_variables(env, "DIMORPH_COMPILER_ENV"),
        log=_choice(env, "DIMORPH_LOG", LOG_LEVELS),
        debug=_flag(env, "DIMORPH_DEBUG"),
        num_threads=_positive(env, "DIMORPH_NUM_THREADS"),
        omp_num_threads=_omp_threads(env),
        path=_search_path(env.get("PATH", os.defpath)),
        default_cxx=_program(env, "CXX"),
        cuda_home=_optional_path(env, "CUDA_HOME") or _optional_path(env, "CUDA_PATH"),
        conda_prefix=_optional_path(env, "CONDA_PREFIX"),
        pkg_config_path=_directories(env, "PKG_CONFIG_PATH"),
        cmake_prefix_path=_directories(env, "CMAKE_PREFIX_PATH"),
    )


def size(text: str) -> float:
    """Return the number of bytes that a text such as `500MB` or `10GiB` states; without a unit, bytes.

    Raises:
        ValueError: the text is not a number with a known unit, or the number is too large.
    """
    return _with_unit(text, _BYTES, _LARGEST, "a size such as 500MB or 1GB")


def age(text: str) -> float:
    """Return the seconds that a text such as `12h`, `30d` or `8w` states.

    Raises:
        ValueError: the text is not a number with a known unit, or the number is too large.
    """
    return _with_unit(text, _SECONDS, _LONGEST, "an age such as 12h, 30d or 8w")


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return _OTHERS.get(name) or f"DIMORPH_{name.upper()}"


def given() -> list[str]:
    """Return the names of the environment variables that begin like those of settings."""
    return sorted(name for name in os.environ if name.startswith("DIMORPH_"))


def _with_unit(text: str, units: Mapping[str, int], most: int, expected: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"expected {expected}, got {reprlib.repr(text)}")
    amount = float(match[1]) * unit
    if amount > most:
        raise ValueError(f"expected {expected}, got {reprlib.repr(text)}, which is too much")
    return amount


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
        return _path(env, named)
    # By its specification, a relative path is to be ignored.
    if (cache := env.get("XDG_CACHE_HOME", "")).startswith("/"):
        return Path(cache) / "dimorph"
    home = _home(env)
    if home is None:
        # A user without a home and without an entry in the list of users, as in some containers.
        return _path(env, env.get("TMPDIR") or "/tmp") / f"dimorph-{os.getuid()}"
    return home / ".cache" / "dimorph"


def _home(env: Mapping[str, str]) -> Path | None:
    if named := env.get("HOME"):
        return _absolute(named)
    import pwd  # here, because HOME is nearly always set

    try:
        return _absolute(pwd.getpwuid(os.getuid()).pw_dir or "/")
    except KeyError:
        return None


def _path(env: Mapping[str, str], text: str) -> Path:
    """Return an absolute path, with `~` replaced as a shell does."""
    if text == "~" or text.startswith("~/"):
        home = _home(env)
        return _absolute(text) if home is None else home / text[2:]
    try:
        return _absolute(Path(text).expanduser())
    except RuntimeError:
        return _absolute(text)  # there is no user of that name


def _absolute(path: Path | str) -> Path:
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        return Path("/", path)  # the working directory was removed


def _program(env: Mapping[str, str], name: str) -> str | None:
    """Return the words of a program, with `~/` at their beginning replaced."""
    return re.sub(r"(?:(?<=\s)|^)~/", lambda _: f"{_path(env, '~')}/", env.get(name, "").strip()) or None


def _search_path(text: str) -> str:
    # Compilers run in directories of their own, where a relative directory would be another one.
    if all(part.startswith("/") for part in text.split(os.pathsep)):
        return text
    return os.pathsep.join(str(_absolute(part or ".")) for part in text.split(os.pathsep))


def _directories(env: Mapping[str, str], name: str) -> str:
    return _search_path(text) if (text := env.get(name)) else ""


def _optional_path(env: Mapping[str, str], name: str) -> Path | None:
    return _path(env, text) if (text := env.get(name)) else None


def _flags(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    if not env.get(name):
        return ()
    from dimorph import _cxxflags  # here, because few have flags, and its patterns take a while

    return _cxxflags.read(env[name], name)


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    text = env.get(name) or None
    if text is not None and text not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {text!r}")
    return text


def _variables(env: Mapping[str, str], name: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that a setting names and that exist, with their values."""
    names = dict.fromkeys(word.strip() for word in env.get(name, "").split(",") if word.strip())
    for one in names:
        if not one.isidentifier() or not one.isascii() or one in _OURS:
            raise ValueError(f"{name}: expected names of variables, other than {', '.join(_OURS)}; got {one!r}")
    return tuple((one, env[one]) for one in names if one in env)


def _positive(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if not text:
        return None
    if (number := _count(text)) is None:
        raise ValueError(f"{name}: expected a whole number from 1 to {_MOST}, got {reprlib.repr(text)}")
    return number


def _count(text: str) -> int | None:
    """Return a number of processes or threads; None for a text that is none."""
    # By its length first: Python reads no number of thousands of digits.
    return int(text) if len(text) <= 20 and text.isdecimal() and 1 <= int(text) <= _MOST else None


def _omp_threads(env: Mapping[str, str]) -> int | None:
    """Return the number of threads that OpenMP would start; None for what OpenMP would ignore."""
    return _count(env.get("OMP_NUM_THREADS", "").partition(",")[0].strip())


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
