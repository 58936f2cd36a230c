"""Checks of the users who may have written a store: loading a shared object runs its code with the caller's rights."""

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

    Checks go from the root inwards. In a directory that only trusted users can write, nobody else can replace a path
    between its check (`lstat`) and its use.

    Attributes:
        owners: the ids of the users that may own directories and files.
        writers: the ids of the groups that may have write permission; world-writable paths are always refused.
    """

    owners: frozenset[int]
    writers: frozenset[int] = frozenset()

    @classmethod
    def of(cls, root: Path, private: bool) -> Trust:
        """Return the users and groups to trust with the store at `root`.

        A private store trusts the current user and root, and no group.

        Other stores (packaged artifacts, shared stores) also trust those who control the directory that contains the
        root: its owner, and its group if that may write. These can replace the root as a whole, and for packaged
        artifacts the directory is the Python package, whose code this process has already run. Refusing them would
        protect nothing and would refuse installations by pip: files owned by the user who installed into a shared
        environment, or, under umask 002, writable by the group. Paths that are more open than the directory that
        contains the root are refused all the same.

        Args:
            root: the root, with links resolved; it need not exist.
            private: True for a private store.
        """
        me = os.geteuid()
        if private:
            return cls(frozenset({0, me}))
        try:
            holder = root.parent.stat()
        except FileNotFoundError:
            return cls(frozenset({0, me}))
        # In a sticky directory the group may add files but cannot replace those of others.
        shared = holder.st_mode & stat.S_IWGRP and not holder.st_mode & stat.S_ISVTX
        return cls(frozenset({0, me, holder.st_uid}), frozenset({holder.st_gid} if shared else ()))

    def check(self, path: Path, status: os.stat_result, *, directory: bool, root: bool = False) -> None:
        """Refuse a path that an untrusted user may have written, and links, which lead to unchecked directories.

        Args:
            path: the path to check; its parent has been checked already.
            status: its status, from `lstat`, or from `fstat` of a file that was opened without following links.
            directory: True if a directory is expected, False for a regular file.
            root: True for the root of the store, for which the advice in the message differs.

        Raises:
            StoreRefused: the path is refused; the message names it, the problem, and the command that mends it.
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
            # A root needs a trusted owner only, since its content is checked by itself. Any other path was put into the
            # store by an untrusted user and has to go.
            mend = f"sudo chown {os.geteuid()} {name}" if root else f"sudo rm -rf {name}"
            users = ", ".join(str(uid) for uid in sorted(self.owners))
            _refuse(path, f"is owned by user {status.st_uid}, expected one of {users}", mend)
        whom = "world" if loose & stat.S_IWOTH else f"group {status.st_gid}"
        # A directory needs another mode only: files that others put into it belong to them and are refused by
        # themselves. A file may have been changed by others and has to go.
        mend = f"chmod go-w {name}" if directory else f"rm {name}"
        _refuse(path, f"is writable by {whom} (mode {stat.S_IMODE(mode):04o}), expected go-w", mend)

    def opener(self, path: str, flags: int) -> int:
        """Open a file of a store without following links, and check it; for `open(..., opener=...)`.

        Raises:
            StoreRefused: the path is a link or no regular file, or an untrusted user may have written it.
            OSError: the file cannot be opened.
        """
        try:  # O_NONBLOCK: opening a named pipe would otherwise wait for a writer, possibly for ever
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
    """Refuse a root that any user could have replaced: world-writable directories above it must be sticky.

    Raises:
        StoreRefused: a directory is not sticky; the message names it and the command that mends it.
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
