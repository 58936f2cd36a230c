"""The differences between two content keys, as lines for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from dimorph.errors import counted
from dimorph.plan.key_record import KeyRecord

# The most names or changed lines that are shown of one part.
_MOST = 12


def differences(before: KeyRecord, now: KeyRecord) -> list[str]:
    """Return lines that describe the differences between two keys; one says if sources and flags were not compared."""
    found = []
    if before.target != now.target:
        found.append(f"target: {before.target}, now {now.target}")
    if before.header != now.header:
        found += ["config header:", *_changed_lines(before.header, now.header)]
    if before.unit is None or now.unit is None:
        found.append("sources and flags: not recorded in that artifact, so not compared")
    elif before.unit != now.unit:
        found += ["translation unit:", *_changed_lines(before.unit, now.unit)]
    if before.options is not None and now.options is not None and before.target == now.target:
        found += _changed_words(before.options, now.options)
    if before.sources is not None and now.sources is not None:
        found += _changed_sources(before.sources, now.sources)
    return found


def _changed_lines(before: str, now: str) -> Iterator[str]:
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm="")
    changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    yield from (f"  {line}" for line in changed[:_MOST])
    if len(changed) > _MOST:
        yield f"  ... and {counted(len(changed) - _MOST, 'more line')}"


def _changed_words(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    gone = [word for word in before if word not in now]
    new = [word for word in now if word not in before]
    if gone:
        yield f"flags gone: {' '.join(gone)}"
    if new:
        yield f"flags new: {' '.join(new)}"
    if before != now and not gone and not new:
        yield f"flags in another order: {' '.join(before)}, now {' '.join(now)}"


def _changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    changed = [name for name in now if name in before and before[name] != now[name]]
    for what, names in (
        ("changed", changed),
        ("new", [name for name in now if name not in before]),
        ("gone", [name for name in before if name not in now]),
    ):
        # The number before the colon is the position of the include directory.
        shown = [name.partition(":")[2] for name in names[:_MOST]]
        if names:
            more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
            yield f"source {what}: {', '.join(shown)}{more}"
