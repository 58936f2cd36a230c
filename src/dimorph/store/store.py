"""A store: a directory that keeps artifacts by key, as `<root>/<key[:2]>/<key>/<toolchain_id>/`.

Such a directory is an entry. An entry is created by one rename and never changed, so readers see it whole or not at
all. Locks only avoid building the same artifact twice.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.errors import ArtifactCorrupt
from dimorph.store.artifact import META_NAME, Artifact, FileRecord, Meta, check_file_name, describe, is_hex
from dimorph.store.directory import Workspace, remove_if_empty, sync_directory
from dimorph.store.trust import Trust

_log = logger(__name__)

_DAY = 86400.0  # seconds
_ATTEMPTS = 16  # an attempt fails only if another process removes or publishes the same entry at the same moment

_T = TypeVar("_T")


class Broken(NamedTuple):
    """An entry or directory of a store that cannot be used, with the error.

    Attributes:
        path: the entry, or the directory that cannot be searched.
        error: ArtifactCorrupt or FileNotFoundError (bad content), StoreRefused, or another OSError.
    """

    path: Path
    error: Exception


class Usage(NamedTuple):
    """The size of an entry and its last use.

    Attributes:
        path: the entry.
        size: the size of its files, in bytes.
        used: the time of the last use, accurate to a day.
    """

    path: Path
    size: int
    used: _lazy.datetime.datetime


def is_content_error(error: Exception) -> bool:
    """Return True for bad content, whose entry may be removed; False for failing input or output.

    Args:
        error: the error raised while an entry was read whose directory exists.
    """
    # A missing file is bad content too: the description, or a file that the description names.
    return isinstance(error, (ArtifactCorrupt, FileNotFoundError))


class Store(Workspace):
    """A directory of artifacts; safe for any number of threads and processes at once.

    Every method raises StoreRefused if the root, or a path that it uses inside, could have been written by an untrusted
    user (see `dimorph.store.trust.Trust`), and OSError if reading or writing fails.
    """

    def find(self, key: str, toolchain_id: str | None = None) -> Artifact | None:
        """Find an artifact and verify its description and checksums.

        Args:
            key: the content key, 64 hex digits.
            toolchain_id: the identity of the compiler that made it, 16 hex digits. None: any compiler; of several
                artifacts, the one created last is returned.

        Returns:
            The artifact, or None. An entry with bad content is not found: a warning is logged, and a writable store
            removes the entry.

        Raises:
            ValueError: the key or the identity is malformed.
            StoreRefused, OSError: as for the class; with `toolchain_id` None, only if no other compiler's artifact is
                found.
        """
        _check_ids("Store.find", key, toolchain_id)
        trust = self._enter()
        if trust is None:
            return None
        found: list[Artifact] = []
        problems: list[OSError] = []
        for identity in self._identities(trust, key) if toolchain_id is None else (toolchain_id,):
            try:
                artifact = self._find_one(trust, key, identity)
            except OSError as error:  # StoreRefused is one
                problems.append(error)
                continue
            if artifact is not None:
                found.append(artifact)
        if problems and not found:
            raise problems[0]
        for problem in problems:
            _log.warning("artifact passed over: %s", problem)
        return max(found, key=lambda a: (a.meta.created_at(), a.meta.toolchain_id), default=None)

    def publish(self, key: str, toolchain_id: str, files: Mapping[str, Path], meta: Meta) -> Artifact:
        """Copy files into a new entry, which becomes visible whole by one rename.

        If another process published the entry first, that entry is verified and returned; if it is corrupt, it is
        replaced. The given files stay where they are, so that the caller can use them if publishing fails.

        Args:
            key: the content key, 64 hex digits, equal to that of `meta`.
            toolchain_id: the identity of the compiler, 16 hex digits, equal to that of `meta`.
            files: name in the entry -> file to copy.
            meta: the description. Its `files` is filled in; if not empty, it must match the copies.

        Raises:
            ValueError: the arguments are malformed or contradict each other.
            ArtifactCorrupt: a file does not match `meta.files`.
            StoreRefused: an untrusted user could have written the store.
            OSError: the store is full, read-only, or fails; no entry is visible then.
        """
        _check_ids("Store.publish", key, toolchain_id)
        if (meta.key, meta.toolchain_id) != (key, toolchain_id):
            raise ValueError(f"Store.publish: meta: expected {key}/{toolchain_id}, got {meta.key}/{meta.toolchain_id}")
        if not files:
            raise ValueError("Store.publish: files: expected at least one, got none")
        for name in files:
            check_file_name("Store.publish: files", name)
        with self.work_dir() as work:
            entry = work / "entry"
            self._make_level(entry)
            return self._install(entry, self._fill(entry, files, meta))

    def entries(self) -> Iterator[Artifact | Broken]:
        """Yield every entry in the order of keys, as an artifact or as broken. Checksums are not compared."""
        return self._each(_read)

    def verify(self) -> list[Broken]:
        """Compare every checksum in the store and return the broken entries; nothing is removed."""
        return [item for item in self._each(_read_verified) if isinstance(item, Broken)]

    def usage(self) -> list[Usage]:
        """Return size and last use of every entry, least recently used first; those that cannot be read are logged."""
        result = []
        for item in self._each(_measure):
            if isinstance(item, Usage):
                result.append(item)
            else:
                _log.warning("artifact not counted: %s: %s", item.path, item.error)
        return sorted(result, key=lambda usage: (usage.used, usage.path))

    def size(self) -> int:
        """Return the size of all entries, in bytes."""
        return sum(usage.size for usage in self.usage())

    def remove(self, key: str, toolchain_id: str | None = None) -> int:
        """Remove the entries of a key, of one compiler or of all, and return their number.

        Processes that have loaded an object of an entry are not affected: the system keeps a mapped file.

        Raises:
            ValueError: the key or the identity is malformed.
        """
        _check_ids("Store.remove", key, toolchain_id)
        trust = self._enter()
        if trust is None:
            return 0
        removed = 0
        for identity in self._identities(trust, key) if toolchain_id is None else (toolchain_id,):
            path, status = self._descend(trust, key[:2], key, identity)
            if status is not None:
                removed += self._discard(path, status)
        return removed

    def prune(
        self,
        max_bytes: int | None,
        max_age: _lazy.datetime.timedelta | None,
        min_age: _lazy.datetime.timedelta | None = None,
    ) -> list[Usage]:
        """Remove the least recently used entries until the rest is within the limits, and return the removed ones.

        An entry that another process found just before may be removed; that process builds it again.

        Args:
            max_bytes: the limit of the entries' size together, in bytes; None: no limit.
            max_age: the limit of the time since an entry's last use; None: no limit.
            min_age: entries used within this time stay, whatever the limits; None: no entry is kept for its use.
        """
        usages = self.usage()
        total = sum(usage.size for usage in usages)
        now = _lazy.datetime.datetime.now(_lazy.datetime.timezone.utc)
        removed = []
        for usage in usages:
            age = now - usage.used
            too_old = max_age is not None and age > max_age
            too_new = min_age is not None and age < min_age
            if too_new or (not too_old and (max_bytes is None or total <= max_bytes)):
                break  # all further entries were used later
            total -= usage.size
            if self._discard(usage.path):
                removed.append(usage)
        return removed

    def remove_corrupt(self) -> int:
        """Remove the entries whose description cannot be used, and return their number."""
        broken = [item for item in self.entries() if isinstance(item, Broken) and is_content_error(item.error)]
        return sum(self._discard(item.path) for item in broken)

    def _identities(self, trust: Trust, key: str) -> list[str]:
        path, status = self._descend(trust, key[:2], key)
        if status is None:
            return []
        try:
            return sorted(child.name for child in path.iterdir() if is_hex(child.name, 16))
        except FileNotFoundError:
            return []

    def _find_one(self, trust: Trust, key: str, toolchain_id: str) -> Artifact | None:
        path, status = self._descend(trust, key[:2], key, toolchain_id)
        if status is None:
            return None
        artifact = _examine(trust, path)
        if isinstance(artifact, Exception):
            self._reject(path, status, artifact)
            return None
        if self.writable and time.time() - status.st_mtime > _DAY:
            # The directory's modification time records the use: it is not part of the content, and is set once a day.
            try:
                os.utime(path)
            except OSError as error:
                _log.debug("use of %s is not recorded: %s", path, error)
        return artifact

    def _reject(self, path: Path, status: os.stat_result, error: Exception) -> None:
        outcome = "left there, as the store is used read-only"
        if self.writable:
            try:
                outcome = "removed" if self._discard(path, status) else "gone already"
            except OSError as failure:
                outcome = f"cannot be removed ({failure})"
        _log.warning("artifact not used, its content is bad: %s; %s", error, outcome)

    def _discard(self, path: Path, seen: os.stat_result | None = None) -> bool:
        taken = self._take_out(path, seen)
        if taken:
            remove_if_empty(path.parent)
            remove_if_empty(path.parent.parent)
        return taken

    def _fill(self, entry: Path, files: Mapping[str, Path], meta: Meta) -> Meta:
        records: dict[str, FileRecord] = {}
        for name, source in files.items():
            with source.open("rb") as stream, self._create(entry / name) as copy:
                _lazy.shutil.copyfileobj(stream, copy)
            records[name] = describe(entry / name)
        if meta.files and meta.files != records:
            raise ArtifactCorrupt(f"Store.publish: files: expected {meta.files}, actual {records}")
        meta = meta.with_files(records)
        with self._create(entry / META_NAME) as copy:
            copy.write(meta.to_json().encode())
        os.utime(entry / META_NAME, ns=(meta.created_ns(),) * 2)
        sync_directory(entry)
        return meta

    def _install(self, entry: Path, meta: Meta) -> Artifact:
        home = self.root / meta.key[:2] / meta.key
        final = home / meta.toolchain_id
        for _ in range(_ATTEMPTS):
            try:
                self._make_directory(meta.key[:2], meta.key)
                entry.rename(final)
            except FileNotFoundError:
                continue  # another process removed the last other entry of the key, and the directory with it
            except OSError as error:  # ENOTDIR: the path is not a directory, which is refused below
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                with suppress(FileNotFoundError):  # another process has removed it already
                    sync_directory(home)
                return Artifact(final, meta)
            trust = self._enter()
            if trust is None:
                continue
            _, status = self._descend(trust, meta.key[:2], meta.key, meta.toolchain_id)
            if status is None:
                continue
            winner = _examine(trust, final)
            if isinstance(winner, Artifact):
                return winner
            _log.warning("artifact replaced, its content is bad: %s", winner)
            self._discard(final, status)
        raise OSError(errno.EBUSY, f"changed by other processes {_ATTEMPTS} times in a row", str(final))

    def _each(self, look: Callable[[Trust, Path], _T]) -> Iterator[_T | Broken]:
        trust = self._enter()
        if trust is None:
            return
        for path in _walk(trust, self.root, (2, 64, 16)):
            if isinstance(path, Broken):
                yield path
                continue
            try:
                yield look(trust, path)
            except (ArtifactCorrupt, OSError) as error:
                if os.path.lexists(path):  # otherwise another process has removed it
                    yield Broken(path, error)


def _walk(trust: Trust, directory: Path, lengths: tuple[int, ...]) -> Iterator[Path | Broken]:
    """Yield the entries below `directory`; `lengths` are the numbers of hex digits in the names of each level."""
    if not lengths:
        yield directory
        return
    try:
        children = sorted(child for child in directory.iterdir() if is_hex(child.name, lengths[0]))
    except FileNotFoundError:
        return
    except OSError as error:
        yield Broken(directory, error)
        return
    for child in children:
        try:
            trust.check(child, child.lstat(), directory=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Broken(child, error)
            continue
        yield from _walk(trust, child, lengths[1:])


def _read(trust: Trust, path: Path) -> Artifact:
    artifact = Artifact.load(path, trust.opener)
    meta = artifact.meta
    if (meta.key, meta.toolchain_id) != (path.parent.name, path.name):
        raise ArtifactCorrupt(f"{path}: expected a description of this, actual {meta.key}/{meta.toolchain_id}")
    artifact.object_name()  # raises an error for a description without an object to load
    return artifact


def _read_verified(trust: Trust, path: Path) -> Artifact:
    artifact = _read(trust, path)
    artifact.verify(trust.opener)
    return artifact


def _measure(_trust: Trust, path: Path) -> Usage:
    used = _lazy.datetime.datetime.fromtimestamp(path.lstat().st_mtime, _lazy.datetime.timezone.utc)
    return Usage(path, sum(child.lstat().st_size for child in path.iterdir()), used)


def _examine(trust: Trust, path: Path) -> Artifact | Exception:
    """Return the verified artifact of an entry, or the error in its content; raise every other error."""
    try:
        return _read_verified(trust, path)
    except Exception as error:
        if is_content_error(error):
            return error
        raise


def _check_ids(function: str, key: str, toolchain_id: str | None) -> None:
    if not is_hex(key, 64):
        raise ValueError(f"{function}: key: expected 64 hex digits, got {key!r}")
    if toolchain_id is not None and not is_hex(toolchain_id, 16):
        raise ValueError(f"{function}: toolchain_id: expected 16 hex digits, got {toolchain_id!r}")
