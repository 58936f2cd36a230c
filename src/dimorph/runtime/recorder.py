"""Record which specializations this process uses; see `dimorph.record` and `store.use` for the file.

A call costs nothing more while it is recorded, because entries count the calls of each case anyway. What is loaded is
written at once; the counts are read and written once a second, and at the end.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dimorph._fork import ForkSafeLock
from dimorph._lazy import logger
from dimorph.declare.instantiations import InstantiationSet
from dimorph.declare.reference import Reference, kernel_reference, variant_reference
from dimorph.declare.variant import Variant
from dimorph.plan.pool import POOL
from dimorph.resolve.search import Resolution
from dimorph.settings import Settings
from dimorph.store.use import Use, Writer

_log = logger("dimorph")
_EVERY = 1.0  # seconds between two looks at the counts


class Counts:
    """The calls of each case function of an entry, by function and slot; C++ counts them.

    Attributes:
        calls: the memory that C++ counts in.
    """

    def __init__(self, slots: int, functions: int) -> None:
        self.calls = (ctypes.c_int64 * (slots * functions))()
        self._slots = slots

    def of(self, slot: int) -> int:
        """Return how often functions of the case of a slot were called so far."""
        return sum(self.calls[slot :: self._slots])


@dataclass(frozen=True)
class Opened:
    """How an entry or a case came into the process.

    Attributes:
        own: the artifact of the entry or the case.
        archs: of a case, the architectures of its device code.
        seconds: the time that it took, together with what was loaded beside it.
    """

    own: Resolution
    archs: tuple[str, ...]
    seconds: float


def opened(resolved: Sequence[Resolution], case: int, seconds: float) -> dict[int | None, Opened]:
    """Return how what was loaded together came: under None the entry, under its slot the case."""
    archs = tuple(sorted(one.artifact.meta.target for one in resolved if one.unit.kind == "device"))
    found: dict[int | None, Opened] = {}
    for one in resolved:
        if one.unit.kind == "case":
            found[case] = Opened(one, archs, seconds)
        elif one.unit.kind == "entry" and one.unit.kernel is not POOL:
            found[None] = Opened(one, (), seconds)
    return found


class Dispatcher(Protocol):
    """What is recorded of a `dispatcher.Dispatcher`; see there."""

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
    """What a recording knows of a dispatcher; it outlives the dispatcher by one look at its counts.

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


class _Recording:
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


@dataclass
class _State:
    """The state of this process.

    Attributes:
        lock: held while files are written.
        dispatchers: all that were loaded and live.
        recordings: by path, the files that are written now.
        given: the file that `DIMORPH_RECORD` names, once it was seen.
    """

    lock: ForkSafeLock = field(default_factory=ForkSafeLock)
    dispatchers: weakref.WeakSet[Dispatcher] = field(default_factory=weakref.WeakSet)
    recordings: dict[Path, _Recording] = field(default_factory=dict)
    given: set[Path] = field(default_factory=set)
    timer: threading.Thread | None = None


_state = _State()


@contextmanager
def record(path: Path | str) -> Iterator[None]:
    """Record in a file which specializations this process loads and calls while the block runs, in all threads.

    The file is made, or added to: any number of processes can record into one file at once. `dimorph build --from`
    builds what it names, `dimorph cover` proves that everything in it was built. A file holds the values and the
    variant of each specialization, its target level and architectures, the number of calls, the seconds of its first
    load and where it came from.

    Args:
        path: the file.

    Raises:
        ArtifactCorrupt: the file is no record, or one of another version.
        OSError: the file cannot be opened or written.
    """
    place = Path(path).absolute()
    _begin(place)
    try:
        yield
    finally:
        _end(place)


def follow(path: Path | None) -> None:
    """Record in the file that the settings name, from now on and until the process ends.

    Raises:
        ArtifactCorrupt, OSError: as for `record`.
    """
    if path is None or path in _state.given:
        return
    try:
        _begin(path)
    except OSError as error:
        raise OSError(error.errno, f"DIMORPH_RECORD: {error.strerror}", str(path)) from error
    _state.given.add(path)
    atexit.register(_end, path)


def loaded(dispatcher: Dispatcher) -> None:
    """Note a dispatcher that was made."""
    with _state.lock():
        _state.dispatchers.add(dispatcher)
        # `opened` has the entry, and the case of a specialized module.
        for slot in list(dispatcher.opened) if _state.recordings else ():
            _write(dispatcher, slot)


def bound(dispatcher: Dispatcher, slot: int) -> None:
    """Note a case that was bound by its first call."""
    if _state.recordings:
        with _state.lock():
            _write(dispatcher, slot)


def _write(dispatcher: Dispatcher, slot: int | None) -> None:
    for path, recording in list(_state.recordings.items()):
        try:
            recording.add(dispatcher, slot)
        except OSError as error:
            _stop(path, error)


def _begin(path: Path) -> None:
    with _state.lock():
        if path in _state.recordings:
            _state.recordings[path].users += 1
            return
        recording = _state.recordings[path] = _Recording(path)
        recording.begin(list(_state.dispatchers))
        _start_timer()


def _end(path: Path) -> None:
    with _state.lock():
        recording = _state.recordings.get(path)
        if recording is None:  # it could not be written any more
            return
        recording.users -= 1
        if not recording.users:
            _look()
            _state.recordings.pop(path, recording).writer.close()


def _look() -> None:
    """Write the calls since the last look into all files."""
    for path, recording in list(_state.recordings.items()):
        try:
            recording.look()
        except OSError as error:
            _stop(path, error)


def _stop(path: Path, error: OSError) -> None:
    """Give up a file that cannot be written: a program is worth more than its record."""
    _state.recordings.pop(path).writer.close()
    _say(path, error)


def _say(path: Path, error: OSError) -> None:
    _log.warning("dimorph: the record %s ends here, because it cannot be written: %s", path, error)


def _start_timer() -> None:
    if _state.timer is None or not _state.timer.is_alive():
        _state.timer = threading.Thread(target=_run, name="dimorph record", daemon=True)
        _state.timer.start()


def _run() -> None:
    wait = threading.Event()
    while _state.recordings:
        wait.wait(_EVERY)
        with _state.lock():
            _look()


def _forked() -> None:
    """Go on in a child: its calls are its own, and the thread that looks was not copied."""
    _state.timer = None
    for path, recording in list(_state.recordings.items()):
        try:
            recording.forked()
        except OSError as error:
            del _state.recordings[path]
            _say(path, error)
    if _state.recordings:
        _start_timer()


os.register_at_fork(after_in_child=_forked)


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
