"""The flags that DIMORPH_CXXFLAGS may hold.

A key holds the flags as text, so a flag must not name a file: the file could change while the key stays. And it must
not change what kind of file the compiler writes. Compilers have hundreds of flags that do, so those are listed that
do not.
"""

from __future__ import annotations

import re
import shlex

# A value without a slash names no file, apart from those of the exceptions.
_VALUE = r"[\w.,:+*#-]*"
_ADMITTED = re.compile(
    "|".join(
        (
            r"-O(?:[0-3sgz]|fast)?",  # level of optimisation
            rf"-g[\w-]*(?:={_VALUE})?",  # debug information
            rf"-f[a-z][\w+-]*(?:={_VALUE})?",  # properties of the language, the optimiser and the code
            rf"-m[\w.+-]+(?:={_VALUE})?",  # properties of the machine
            rf"-W[a-z][\w+-]*(?:={_VALUE})?|-w|-pedantic(?:-errors)?",  # warnings
            r"-D[A-Za-z_]\w*(?:\([\w,. ]*\))?(?:=.*)?|-U[A-Za-z_]\w*",  # macros
            r"-std=(?:c|gnu)\+\+\w+|-ansi|-trigraphs",  # the language
            r"-stdlib=lib\w+\+\+",
            r"-pthread|-pipe",
            r"--param=[\w-]+=\d+",
            r"-Wl,-z,[a-z-]+",
        )
    ),
    re.DOTALL,
)
_EXCEPTIONS = re.compile(
    "|".join(
        (
            r"-gsplit-dwarf.*|-gmodules",  # another file beside the object
            # Plugins, profiles, lists, other programs; modules and precompiled headers
            r"-f(?:no-)?(?:pass-)?plugin.*|-f(?:auto-|no-)?profile.*(?:use|dir|list|file|path|update).*|-fauto-profile.*",
            r"-fsanitize-(?:\w+-)?(?:ignore|black|allow|block)list.*|-fsanitize-coverage-\w+list.*|-fxray-.*",
            r"-fuse-ld.*|-foffload.*|-f(?:no-)?(?:implicit-)?module.*|-fprebuilt-.*|-fpch-.*|-finclude-.*|-fvfsoverlay.*",
            r"-fthinlto-.*|-fthin-link.*|-fwpa.*|-fltrans.*|-flto-partition.*|-fwhopr.*|-fresolution.*|-flinker-output.*",
            # Input of another kind, no object, or other files than the object
            r"-fpreprocessed|-fdirectives-only|-fsyntax-only|-fdump-.*|-fsave-.*|-fcompare-debug.*|-ftime-trace.*",
            r"-fopt-info.*|-fstack-usage|-fcallgraph-info.*|-fbuild-session.*|-fcrash-.*|-fada-.*|-fembed-.*|-fproc-stat.*",
            r"-fdiagnostics-(?:format|add-output|set-output|serialize).*|-ftest-coverage|-fprofile-arcs|-fcs-profile.*",
            r"-f(?:file|debug|macro|profile|coverage)-(?:prefix-map|compilation-dir).*|-fcoverage-.*|-fmessage-length.*",
            r"-mllvm|-mlink-.*|-m(?:relax-all|thread-model).*",  # a further flag
            # Another thing on every machine, under one key
            r"-m(?:arch|tune|cpu)=native",
        )
    )
)


def refused(flag: str) -> bool:
    """Return True if a flag is not among those that are admitted."""
    return _ADMITTED.fullmatch(flag) is None or _EXCEPTIONS.fullmatch(flag) is not None


def read(text: str, name: str) -> tuple[str, ...]:
    """Return the flags that the variable `name` has as a text.

    Raises:
        ValueError: the text cannot be split, or a flag is not admitted; the message names it.
    """
    try:
        flags = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{name}: expected flags as a shell splits them: {error}, got {text!r}") from error
    for flag in flags:
        if refused(flag):
            raise ValueError(
                f"{name}: {flag} is not admitted: expected flags of the kinds -O -g -f -m -W -D -U -std= that name no "
                "file, because no key would cover its content (a kernel's `include_dirs` name directories of headers), "
                "leave the output an object, and mean the same on every machine"
            )
    return flags
