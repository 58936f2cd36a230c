"""The flags that DIMORPH_CXXFLAGS may hold.

A key holds the flags as text, so a flag must not name a file: the file could change while the key stays. And it must
not change what kind of file the compiler writes. Compilers have hundreds of flags that do, so those are listed that
do not.
"""

from __future__ import annotations

import re

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
