"""Content keys: pure functions of declarations and source texts. No compiler, no GPU, no clock, no absolute path."""

from __future__ import annotations

from collections.abc import Iterable

from dimorph import _lazy
from dimorph.source.cpp_text import without_comments
from dimorph.source.include_scan import SourceFile

# Part of every key. Raise it when what an artifact must look like changes.
FORMAT_VERSION = 2
# The C interface that entries are written against; tvm-ffi keeps it stable within a minor version.
FFI_ABI = "tvm-ffi 0.1"


def digest(fields: Iterable[str | bytes]) -> str:
    """SHA-256 of fields, each preceded by its length, so that no two lists of fields run together."""
    state = _lazy.hashlib.sha256()
    for field in fields:
        data = field.encode("utf-8", "surrogateescape") if isinstance(field, str) else field
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def content_key(
    *,
    unit: str,
    header: str,
    sources: Iterable[SourceFile],
    options: Iterable[str],
    target: str,
) -> str:
    """The key of one compile.

    Args:
        unit: the text of the translation unit.
        header: the config header; its comments do not count.
        sources: every project file that the compile can reach.
        options: what was asked of the compiler, in words that do not depend on which one it is.
        target: the name of the target level.
    """
    files = [field for file in sources for field in (file.logical, file.sha256)]
    options = list(options)
    return digest(
        [
            f"dimorph artifact {FORMAT_VERSION}",
            FFI_ABI,
            unit,
            without_comments(header),
            target,
            str(len(options)),
            *options,
            str(len(files)),
            *files,
        ]
    )
