"""Temporary directories and locks inside a store: their names, and their removal when a killed process left them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.store import lease, locks, mark

_log = logger(__name__)

_DAY = 86400.0  # seconds
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)


def temporary_name() -> str:
    """Return a name for a temporary directory, as `mark.is_temporary` knows it."""
    return f"{os.getpid()}-{os.urandom(8).hex()}.{_HOST}"


def erase(directory: Path) -> None:
    """Remove a directory in `tmp`; one that cannot be removed is logged."""
    try:
        _lazy.shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:  # harmless for the caller: no search looks into `tmp`
        _log.warning("cannot be removed now, a later sweep will try again: %s: %s", directory, error)


def sweep_work(directory: Path, stem: str) -> bool:
    """Remove `stem` and its lock file if the lock is free or missing: no process uses it then.

    Returns:
        True if `stem` was there and is removed.
    """
    work, lock = directory / stem, directory / f"{stem}{mark.LOCK}"
    try:
        if _may_live_elsewhere(work):
            return False
        fd = locks.acquire(lock, wait=False)
    except OSError as error:
        _log.info("not swept: %s: %s", work, error)
        return False
    if fd is None:
        return False
    with locks.releasing(lock, fd):
        left = os.path.lexists(work)
        erase(work)
    return left


def sweep_lock(path: Path) -> None:
    """Remove the lock file of a key if no process holds it."""
    try:
        fd = locks.acquire(path, wait=False)
    except OSError as error:
        _log.info("not swept: %s: %s", path, error)
        return
    if fd is not None:
        with locks.releasing(path, fd):
            pass


def sweep_lease(path: Path) -> None:
    """Remove a lease whose holder has ended; one of another machine has a day."""
    try:
        if lease.is_left(path, _DAY):
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.info("not swept: %s: %s", path, error)


def _may_live_elsewhere(work: Path) -> bool:
    """Return True for a directory less than a day old of another machine, whose locks may be invisible here.

    Some shared file systems keep the locks of flock within one machine.
    """
    if work.suffix in ("", f".{_HOST}"):
        return False
    try:
        return time.time() - work.lstat().st_mtime < _DAY
    except FileNotFoundError:
        return False
