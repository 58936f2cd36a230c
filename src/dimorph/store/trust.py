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
_ACL = "system.posix_acl_access"
_MOST_LINKS = 40  # as many as Linux follows


class Trust(NamedTuple):
    """The users and groups that may have written a store.

    Checks go from the outermost parent inwards. In a directory that only trusted users can write, nobody else can
    replace a path between its check (`lstat`) and its use, and that holds for the dynamic loader's use too. The other
    way, to hold every directory open and to load by descriptor, would need no checks of parents. But then objects have
    names such as `/proc/self/fd/7`: the dynamic loader takes two objects of one name for the same, debuggers and
    profilers find no file, and nothing loads where /proc is not mounted.

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
        root: its owner, and its group if that may write. These can replace the root as a whole. For packaged artifacts
        the directory is the Python package, whose code this process has already run; a shared store is used only where
        the settings name it. Refusing them would protect nothing and would refuse installations by pip: files owned by
        the user who installed into a shared environment, or, under umask 002, writable by the group. Paths that are
        more open than the directory that contains the root are refused all the same.

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
            if root and not stat.S_ISLNK(mode):  # it may be anything, even a device, so nobody is told to remove it
                _refuse(path, f"{actual}, expected {expected}", "name another directory")
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

    def check_parents(self, path: Path) -> None:
        """Refuse a path that an untrusted user could replace, because he can rename it or a directory above it.

        A trusted user must own every directory above the path. Others may write one only if it is sticky, as `/tmp` is,
        where they can rename nothing that they do not own; or if they are a group that is trusted, or that has the
        current user as its only member, as many systems make one for each user.

        Args:
            path: an absolute path without links; it need not exist.

        Raises:
            StoreRefused: a directory is refused; the message names it, the problem and what mends it.
        """
        for parent in reversed(path.parents):
            try:
                status = parent.lstat()
            except FileNotFoundError:
                return
            mode = status.st_mode
            if not stat.S_ISDIR(mode):
                elsewhere = "use a store in another directory"
                _refuse(parent, f"above {path}, is of type {stat.filemode(mode)[0]!r}, expected a directory", elsewhere)
            # In a user namespace the root of the file system may belong to a user without a number of its own. Whoever
            # that is controls every file anyway.
            if status.st_uid not in self.owners and status.st_uid != Path("/").lstat().st_uid:
                problem = f"above {path}, is owned by user {status.st_uid}, who can replace the store"
                _refuse(parent, problem, "use a store in a directory of your own")
            loose = 0 if mode & stat.S_ISVTX else mode & _OTHERS_WRITE
            if not loose or (loose == stat.S_IWGRP and self._is_trusted_group(parent, status.st_gid)):
                continue
            letter, whom = ("o", "world") if loose & stat.S_IWOTH else ("g", f"group {status.st_gid}")
            problem = f"above {path}, is writable by {whom} and not sticky (mode {stat.S_IMODE(mode):04o})"
            _refuse(parent, problem, f"chmod {'go' if loose == _OTHERS_WRITE else letter}-w {shlex.quote(str(parent))}")

    def check_link(self, link: Path) -> None:
        """Refuse a link on the way to a root that an untrusted user made or could replace.

        Raises:
            StoreRefused: the link, or a directory above it, is refused.
        """
        self.check_parents(link)
        owner = link.lstat().st_uid
        if owner not in self.owners:
            problem = f"is a link of user {owner}, expected one of {', '.join(map(str, sorted(self.owners)))}"
            _refuse(link, problem, f"sudo rm {shlex.quote(str(link))}")

    def _is_trusted_group(self, directory: Path, group: int) -> bool:
        return group in self.writers or (_is_private_group(group) and not _has_access_list(directory))


def follow(path: Path) -> tuple[Path, list[Path]]:
    """Return the absolute path without links that a path leads to, and the links that were followed.

    The path need not exist. Links in a circle, and a link that cannot be read, are part of the result.
    """
    waiting = list(reversed(path.absolute().parts[1:]))
    at = "/"
    links: list[Path] = []
    while waiting:
        name = waiting.pop()
        if name == "..":
            at = os.path.dirname(at)  # noqa: PTH120 - a text: a path for each step would double the time of a search
            continue
        step = os.path.join(at, name)  # noqa: PTH118
        try:
            # As a rule there is no link, and then this is the only call for the step.
            target = os.readlink(step) if len(links) < _MOST_LINKS else ""  # noqa: PTH115
        except OSError:
            target = ""
        if not target:
            at = step
            continue
        links.append(Path(step))
        if target.startswith("/"):
            at = "/"
        waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return Path(at), links


def _is_private_group(group: int) -> bool:
    """Return True for the group that a system made for the current user alone: it has his name and no other member."""
    import grp  # here, because few directories above a store are writable by a group
    import pwd

    try:
        me, named = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return me.pw_gid == group and named.gr_name == me.pw_name and set(named.gr_mem) <= {me.pw_name}


def _has_access_list(directory: Path) -> bool:
    """Return True if an access control list may let other users write a directory that its group can write."""
    try:
        return _ACL in os.listxattr(directory)
    except OSError:
        return False


def _refuse(path: Path, problem: str, mend: str) -> NoReturn:
    raise StoreRefused(f"store refused: {path} {problem}. To mend it: {mend}")
