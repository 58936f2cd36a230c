"""Who may have written what is about to be loaded. Loading a shared object runs its code with our rights."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path
from typing import NamedTuple, NoReturn

from dimorph.errors import StoreRefused

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Trust(NamedTuple):
    """The users and groups that may have written a store.

    Checks go from the root inwards: once a directory is known to be writable by trusted users only, nobody
    else can swap what is in it, so looking (`lstat`) and then using the path races with nobody but them.

    Attributes:
        owners: user ids that may own directories and files.
        writers: group ids whose write permission is accepted; world-writable never is.
    """

    owners: frozenset[int]
    writers: frozenset[int] = frozenset()

    @classmethod
    def of(cls, root: Path, private: bool) -> Trust:
        """Whom to trust with the store at `root` (a resolved path, which need not exist).

        A private store: me and root, and no group.

        Otherwise (packaged artifacts, shared stores) also whoever controls the directory that holds the
        root: its owner, and its group where that may write. They can put anything in the root's place, and
        for packaged artifacts that directory is the Python package, whose code has already run in this
        process. Refusing them would protect nothing and break what pip makes: files owned by the user who
        installed into a shared environment, or, under umask 002, group-writable throughout. What is more
        open than the directory that holds the root is refused all the same.
        """
        me = os.geteuid()
        if private:
            return cls(frozenset({0, me}))
        try:
            holder = root.parent.stat()
        except FileNotFoundError:
            return cls(frozenset({0, me}))
        # In a sticky directory the group may add names but not touch those of others.
        shared = holder.st_mode & stat.S_IWGRP and not holder.st_mode & stat.S_ISVTX
        return cls(frozenset({0, me, holder.st_uid}), frozenset({holder.st_gid} if shared else ()))

    def check(self, path: Path, status: os.stat_result, *, directory: bool, root: bool = False) -> None:
        """Refuses what someone else may have written, and links, which lead out of what was checked.

        Args:
            path: what is looked at; its parent has been checked already.
            status: its status, from `lstat`, or from `fstat` of what was opened without following links.
            directory: whether a directory or a regular file is expected.
            root: whether this is the root of the store (only the advice differs).

        Raises:
            StoreRefused: the message names the path, what is wrong, and the command that mends it.
        """
        mode = status.st_mode
        right_type = stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)
        loose = mode & _OTHERS_WRITE
        if loose == stat.S_IWGRP and status.st_gid in self.writers:
            loose = 0
        if right_type and status.st_uid in self.owners and not loose:
            return
        name = shlex.quote(str(path))
        if not right_type:
            expected = "a directory" if directory else "a regular file"
            actual = "is a link" if stat.S_ISLNK(mode) else f"is of type {stat.filemode(mode)[0]!r}"
            _refuse(path, f"{actual}, expected {expected} (links inside a store are refused)", f"rm {name}")
        if status.st_uid not in self.owners:
            # The owner of the root alone says nothing about what is in it, which is checked by itself; what
            # someone else put into a store is theirs, so it goes.
            mend = f"sudo chown {os.geteuid()} {name}" if root else f"sudo rm -rf {name}"
            users = ", ".join(str(uid) for uid in sorted(self.owners))
            _refuse(path, f"is owned by user {status.st_uid}, expected one of {users}", mend)
        whom = "world" if loose & stat.S_IWOTH else f"group {status.st_gid}"
        # What others put into a directory is theirs, and refused by itself; a file may have been changed.
        mend = f"chmod go-w {name}" if directory else f"rm {name}"
        _refuse(path, f"is writable by {whom} (mode {stat.S_IMODE(mode):04o}), expected go-w", mend)

    def opener(self, path: str, flags: int) -> int:
        """For `open(..., opener=...)`: opens a file of a store without following a link, and checks it.

        Raises:
            StoreRefused: it is a link, not a regular file, or someone else may have written it.
            OSError: it cannot be opened.
        """
        try:  # O_NONBLOCK: a named pipe would wait for a writer for ever
            fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self.check(Path(path), os.lstat(path), directory=False)
            raise
        try:
            self.check(Path(path), os.fstat(fd), directory=False)
        except BaseException:
            os.close(fd)
            raise
        return fd


def check_parents(root: Path) -> None:
    """Refuses a root that anybody could have swapped: above it, world-writable directories must be sticky.

    Raises:
        StoreRefused: one is not; the message names it and the command that mends it.
    """
    for parent in root.parents:
        try:
            mode = parent.stat().st_mode
        except FileNotFoundError:
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            problem = f"above {root}, is writable by world and not sticky (mode {stat.S_IMODE(mode):04o})"
            _refuse(parent, problem, f"chmod o-w {shlex.quote(str(parent))}")


def _refuse(path: Path, problem: str, mend: str) -> NoReturn:
    raise StoreRefused(f"store refused: {path} {problem}. To mend it: {mend}")
