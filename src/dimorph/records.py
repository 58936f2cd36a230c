"""The one reader of records, the small JSON files of stores: opened safely, read with a limit, parsed into dataclasses.

A record of a damaged disk may hold anything, and every error in it is ArtifactCorrupt.
"""

from __future__ import annotations

import errno
import functools
import os
import reprlib
import stat
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from dimorph import _lazy
from dimorph.errors import ArtifactCorrupt

LIMIT = 16_000_000
"""The largest size of a record, in bytes. The manifest of 10,000 artifacts has 6 MB."""

Opener = Callable[[str, int], int]
"""The `opener` of the built-in `open`: path and flags in, file descriptor out. A store checks the file in it."""

_T = TypeVar("_T")
_Reader = Callable[[Any, str], Any]
_INTEGERS = 1 << 63


def open_regular(path: str, flags: int) -> int:
    """Open a regular file without following a link and without waiting; for `open(..., opener=...)`.

    Raises:
        OSError: the file cannot be opened, or is no regular file.
    """
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer, possibly for ever.
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "expected a regular file", path)


def open_own(path: str, flags: int) -> int:
    """Open a regular file that only the current user and root can write; for `open(..., opener=...)`.

    Raises:
        OSError: as for `open_regular`; PermissionError: another user can write the file.
    """
    fd = open_regular(path, flags)
    status = os.fstat(fd)
    if status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, "another user can write it", path)


def read(path: Path, opener: Opener = open_regular) -> bytes:
    """Return the content of a record.

    Raises:
        ArtifactCorrupt: the file is larger than any record.
        OSError: the file cannot be opened or read; FileNotFoundError if it is missing.
    """
    with open(path, "rb", buffering=0, opener=opener) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > LIMIT:
            raise ArtifactCorrupt(f"{path}: expected at most {LIMIT} bytes, got {size}")
        return stream.read(size) or b""


def decode(text: str | bytes, where: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ArtifactCorrupt: the text is not JSON; the message starts with `where`.
    """
    with errors_in(where):
        return _lazy.json.loads(text)


class errors_in:
    """Turn the errors of a record's content into ArtifactCorrupt, whose message starts with `where`."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, RecursionError)):  # json raises RecursionError for "[[[[..."
            raise ArtifactCorrupt(f"{self._where}: {error}") from error


def parse(kind: Callable[..., _T], raw: Any, name: str) -> _T:
    """Return a value of JSON as an object of a dataclass, or of another type that a field of one may have.

    Args:
        kind: a dataclass, `str`, `int`, `float`, `bool`, a union with None, or a list, tuple or mapping of such types.
        raw: the value.
        name: the name of the value in messages.

    Raises:
        ValueError: the value is not of this type; the message names the part and what was expected.
    """
    return _reader(kind)(raw, name)  # type: ignore[no-any-return]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """Return the function that reads one type. It is made once, so that a store hit pays for it once."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if is_dataclass(kind):
        return _object(kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        reader = _optional(next(part for part in parts if part is not type(None)))
    elif origin in (list, Sequence) or (origin is tuple and parts[1:] == (...,)):
        reader = _list(tuple if origin is tuple else list, _reader(parts[0]))
    elif origin is tuple:
        reader = _tuple([_reader(part) for part in parts])
    elif origin in (dict, Mapping):
        reader = _mapping(_reader(parts[1]))
    else:
        raise TypeError(f"records: no reader for {kind!r}")
    return reader


def _text(raw: Any, name: str) -> str:
    # Half a character, which JSON can express, can be neither printed nor written to a file.
    if type(raw) is str and (raw.isascii() or raw.encode("utf-8", "replace").decode() == raw):
        return raw
    raise _unexpected(name, "text", raw)


def _integer(raw: Any, name: str) -> int:
    if type(raw) is int and -_INTEGERS <= raw < _INTEGERS:
        return raw
    raise _unexpected(name, "a number of 64 bits", raw)


def _truth(raw: Any, name: str) -> bool:
    if type(raw) is bool:
        return raw
    raise _unexpected(name, "true or false", raw)


def _number(raw: Any, name: str) -> float:
    if type(raw) in (int, float) and abs(raw) < _INTEGERS:  # no NaN either
        return float(raw)
    raise _unexpected(name, "a number", raw)


_SCALARS: dict[Any, _Reader] = {str: _text, int: _integer, bool: _truth, float: _number}
_NAMED = {kind.__name__: kind for kind in _SCALARS}


def _optional(kind: Any) -> _Reader:
    return lambda raw, name: None if raw is None else _reader(kind)(raw, name)


def _list(kind: type, inner: _Reader) -> _Reader:
    def read(raw: Any, name: str) -> Any:
        if type(raw) is list:
            return kind([inner(item, name) for item in raw])
        raise _unexpected(name, "a list", raw)

    return read


def _tuple(inner: Sequence[_Reader]) -> _Reader:
    def read(raw: Any, name: str) -> Any:
        if type(raw) is list and len(raw) == len(inner):
            return tuple(
                reader(item, f"{name}[{at}]") for at, (reader, item) in enumerate(zip(inner, raw, strict=True))
            )
        raise _unexpected(name, f"a list of {len(inner)}", raw)

    return read


def _mapping(inner: _Reader) -> _Reader:
    def read(raw: Any, name: str) -> Any:
        if type(raw) is dict:
            try:
                return {_text(key, "a name"): inner(item, key) for key, item in raw.items()}
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        raise _unexpected(name, "names with values", raw)

    return read


def _object(kind: Any) -> _Reader:
    inner = {name: _reader(hint) for name, hint in _hints(kind).items()}
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}

    def read(raw: Any, name: str) -> Any:
        if type(raw) is not dict or not required <= raw.keys() <= inner.keys():
            raise _unexpected(name, f"the fields {sorted(inner)}", raw)
        return kind(**{field: inner[field](item, field) for field, item in raw.items()})

    return read


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass.

    `get_type_hints` evaluates texts, and all of them would take a tenth of the time of a store hit, so it gets only
    those that are more than a name.
    """
    written = {field.name: field.type for field in fields(kind)}
    plain: dict[str, Any] = {name: _NAMED[text] for name, text in written.items() if text in _NAMED}
    others = types.SimpleNamespace(__annotations__={n: text for n, text in written.items() if n not in plain})
    return {**plain, **get_type_hints(others, vars(sys.modules[kind.__module__]))}


def _unexpected(name: str, expected: str, raw: Any) -> ValueError:
    return ValueError(f"{name}: expected {expected}, got {reprlib.repr(raw)}")
