"""Where artifacts are kept and found by key: `<root>/<key[:2]>/<key>/<toolchain_id>/`.

An entry comes into being by one rename and is never changed, so what is found is whole. Locks only save work.
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
_ATTEMPTS = 16  # each is lost only to another process that removes or publishes the same entry just then

_T = TypeVar("_T")


class Broken(NamedTuple):
    """Something in a store that cannot be used, and why.

    Attributes:
        path: the entry, or the directory that cannot be searched.
        error: ArtifactCorrupt or FileNotFoundError (bad content), StoreRefused, or another OSError.
    """

    path: Path
    error: Exception


class Usage(NamedTuple):
    """What an entry takes (bytes) and when it was last used (to the day)."""

    path: Path
    size: int
    used: _lazy.datetime.datetime


def is_content_error(error: Exception) -> bool:
    """Tells bad content, whose entry may go, from failing input or output, which never deletes anything.

    Args:
        error: raised while an entry was read whose directory was there.
    """
    # A file missing inside an entry is content too: the description, or one that the description names.
    return isinstance(error, (ArtifactCorrupt, FileNotFoundError))


class Store(Workspace):
    """A directory of artifacts; safe for any number of threads and processes at once.

    Every method raises StoreRefused when the root, or what it looks at inside, could have been written by
    someone who is not trusted (see `dimorph.trust.Trust`), and OSError when reading or writing fails.
    """

    def find(self, key: str, toolchain_id: str | None = None) -> Artifact | None:
        """Looks an artifact up and verifies its description and checksums.

        Args:
            key: content key, 64 hex digits.
            toolchain_id: identity of the compiler that must have made it, 16 hex digits. None: any; of
                several the one created last.

        Returns:
            The artifact, or None. Bad content counts as absent, with a warning in the log; a writable store
            removes it.

        Raises:
            ValueError: malformed key or identity.
            StoreRefused, OSError: as for the class; when any identity serves, only if no other one does.
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
            _log.warning("passed over: %s", problem)
        return max(found, key=lambda a: (a.meta.created_at(), a.meta.toolchain_id), default=None)

    def publish(self, key: str, toolchain_id: str, files: Mapping[str, Path], meta: Meta) -> Artifact:
        """Copies files in and makes them an entry, by one rename: it is found whole or not at all.

        When another process was first, its entry is verified and returned; if it is corrupt, it is replaced.
        The files given stay where they are, so that the caller can use them when publishing fails.

        Args:
            key: content key, 64 hex digits, that of `meta`.
            toolchain_id: identity of the compiler, 16 hex digits, that of `meta`.
            files: name in the entry -> file to copy.
            meta: the description. Its `files` is filled in; if not empty, the copies must agree with it.

        Raises:
            ValueError: malformed or disagreeing arguments.
            ArtifactCorrupt: a file is not what `meta.files` says.
            StoreRefused: the place is unsafe.
            OSError: the store is full, read-only, or fails; nothing is left that is ever found.
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
        """Everything in the store, in the order of keys. Reads descriptions, does not compare checksums."""
        return self._each(_read)

    def verify(self) -> list[Broken]:
        """Compares every checksum in the store; reports what cannot be used and removes nothing."""
        return [item for item in self._each(_read_verified) if isinstance(item, Broken)]

    def usage(self) -> list[Usage]:
        """What each entry takes, least recently used first; without what is refused or fails (logged)."""
        result = []
        for item in self._each(_measure):
            if isinstance(item, Usage):
                result.append(item)
            else:
                _log.warning("not counted: %s: %s", item.path, item.error)
        return sorted(result, key=lambda usage: (usage.used, usage.path))

    def size(self) -> int:
        """Bytes that the entries take."""
        return sum(usage.size for usage in self.usage())

    def remove(self, key: str, toolchain_id: str | None = None) -> int:
        """Removes the entries of a key (of one compiler, or all) and returns how many there were.

        Like all removal, this leaves what a process has loaded alone: mappings outlive the file's name.
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
        """Remove the least recently used entries until the rest fits, and return them.

        An entry that another process found just before may be among them; that process builds it again.

        Args:
            max_bytes: the bytes that the entries may take; None: any amount.
            max_age: the time since the last use that an entry may have; None: any time.
            min_age: entries that were used since then stay; None: none does for that.
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
                break  # the rest was used later still
            total -= usage.size
            if self._discard(usage.path):
                removed.append(usage)
        return removed

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
            # The directory's own time is free to record use: it is no content, and once a day costs nothing.
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
        _log.warning("not used, its content is bad: %s; %s", error, outcome)

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
                continue  # someone removed the last entry beside this one, and the directory with it
            except OSError as error:  # ENOTDIR: there is something else, which is refused below
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                with suppress(FileNotFoundError):  # removed already
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
            _log.warning("replaced, its content is bad: %s", winner)
            self._discard(final, status)
        raise OSError(errno.EBUSY, f"changed by others {_ATTEMPTS} times in a row", str(final))

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
                if path.exists():  # otherwise someone removed it meanwhile
                    yield Broken(path, error)


def _walk(trust: Trust, directory: Path, lengths: tuple[int, ...]) -> Iterator[Path | Broken]:
    """The entries below `directory`, whose names have these numbers of hex digits, level by level."""
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
    return artifact


def _read_verified(trust: Trust, path: Path) -> Artifact:
    artifact = _read(trust, path)
    artifact.verify(trust.opener)
    return artifact


def _measure(_trust: Trust, path: Path) -> Usage:
    used = _lazy.datetime.datetime.fromtimestamp(path.lstat().st_mtime, _lazy.datetime.timezone.utc)
    return Usage(path, sum(child.lstat().st_size for child in path.iterdir()), used)


def _examine(trust: Trust, path: Path) -> Artifact | Exception:
    """The entry, verified, or what is wrong with its content; every other failure is raised."""
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
