"""The dependencies of a kernel on this machine, found once and kept while the files that told of them are the same."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimorph import _lazy
from dimorph.declare.declaration import Declaration
from dimorph.declare.dependency import Dependency
from dimorph.errors import ToolchainError
from dimorph.resolve import digests
from dimorph.settings import Settings
from dimorph.toolchain.found import Found, Library

_MEMO = "dependencies.json"
_MOST = 500  # dependencies in the memo

# What was found, the stamps for which that holds, and the memos that have it.
_Kept = tuple[Found, Mapping[str, digests.Stamp | None], set[Path]]
# Results of this process, by what was asked.
_known: dict[str, _Kept] = {}


def found(kernel: Declaration, settings: Settings, memo_dir: Path | None, *, keep: bool) -> tuple[Found, ...]:
    """Find the dependencies of a kernel.

    Args:
        kernel: the kernel.
        settings: where to search.
        memo_dir: the directory in which results are kept for later processes; None: they are not kept.
        keep: False to keep no result, but to use those that are there.

    Raises:
        ToolchainError: one is missing, or two define one macro differently.
    """
    every = tuple(_found(one, settings, memo_dir, keep=keep) for one in kernel.dependencies)
    macros: dict[str, tuple[str, Found]] = {}
    for one in every:
        for define in one.defines:
            name, _, value = define.partition("=")
            other, by = macros.setdefault(name, (value, one))
            if other != value:
                raise ToolchainError(
                    f"kernel {kernel.name}: dependencies: {by.name} defines {name} as {other or 'empty'}, and "
                    f"{one.name} as {value or 'empty'}; expected one value"
                )
    return every


def _found(dependency: Dependency, settings: Settings, memo_dir: Path | None, *, keep: bool) -> Found:
    searched = [settings.path, settings.pkg_config_path, settings.cmake_prefix_path, sys.path]
    asked = repr((dependency, searched, settings.compiler_env))
    memo = memo_dir and memo_dir / _MEMO
    kept = _known.get(asked)
    if kept and digests.recent.same(kept[1]):
        if memo and keep and memo not in kept[2]:  # the store may have been made since
            _remember(memo, asked, kept)
        return kept[0]
    kept = _recalled(memo, asked) if memo else None
    if kept and digests.recent.same(kept[1]):
        _known[asked] = kept
        return kept[0]
    from dimorph.toolchain.dependencies import find  # its parts are needed by few loads

    made = find(dependency, settings)
    stamps = {path: digests.stamp(path) for path in made.known_by}
    if all(map(digests.settled, stamps.values())):
        kept = _known[asked] = made, stamps, set[Path]()
        if memo and keep:
            _remember(memo, asked, kept)
    return made


def _recalled(memo: Path, asked: str) -> _Kept | None:
    """Return what a memo holds for a question; None if it holds nothing, or something malformed."""
    content = digests.read(memo)
    kept: Any = content.get(_digest(asked)) if isinstance(content, dict) else None
    try:
        name, version, dirs, defines, libraries, known_by = kept["found"]
        linked = tuple(Library(*map(_text, one)) for one in libraries)
        texts = (tuple(map(_text, one)) for one in (dirs, defines, known_by))
        dirs, defines, known_by = texts
        found = Found(_text(name), _text(version), dirs, defines, linked, known_by)
        return found, dict(kept["stamps"]), {memo}  # what is no stamp equals none
    except (TypeError, LookupError, ValueError):
        return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


def _remember(memo: Path, asked: str, kept: _Kept) -> None:
    kept[2].add(memo)
    content = digests.read(memo)
    known = content if isinstance(content, dict) and len(content) < _MOST else {}
    known[_digest(asked)] = {"found": kept[0], "stamps": kept[1]}
    digests.write(memo, memo.parent, known)


def _digest(asked: str) -> str:
    return _lazy.hashlib.sha256(asked.encode()).hexdigest()
