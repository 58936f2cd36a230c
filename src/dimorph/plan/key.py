"""Content keys: pure functions of declarations, source texts and flags, independent of the machine and its paths."""

from __future__ import annotations

from collections.abc import Iterable

from dimorph import _lazy
from dimorph.source.cpp_text import without_comments
from dimorph.source.include_scan import SourceFile

# A part of every key, to be raised when the required form of an artifact changes.
FORMAT_VERSION = 4
# The C interface that entries are written against; tvm-ffi keeps it stable within a minor version.
FFI_ABI = "tvm-ffi 0.1"


def digest(fields: Iterable[str | bytes]) -> str:
    """Return the SHA-256 of fields as 64 hex digits; each is hashed with its length, so that unequal lists differ."""
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
    """Return the content key of one compile, 64 hex digits.

    Args:
        unit: the text of the translation unit.
        header: the text of the config header; its comments are not part of the key.
        sources: every project file that the compile can include.
        options: the options of the compile, as texts that are the same for every compiler.
        target: the name of the target level or architecture.
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
