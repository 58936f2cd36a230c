"""Record which specializations this process uses; see `dimorph.record` and `store.use` for the file.

A call costs nothing more while it is recorded, because entries count the calls of each case anyway. What is loaded is
written at once; the counts are read and written once a second, and at the end.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dimorph._fork import ForkSafeLock
from dimorph._lazy import logger

if TYPE_CHECKING:
    from dimorph.runtime.recording import Dispatcher, Recording

_log = logger("dimorph")
_EVERY = 1.0  # seconds between two looks at the counts


class _State:
    """The state of this process.

    Attributes:
        lock: held while files are written.
        dispatchers: all that were loaded and live.
        recordings: by path, the files that are written now.
        given: the files that `DIMORPH_RECORD` has named.
        timer: the thread that looks at the counts, while there are recordings.
    """

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self.dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
        self.recordings: dict[Path, Recording] = {}
        self.given: set[Path] = set()
        self.timer: threading.Thread | None = None


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
    from dimorph.runtime.recording import Recording  # here, because few processes record

    with _state.lock():
        if path in _state.recordings:
            _state.recordings[path].users += 1
            return
        recording = _state.recordings[path] = Recording(path)
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
    if _state.timer is not None:
        return
    timer = threading.Thread(target=_run, name="dimorph record", daemon=True)
    try:
        timer.start()
    except RuntimeError as error:  # at a limit of threads, or while the interpreter ends
        _log.info("counts are recorded at the end alone: %s", error)
    else:
        _state.timer = timer


def _run() -> None:
    wait = threading.Event()
    while True:
        wait.wait(_EVERY)
        with _state.lock():
            _look()
            if not _state.recordings:
                _state.timer = None
                return


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
