"""The dependencies of a kernel on this machine, found once and kept while the files that told of them are the same."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from dimorph import _lazy, records
from dimorph.declare.declaration import Declaration
from dimorph.declare.dependency import Dependency
from dimorph.errors import ToolchainError
from dimorph.resolve import digests
from dimorph.settings import Settings
from dimorph.toolchain.dependencies import Found

_MEMO = "dependencies.json"
_MOST = 500  # dependencies in the memo


class _Kept(NamedTuple):
    """What was found, the stamps for which that holds, and the memos that have it."""

    found: Found
    stamps: dict[str, digests.Stamp | None]
    in_memos: set[Path]


@dataclass(frozen=True)
class _Row:
    """What a memo holds about one question."""

    found: Found
    stamps: Mapping[str, Sequence[int] | None]


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
    asked = _lazy.json.dumps([asdict(dependency), searched, settings.compiler_env])
    memo = memo_dir and memo_dir / _MEMO
    kept = _known.get(asked)
    if kept and digests.recent.same(kept.stamps):
        if memo and keep and memo not in kept.in_memos:  # the store may have been made since
            _remember(memo, asked, kept)
        return kept.found
    kept = _recalled(memo, asked) if memo else None
    if kept and digests.recent.same(kept.stamps):
        _known[asked] = kept
        return kept.found
    from dimorph.toolchain.dependencies import find  # its parts are needed by few loads

    made = find(dependency, settings)
    stamps = {path: digests.stamp(path) for path in made.known_by}
    if all(map(digests.settled, stamps.values())):
        kept = _known[asked] = _Kept(made, stamps, set())
        if memo and keep:
            _remember(memo, asked, kept)
    return made


def _recalled(memo: Path, asked: str) -> _Kept | None:
    """Return what a memo holds for a question; None if it holds nothing, or something malformed."""
    content = digests.read(memo)
    kept = content.get(_digest(asked)) if isinstance(content, dict) else None
    try:
        row = records.parse(_Row, kept, "dependency")
    except ValueError:
        return None
    stamps = {path: list(stamp) if stamp else None for path, stamp in row.stamps.items()}
    return _Kept(row.found, stamps, {memo})


def _remember(memo: Path, asked: str, kept: _Kept) -> None:
    kept.in_memos.add(memo)
    content = digests.read(memo)
    known = content if isinstance(content, dict) and len(content) < _MOST else {}
    known[_digest(asked)] = {"found": asdict(kept.found), "stamps": kept.stamps}
    digests.write(memo, memo.parent, known)


def _digest(asked: str) -> str:
    return _lazy.hashlib.sha256(asked.encode()).hexdigest()
