"""Leases: files that name who holds a lock, where the system's locks fail, or end at the border of a machine.

A holder is seen to live: on this machine its process is looked up, on others its file must change every few seconds. A
lease of a holder that died is taken over. Like locks, leases only save work: two holders at once do no harm.
"""

from __future__ import annotations

import _thread
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dimorph import records
from dimorph._fork import ForkSafeLock, no_fork
from dimorph._lazy import logger

_log = logger(__name__)

SUFFIX = ".lease"
# File systems that one machine alone can mount, on which `flock` works. Of all others, some keep its locks within one
# machine or ignore them.
_OF_ONE_MACHINE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "overlay")
_BEAT = 2.0  # seconds between two changes of a held lease
_SILENCE = 15.0  # seconds without a change after which a holder is dead; NFS may show a change some seconds late
_ATTEMPTS = 3  # an attempt fails only if another holder comes or goes at the same moment
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Held:
    """The leases that this process holds, and the thread that changes them from time to time."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._guard = ForkSafeLock()
        self._beating = False

    def create(self, path: Path) -> None:
        """Create a lease.

        Raises:
            FileExistsError: there is one.
            OSError: it cannot be created.
        """
        with self._guard(), no_fork:
            fd = self._descriptors[path] = os.open(path, _NEW_FILE, 0o600)
        try:
            os.write(fd, " ".join(_me()).encode())
        except OSError:  # no space left
            self.give_back(path)
            raise
        with self._guard():
            if self._beating:
                return
            try:
                _thread.start_new_thread(self._beat, ())
                self._beating = True
            except RuntimeError:  # at a limit of threads; other machines may then do the same work
                _log.info("no thread can be started that keeps leases alive")

    def give_back(self, path: Path) -> None:
        """Remove a lease, unless another holder has taken it over; one that cannot be removed is logged."""
        with self._guard():
            fd = self._descriptors.pop(path, None)
        if fd is None:  # this is a forked child of the holder
            return
        try:
            if os.path.samestat(path.lstat(), os.fstat(fd)):
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.info("the lease %s cannot be removed now: %s", path, error)
        finally:
            with no_fork:
                os.close(fd)

    def forget(self) -> None:
        """Forget in a forked child the leases of its parent."""
        for fd in self._descriptors.values():
            os.close(fd)
        self._descriptors.clear()
        self._beating = False

    def _beat(self) -> None:
        while True:
            time.sleep(_BEAT)
            with self._guard():
                if not self._descriptors:
                    self._beating = False
                    return
                for path, fd in self._descriptors.items():
                    try:
                        os.utime(fd)
                    except OSError as error:
                        _log.debug("%s: %s", path, error)


_held = _Held()
os.register_at_fork(after_in_child=_held.forget)
give_back = _held.give_back


def needed(directory: Path) -> bool:
    """Return True if other machines may use a directory, so that `flock` does not suffice."""
    return _kind(directory.stat().st_dev) not in _OF_ONE_MACHINE


class Holder(NamedTuple):
    """The holder of a lease.

    Attributes:
        machine: the machine, with what tells its process numbers from those of a container on it.
        process: the number of the process.
        started: the time of its start, as the system counts it, because numbers are used again.
    """

    machine: str
    process: str
    started: str

    @property
    def runs(self) -> bool | None:
        """True if the process runs, False if it has ended, None if it is on another machine."""
        if self.machine != _machine():
            return None
        return self.started == _started(self.process)


class Watch:
    """One wait for a lease, which remembers what was seen of it."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0

    def take(self, path: Path, scratch: Path) -> bool:
        """Take the lease `path` if it is free, or its holder has died; return False if the holder lives.

        Args:
            path: the lease.
            scratch: a path of the same file system that does not exist, for a lease that is removed.

        Raises:
            OSError: the lease cannot be created.
        """
        for _ in range(_ATTEMPTS):
            with suppress(FileExistsError):
                _held.create(path)
                return True
            try:
                text, status = _read(path)
            except FileNotFoundError:
                continue  # it was given back just now
            if self._lives(text, status):
                return False
            _remove(path, text, scratch)
        return False

    def _lives(self, text: bytes, status: os.stat_result) -> bool:
        runs = _parsed(text).runs
        if runs is not None:
            return runs
        seen, now = (text, status.st_ino, status.st_mtime_ns), time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since < _SILENCE


def is_left(path: Path, seconds: float) -> bool:
    """Return True for a lease whose holder has ended; one on another machine, if it did not change for so long.

    Raises:
        OSError: the lease cannot be read.
    """
    text, status = _read(path)
    runs = _parsed(text).runs
    return time.time() - status.st_mtime > seconds if runs is None else not runs


def holder(path: Path) -> Holder | None:
    """Return the holder of a lease; None if it cannot be told."""
    try:
        found = _parsed(_read(path)[0])
    except OSError:
        return None
    return found if found.process else None


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    # Opened, not only looked at: a network file system then asks its server.
    with open(path, "rb", opener=records.open_regular) as stream:
        return stream.read(1000), os.fstat(stream.fileno())


def _parsed(text: bytes) -> Holder:
    """Return the holder that a lease names; one that is just being written, or damaged, names none."""
    words = text.decode("utf-8", "replace").split(" ")
    return Holder(*words) if len(words) == 3 else Holder("", "", "")


def _remove(path: Path, text: bytes, scratch: Path) -> None:
    """Remove the lease of a dead holder, whose content is `text`."""
    try:
        path.rename(scratch)
    except FileNotFoundError:
        return
    # Between the look at it and the renaming, another process may have taken it over: then it gets it back.
    if scratch.read_bytes() != text:
        with suppress(FileExistsError):
            os.link(scratch, path)
    scratch.unlink()
    _log.info("the lease %s of a process that has ended is removed", path)


def _me() -> Holder:
    process = str(os.getpid())
    return Holder(_machine(), process, _started(process) or "?")


@lru_cache(maxsize=1)
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{os.uname().nodename}/{boot}/{os.readlink('/proc/self/ns/pid')}".replace(" ", "")  # noqa: PTH115
    except OSError:  # no process can be looked up here
        return f"{os.uname().nodename}/{os.urandom(8).hex()}".replace(" ", "")


def _started(process: str) -> str | None:
    """Return the start of a process, as text; None if there is none, or only what its parent has not fetched yet."""
    try:
        fields = Path("/proc", process, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@lru_cache(maxsize=16)
def _kind(device: int) -> str:
    """Return the type of the file system with a device number; empty: unknown."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    # e.g. `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.rpartition(" - ")[2].split()[0] for line in lines if line.split()[2] == wanted]
    return kinds[0] if kinds else ""
