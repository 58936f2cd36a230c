"""The flags that compilers are given, and their text in content keys.

Keys are computed where no compiler is installed, so they hold the tables of all dialects. The compiler that was used is
the other part of an artifact's address (`Compiler.identity`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dimorph import _lazy
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.targets import Target

# --- Host code: flags that decide what is produced; `host_id` covers every table of this section. ---

COMMON = (
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
RELEASE = ("-O3", "-g0", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
DEBUG = ("-O0", "-g")
LINK = (
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
DIALECTS: dict[str, tuple[str, ...]] = {
    # Unique symbols are shared by the whole process even among hidden copies, and keep an object from unloading.
    "gcc": ("-fno-gnu-unique", *_STATIC),
    "clang": _STATIC,
    "zig": (),
}
# Zig adds undefined-behaviour traps to unoptimised code.
ZIG_DEBUG = ("-fno-sanitize=undefined",)
# Zig links its own C++ library, whose debug information names the place where zig is installed.
ZIG_RELEASE = ("-s",)
# Zig brings every C library version along; this one is what Python's own portable wheels ask for.
ZIG_LIBC = "linux-gnu.2.17"


def host_id(*, target: Target, debug: bool, extra_flags: Sequence[str]) -> str:
    """Return the text of everything declared that can change the product of a host compile."""
    return _lazy.json.dumps(
        {
            "common": [COMMON, DEBUG if debug else RELEASE, LINK],
            "families": [DIALECTS, ZIG_DEBUG if debug else ZIG_RELEASE, ZIG_LIBC],
            "target": [target.name, target.machine, target.flags, target.zig_flags],
            "extra": list(extra_flags),
        },
        sort_keys=True,
    )


# --- Device code: flags that decide what is produced; `device_id` covers every table of this section. ---

DEVICE_COMMON = ("-std=c++17",)
DEVICE_DIALECTS: dict[str, tuple[str, ...]] = {
    # A function of a device file without annotation is a device function: lambdas and constexpr functions above all.
    "nvrtc": ("-default-device",),
    "nvcc": ("--expt-relaxed-constexpr", "--extended-lambda"),
}
DEVICE_DEBUG = ("-G",)


def device_id(*, arch: Arch, debug: bool) -> str:
    """Return the text of everything declared that can change the product of a device compile."""
    tables = {"common": [DEVICE_COMMON, DEVICE_DEBUG if debug else ()], "families": DEVICE_DIALECTS, "arch": arch.name}
    return _lazy.json.dumps(tables, sort_keys=True)


# --- Flags that change messages, never what is produced. ---

MESSAGES = (
    "-Wall",
    "-Wextra",
    # An object is a function of its key, which knows no clock: __DATE__ and __TIME__ are refused.
    "-Werror=date-time",
    "-fdiagnostics-color=never",
    "-fmessage-length=0",
)
# The assembler's report on registers, spills and serialised instructions, which `ptxas.report` reads.
DEVICE_VERBOSE: dict[str, tuple[str, ...]] = {"nvrtc": ("--ptxas-options=-v",), "nvcc": ("-Xptxas", "-v")}
