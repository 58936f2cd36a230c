"""The flags of compilers, and their text in content keys.

A key must be computable where no compiler is installed, so it covers the flags of all dialects. The compiler that was
used is the other part of an artifact's address (`Compiler.identity`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dimorph import _lazy
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.targets import Target

# --- Host code: flags that can change the output; `host_id` covers every table of this section. ---

COMMON = (
    "-std=c++17",
    "-fPIC",
    "-shared",
    # Only functions that a source marks are exported, so that equal names in two cases never clash.
    "-fvisibility=hidden",
    # std::thread needs it with C libraries whose threads are a library of their own.
    "-pthread",
    # NaN, infinities and signed zeros are respected (so no -ffast-math). Given up are errno and the floating-point
    # exception flags, which no kernel reads and which keep loops from being vectorised, and the rounding between a
    # multiplication and an addition.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    # Without it, the names that GCC generates are random or contain the output's path.
    "-frandom-seed=dimorph",
)
# Warnings that are errors, because what they are about is always a mistake, and what it does at run time is not what
# stands in the source: a function that ends without its result, a number put into a member that cannot hold it, and an
# argument of another type than its format's, which prints garbage or ends the process. (An empty format is harmless.)
ERRORS = ("-Werror=return-type", "-Werror=narrowing", "-Werror=format", "-Wno-error=format-zero-length")
# Unused functions and data are removed, except in a debug build, where a debugger may show them.
RELEASE = ("-O3", "-g0", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
# The macro makes views of tensors check their indices.
DEBUG = ("-O0", "-g", "-DDIMORPH_DEBUG")
LINK = (
    # The standard library's inline functions stay visible; without this, a copy in another library, built with other
    # flags, could be called instead of the one compiled here.
    "-Wl,-Bsymbolic",
    # A missing symbol is reported when the object is loaded, not in the middle of a call. The linker cannot report it:
    # the tvm-ffi functions come from the process.
    "-Wl,-z,now",
    "-Wl,--as-needed",
    # The default differs between distributions, and artifacts have checksums of their own.
    "-Wl,--build-id=none",
)
# The C++ library is linked statically, so that a wheel requires no version of it. An object contains only the parts it
# uses; a case whose functions are noexcept uses none. Its symbols stay hidden. Zig always links it statically.
_STATIC = ("-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL")
DIALECTS: dict[str, tuple[str, ...]] = {
    # Unique symbols are shared by the whole process even among hidden copies, and keep an object from unloading.
    # -O1 would leave the upper halves of AVX registers set where an entry returns, which slows what runs next.
    # A text that snprintf cuts off is no mistake, but GCC counts it among what -Werror=format is about.
    "gcc": ("-Wno-error=format-truncation", "-fno-gnu-unique", "-fexpensive-optimizations", *_STATIC),
    "clang": _STATIC,
    "zig": (),
}
# Zig adds undefined-behaviour traps to unoptimised code.
ZIG_DEBUG = ("-fno-sanitize=undefined",)
# Zig links its own C++ library, whose debug information contains the path where zig is installed.
ZIG_RELEASE = ("-s",)
# Zig can link against any version of glibc; this is the version of the manylinux2014 wheels.
ZIG_LIBC = "linux-gnu.2.17"


# Flags that make a compiler list the files that it reads (see `listing`). The output stays the same, so no key has
# them. Zig reads no file outside its own directory but the project's, and takes none of the other flags.
HEADERS, ASSEMBLED = "headers.d", "assembled.d"
_HEADERS = ("-MD", "-MF", HEADERS)
LISTING: dict[str, tuple[str, ...]] = {
    "gcc": (*_HEADERS, "-Wp,-v", f"-Wa,--MD,{ASSEMBLED}", "-Wl,--trace"),
    "clang": (*_HEADERS, "-Wp,-v", "-Wl,--trace"),
    "zig": _HEADERS,
    # NVRTC has no such flag.
    "nvrtc": (),
    "nvcc": _HEADERS,
}


def host_id(*, target: Target, debug: bool, extra_flags: Sequence[str]) -> str:
    """Return a text of everything asked of the compiler that can change the output of a host compile, for its key."""
    return _lazy.json.dumps(
        {
            "common": [COMMON, ERRORS, DEBUG if debug else RELEASE, LINK],
            "families": [DIALECTS, ZIG_DEBUG if debug else ZIG_RELEASE, ZIG_LIBC],
            "target": [target.name, target.machine, target.flags, target.zig_flags],
            "extra": list(extra_flags),
        },
        sort_keys=True,
    )


# --- Device code: flags that can change the output; `device_id` covers every table of this section. ---

DEVICE_COMMON = ("-std=c++17",)
DEVICE_DIALECTS: dict[str, tuple[str, ...]] = {
    # Functions without annotation are usable in device code: above all lambdas and constexpr functions.
    "nvrtc": ("-default-device",),
    "nvcc": ("--expt-relaxed-constexpr", "--extended-lambda"),
}
DEVICE_DEBUG = ("-G",)
# NVRTC's, for a first tier of code, which serves until the optimised code is there.
DEVICE_FIRST_TIER = ("--Ofast-compile=max",)


def device_id(*, arch: Arch, debug: bool, first_tier: bool = False) -> str:
    """Return a text of everything asked of the compiler that can change the output of a device compile, for its key."""
    common = [DEVICE_COMMON, DEVICE_DEBUG if debug else (), *([DEVICE_FIRST_TIER] if first_tier else ())]
    tables = {"common": common, "families": DEVICE_DIALECTS, "arch": arch.name}
    return _lazy.json.dumps(tables, sort_keys=True)


# --- Flags that change messages, never the output. ---

MESSAGES = (
    "-Wall",
    "-Wextra",
    # Refuses __DATE__ and __TIME__: equal keys must give equal objects, and a key contains no time.
    "-Werror=date-time",
    "-fdiagnostics-color=never",
    "-fmessage-length=0",
)
# The assembler's report on registers, spills and serialised instructions, which `ptxas.report` reads.
DEVICE_VERBOSE: dict[str, tuple[str, ...]] = {"nvrtc": ("--ptxas-options=-v",), "nvcc": ("-Xptxas", "-v")}
