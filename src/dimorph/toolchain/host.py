"""The host compiler: found, described as command lines, and kept apart from its surroundings."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from dimorph import late
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain.identity import Identity, identify
from dimorph.toolchain.targets import Target

Family = Literal["gcc", "clang", "zig"]

# --- Flags that decide what is produced. `flags_id` covers every table from here to the next heading. ---

_COMMON = (
    "-std=c++17",
    "-fPIC",
    "-shared",
    # Only what a source marks is exported, so that equal names in two cases never meet.
    "-fvisibility=hidden",
    # Where the C library keeps threads apart, std::thread needs it.
    "-pthread",
    # NaN, infinities and signed zeros mean what they say (so no -ffast-math). Given up are errno and the
    # floating-point exception flags, which nobody reads and which keep loops from being vectorised, and the
    # rounding between a multiplication and an addition.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    # Names that GCC makes up are otherwise random or taken from the output's path.
    "-frandom-seed=dimorph",
)
# What nothing uses is left out; not in a debug build, where a debugger prints it.
_RELEASE = ("-O3", "-g0", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
_DEBUG = ("-O0", "-g")
_LINK = (
    # The standard library's inline functions stay visible; without this, a copy in another library, built
    # with other flags, could take the place of the one compiled here.
    "-Wl,-Bsymbolic",
    # A missing symbol is reported when the object is loaded, not in the middle of a call. When it is linked,
    # symbols may be missing: the tvm-ffi functions come from the process.
    "-Wl,-z,now",
    "-Wl,--as-needed",
    # Distributions differ in the default; artifacts have checksums of their own.
    "-Wl,--build-id=none",
)
# The C++ library goes into the object, and only what it uses of it: a wheel then needs none of a certain age, and a
# case whose functions are noexcept needs none at all. What comes in stays hidden. Zig always does that.
_STATIC = ("-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL")
_FAMILY_FLAGS: dict[str, tuple[str, ...]] = {
    # Unique symbols are shared by the whole process even among hidden copies, and keep an object from unloading.
    "gcc": ("-fno-gnu-unique", *_STATIC),
    "clang": _STATIC,
    "zig": (),
}
# Zig adds undefined-behaviour traps to unoptimised code.
_ZIG_DEBUG = ("-fno-sanitize=undefined",)
# Zig links its own C++ library, whose debug information names the place where zig is installed.
_ZIG_RELEASE = ("-s",)
# Zig brings every C library version along; this one is what Python's own portable wheels ask for.
_ZIG_LIBC = "linux-gnu.2.17"

# --- Flags that change messages, never what is produced ---

_MESSAGES = (
    "-Wall",
    "-Wextra",
    # An object is a function of its key, which knows no clock: __DATE__ and __TIME__ are refused.
    "-Werror=date-time",
    "-fdiagnostics-color=never",
    "-fmessage-length=0",
)


def flags_id(*, target: Target, debug: bool, extra_flags: Sequence[str]) -> str:
    """The text of everything declared that can change what a compile produces, for the content key.

    A key must be computable where no compiler is installed, so this names no family: it holds the tables of
    all of them. Which compiler it was is the other part of an artifact's address, `HostToolchain.identity`.
    """
    return late.json.dumps(
        {
            "common": [_COMMON, _DEBUG if debug else _RELEASE, _LINK],
            "families": [_FAMILY_FLAGS, _ZIG_DEBUG if debug else _ZIG_RELEASE, _ZIG_LIBC],
            "target": [target.name, target.machine, target.flags, target.zig_flags],
            "extra": list(extra_flags),
        },
        sort_keys=True,
    )


class HostToolchain(NamedTuple):
    """A C++ compiler.

    Attributes:
        command: the driver, as an absolute path, and its fixed first arguments.
        family: whose command line it understands.
        path: the PATH that it runs with.
    """

    command: tuple[str, ...]
    family: Family
    path: str

    def compile_command(
        self,
        source: Path,
        output: Path,
        *,
        target: Target,
        include_dirs: Sequence[Path] = (),
        system_include_dirs: Sequence[Path] = (),
        defines: Mapping[str, str] | None = None,
        prefix_map: Mapping[Path, str] | None = None,
        debug: bool = False,
        extra_flags: Sequence[str] = (),
    ) -> list[str]:
        """The command line that makes the shared object `output` of `source` in one step.

        Args:
            source: a C++ file.
            output: the shared object to write.
            target: the level to compile for.
            include_dirs: searched first; what is found there is warned about like the source itself.
            system_include_dirs: searched next, without warnings.
            defines: macro -> value.
            prefix_map: directory -> what stands for it in the object (`__FILE__`), so that equal sources give
                equal objects wherever they lie. Not used by a debug build: a debugger needs the real paths.
            debug: no optimisation, and lines a debugger can stop on.
            extra_flags: the user's own, last, so that they win.
        """
        return [
            *self._front(target, include_dirs, system_include_dirs, defines, debug),
            *(() if debug else self._prefix_flags(prefix_map or {})),
            str(source),
            "-o",
            str(output),
            *_LINK,
            *extra_flags,
        ]

    def environment(self, work_dir: Path, memo_dir: Path | None = None) -> dict[str, str]:
        """The complete environment to compile in.

        Nothing else is passed on: CPATH, COMPILER_PATH, GCC_EXEC_PREFIX, LD_LIBRARY_PATH and their like would
        change what is produced without changing any key.

        Args:
            work_dir: an existing directory for temporary files.
            memo_dir: a lasting directory, in which zig keeps the C++ library that it builds at first use.
                Without one that can be written, that library is built anew for each `work_dir`.
        """
        env = {"PATH": self.path, "LC_ALL": "C", "TMPDIR": str(work_dir)}
        if self.family == "zig":
            lasting = memo_dir if memo_dir and os.access(memo_dir, os.W_OK | os.X_OK) else work_dir
            env["ZIG_GLOBAL_CACHE_DIR"] = str(lasting / "zig")
            env["ZIG_LOCAL_CACHE_DIR"] = str(work_dir / "zig-local")
        return env

    def identity(self, memo_dir: Path | None) -> Identity:
        """Which compiler this is; see `dimorph.toolchain.identity`."""
        return identify(self.command, self.family, self.path, memo_dir)

    def _front(
        self,
        target: Target,
        include_dirs: Sequence[Path],
        system_include_dirs: Sequence[Path],
        defines: Mapping[str, str] | None,
        debug: bool,
    ) -> list[str]:
        """Everything before the source."""
        mode: tuple[str, ...] = _DEBUG if debug else _RELEASE
        if self.family == "zig":
            level: tuple[str, ...] = ("-target", f"{target.machine}-{_ZIG_LIBC}", *target.zig_flags)
            mode = (*mode, *(_ZIG_DEBUG if debug else _ZIG_RELEASE))
        else:
            level = target.flags
        return [
            *self.command,
            *_COMMON,
            *mode,
            *level,
            *_FAMILY_FLAGS[self.family],
            *_MESSAGES,
            *(f"-D{name}={value}" for name, value in (defines or {}).items()),
            *(f"-I{directory}" for directory in include_dirs),
            *(word for directory in system_include_dirs for word in ("-isystem", str(directory))),
        ]

    @staticmethod
    def _prefix_flags(prefix_map: Mapping[Path, str]) -> list[str]:
        # Where one directory lies in another, the inner one has to win; compilers take the last that fits.
        ordered = sorted(prefix_map.items(), key=lambda item: len(str(item[0])))
        return [f"-ffile-prefix-map={directory}={name}" for directory, name in ordered]


def find(settings: Settings) -> HostToolchain:
    """The compiler to use: the one the settings name, else g++, clang++ or c++ on PATH, else package ziglang.

    Starts no process.

    Raises:
        ToolchainError: the one named is not there, or there is none; the message says what to install.
    """
    if settings.cxx == "zig":
        driver = _packaged_zig() or late.shutil.which("zig", path=settings.path)
        if driver is None:
            raise ToolchainError("DIMORPH_CXX=zig: zig is not installed; `pip install ziglang` does that")
        return HostToolchain((driver, "c++"), "zig", settings.path)
    if settings.cxx is not None:
        driver = late.shutil.which(Path(settings.cxx).expanduser(), path=settings.path)
        if driver is None:
            raise ToolchainError(
                f"DIMORPH_CXX={settings.cxx}: there is no such program (PATH={settings.path}); "
                "name another, or unset it to take the first one found"
            )
        return _toolchain(driver, settings.path)
    for name in ("g++", "clang++", "c++"):
        if driver := late.shutil.which(name, path=settings.path):
            return _toolchain(driver, settings.path)
    if driver := _packaged_zig():
        return HostToolchain((driver, "c++"), "zig", settings.path)
    raise ToolchainError(
        f"no C++ compiler found: no g++, clang++ or c++ on PATH ({settings.path}) and no ziglang package. "
        "Install one: `apt-get install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora, RHEL), "
        "or `pip install ziglang` (any Linux, no root needed); or name one in DIMORPH_CXX"
    )


def _toolchain(driver: str, path: str) -> HostToolchain:
    # Absolute, because a compile runs in a directory of its own; not resolved, because drivers such as ccache
    # go by the name they are called by.
    absolute = Path(driver).absolute()
    # A plain `c++` is a link to one or the other; anything of an unknown name has to behave like GCC.
    names = (absolute.name, absolute.resolve().name)
    if any(name == "zig" or name.startswith("zig-") for name in names):
        return HostToolchain((str(absolute), "c++"), "zig", path)
    return HostToolchain((str(absolute),), "clang" if any("clang" in name for name in names) else "gcc", path)


def _packaged_zig() -> str | None:
    # Found, not imported, and run directly: `python -m ziglang` would add the start of an interpreter.
    spec = importlib.util.find_spec("ziglang")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        driver = Path(directory) / "zig"
        if os.access(driver, os.X_OK):
            return str(driver)
    return None
