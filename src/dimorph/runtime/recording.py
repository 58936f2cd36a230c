"""One record of use that this process writes now."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dimorph.declare.instantiations import InstantiationSet
from dimorph.declare.reference import Reference, kernel_reference, variant_reference
from dimorph.declare.variant import Variant
from dimorph.runtime.counts import Counts, Opened
from dimorph.settings import Settings
from dimorph.store.use import Use, Writer


class Dispatcher(Protocol):
    """The attributes of a `dispatcher.Dispatcher` that a record is made from; see there."""

    asked: InstantiationSet
    instantiations: InstantiationSet
    opened: dict[int | None, Opened]
    counts: Counts
    settings: Settings


@dataclass
class _Line:
    """A line of the file that this process wrote.

    Attributes:
        offset: its place in the file.
        calls: the calls that it is to have; `written` of them are there.
    """

    offset: int
    calls: int = 0
    written: int = 0


@dataclass
class _Watch:
    """A dispatcher under record, with its entry, cases and counts, which it outlives by one look at them.

    Attributes:
        dispatcher: the dispatcher, as long as it lives.
        calls: returns the number of calls of a slot; refers to the counts alone.
        uses: under None the entry, under their slots the cases.
        seen: slot -> the calls that were counted before, or are in the file.
    """

    dispatcher: weakref.ref[Dispatcher]
    calls: Callable[[int], int]
    uses: dict[int | None, Use] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)


class Recording:
    """One file that is written now."""

    def __init__(self, path: Path) -> None:
        self.writer = Writer(path)
        self.users = 1
        self._lines: dict[str, _Line] = {}
        self._watched: weakref.WeakKeyDictionary[Dispatcher, _Watch] = weakref.WeakKeyDictionary()
        self._watches: list[_Watch] = []
        self._references: dict[Any, Reference] = {}

    def begin(self, dispatchers: Sequence[Dispatcher]) -> None:
        """Leave out the calls that were made before."""
        for one in dispatchers:
            watch = self._watch(one)
            for slot in list(one.opened):
                self._use(watch, one, slot)
                if slot is not None:
                    watch.seen[slot] = watch.calls(slot)

    def add(self, dispatcher: Dispatcher, slot: int | None) -> None:
        """Write a line for an entry, or for the case of a slot, unless this process has written it."""
        watch = self._watch(dispatcher)
        self._line(self._use(watch, dispatcher, slot))

    def look(self) -> None:
        """Write the calls since the last look."""
        for watch in self._watches:
            for slot, use in list(watch.uses.items()):
                if slot is not None and (more := (calls := watch.calls(slot)) - watch.seen.get(slot, 0)):
                    self._line(watch.uses[None])
                    self._line(use).calls += more
                    watch.seen[slot] = calls
        self._watches = [watch for watch in self._watches if watch.dispatcher() is not None]
        for line in self._lines.values():
            if line.calls != line.written:
                self.writer.count(line.offset, line.calls)
                line.written = line.calls

    def forked(self) -> None:
        """Begin lines of this process's own, in a child that has those of its parent.

        It opens the file anew: its parent's lock would be its own, too, and its parent's place in the file.
        """
        self.writer.close()
        self.writer = Writer(self.writer.path)
        self._lines.clear()
        for watch in self._watches:
            watch.seen = {slot: watch.calls(slot) for slot in watch.uses if slot is not None}

    def _watch(self, dispatcher: Dispatcher) -> _Watch:
        watch = self._watched.get(dispatcher)
        if watch is None:
            watch = self._watched[dispatcher] = _Watch(weakref.ref(dispatcher), dispatcher.counts.of)
            self._watches.append(watch)
        return watch

    def _use(self, watch: _Watch, dispatcher: Dispatcher, slot: int | None) -> Use:
        if slot not in watch.uses:
            watch.uses[slot] = _use(dispatcher, slot, self._reference)
        return watch.uses[slot]

    def _line(self, use: Use) -> _Line:
        line = self._lines.get(use.identity)
        if line is None:
            line = self._lines[use.identity] = _Line(self.writer.append(use.line()))
        return line

    def _reference(self, value: Any) -> Reference:
        if value not in self._references:
            made = variant_reference if isinstance(value, Variant) else kernel_reference
            self._references[value] = made(value)
        return self._references[value]


def _use(dispatcher: Dispatcher, slot: int | None, reference: Any) -> Use:
    """Describe an entry, or the case of a slot."""
    asked, kernel, settings = dispatcher.asked, dispatcher.asked.kernel, dispatcher.settings
    here = dispatcher.opened[slot]
    if slot is None:
        values = asked.texts()
    else:
        picked = dispatcher.instantiations.picked(slot)
        values = {axis.name: [picked[axis.name]] if axis.name in picked else [] for axis in kernel.axes}
    held = dispatcher.instantiations if slot is not None else asked
    variants = {
        value.name: reference(value)
        for axis, several in held.pairs()
        for value in several
        if isinstance(value, Variant) and value not in axis.values and value.name in values[axis.name]
    }
    return Use(
        kind="entry" if slot is None else "case",
        kernel=kernel.name,
        found=reference(kernel),
        values=values,
        variants=variants,
        target=here.own.artifact.meta.target,
        archs=list(here.archs),
        debug=settings.debug,
        cxxflags=list(settings.cxxflags),
        origins={here.own.place.partition(" (")[0]: 1},
        seconds=round(here.seconds, 6),
    )
