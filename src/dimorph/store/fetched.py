"""The artifacts fetched from a remote store: a store inside the user's store, which fetches what it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dimorph._lazy import logger
from dimorph.errors import DimorphError, StoreRefused, no_descriptors
from dimorph.store import mark, pack
from dimorph.store.artifact import Artifact, is_hex
from dimorph.store.remote import Remote, Unreachable
from dimorph.store.store import Store
from dimorph.store.waiting import Waiting, locked_if_possible

_log = logger("dimorph")

_DIRECTORY = "remotes"
# A load asks several times for what is nowhere: the search for a wider set, then that for each unit.
_ABSENT = 10.0  # seconds for which a key that is not there is not asked for again

# Remote and key -> the time until which it is known that it is not there.
_absent: dict[tuple[Remote, str], float] = {}
# Remote and key -> why what it sent was refused; it is not fetched again by this process.
_refused: dict[tuple[Remote, str], str] = {}
# Remote and key -> the artifact in a private store of this process, where the user's store cannot be written.
_elsewhere: dict[tuple[Remote, str], Artifact] = {}
_FRESH = 300.0  # seconds for which a manifest is not fetched again
# Remote -> the time until which its manifest is not fetched again.
_fresh: dict[Remote, float] = {}


def kept_root(home: Path, remote: Remote) -> Path:
    """Return the directory of what was fetched of a remote store; another public key has another one.

    Args:
        home: the user's store.
        remote: the remote store.
    """
    return home / _DIRECTORY / remote.digest


def kept_stores(store: Store) -> list[Store]:
    """Return what was fetched of remote stores, as stores inside of the user's store, whether named now or before."""
    try:
        names = sorted(path.name for path in (store.root / _DIRECTORY).iterdir() if is_hex(path.name, 16))
    except FileNotFoundError:
        return []
    return [Store(store.root / _DIRECTORY / name, writable=store.writable) for name in names]


class RemoteStore(Store):
    """A remote store, as a load searches it: what was fetched is kept, and served like that of a local store."""

    def __init__(self, remote: Remote, home: Path, seconds: float, spare: Callable[[Store, Exception], Store]) -> None:
        """Refer to a remote store without asking it.

        Args:
            remote: its address.
            home: the user's store, inside of which it keeps what it fetches.
            seconds: the longest time that one artifact may take.
            spare: returns a store to use where this one cannot be written.
        """
        super().__init__(kept_root(home, remote))
        self.remote = remote
        self._home = Store(home)
        self._seconds = seconds
        self._spare = spare

    def find(self, key: str, toolchain_id: str | None = None) -> Artifact | None:
        """Find an artifact among those that were fetched; else fetch, verify and keep it.

        Raises:
            StoreRefused: what the remote store sent is not what was asked for, or its signature is missing or wrong.
            Unreachable: the remote store does not answer.
        """
        if kept := self._kept(key, toolchain_id):
            return kept
        asked = (self.remote, key)
        if asked in _refused:
            raise StoreRefused(_refused[asked])
        if time.monotonic() < _absent.get(asked, 0.0):
            return None
        # Of many processes one fetches.
        waiting = Waiting(f"{key[:12]} from {self.remote.name}", self._seconds, doing="fetch")
        with locked_if_possible(lambda: self._marked().lock(key, waiting), self.root):
            # Another process may have fetched it while this one waited.
            found = self._kept(key) or self._fetched(key)
        if found is None:
            _absent[asked] = time.monotonic() + _ABSENT
        return found if found and toolchain_id in (None, found.meta.toolchain_id) else None

    def refresh(self) -> None:
        """Fetch the manifest, if that was not done within the last minutes; without an answer the one before stays.

        Raises:
            OSError: it cannot be kept.
        """
        if time.monotonic() < _fresh.get(self.remote, 0.0):
            return
        _fresh[self.remote] = time.monotonic() + _FRESH
        try:
            content = self._read_signed(mark.MANIFEST)
        except Unreachable:
            return
        except DimorphError as error:
            _log.warning("dimorph: not used, and nothing of it is kept: %s", error)
            return
        if content is None:
            return
        with self._marked().work_dir() as work:
            with self._create(work / mark.MANIFEST) as copy:
                copy.write(content)
            (work / mark.MANIFEST).replace(self.root / mark.MANIFEST)

    def _marked(self) -> Store:
        """Make this store inside of the user's, which is marked as one before it holds anything."""
        self._home.toolchain_dir()
        return self

    def _read_signed(self, name: str) -> bytes | None:
        """Return the content of a file with the signature that it needs; None if there is no such file.

        Raises:
            ArtifactCorrupt, DimorphError: as for `pack.check_signature`.
            Unreachable: the remote store does not answer.
        """
        content = self.remote.read(name, self._seconds)
        if content is not None and self.remote.public_key:
            signature = self.remote.read(f"{name}{pack.SIGNATURE}", self._seconds)
            pack.check_signature(content, signature, self.remote.public_key, f"{self.remote.name}/{name}")
        return content

    def _fetched(self, key: str) -> Artifact | None:
        name = pack.file_name(key)
        where = f"{self.remote.name}/{name}"
        try:
            content = self._read_signed(name)  # first: nothing else looks at bytes of anybody's
            if content is None:
                return None
            unpacked = pack.unpacked(content, key, where)
        except DimorphError as error:
            _refused[self.remote, key] = str(error)
            _log.warning("dimorph: not used, and nothing of it is kept: %s", error)
            raise StoreRefused(str(error)) from error
        _log.info("fetched %s (%d bytes)", where, len(content))
        try:
            return _published(self, unpacked)
        except OSError as error:
            if no_descriptors(error):
                raise
            artifact = _elsewhere[self.remote, key] = _published(self._spare(self, error), unpacked)
            return artifact

    def _kept(self, key: str, toolchain_id: str | None = None) -> Artifact | None:
        """Find an artifact among those that were fetched before."""
        try:
            found = super().find(key, toolchain_id)
        except OSError as error:
            if no_descriptors(error):
                raise
            _log.debug("%s: %s", self.root, error)
            found = None
        return found or _elsewhere.get((self.remote, key))


def _published(store: Store, content: pack.Content) -> Artifact:
    meta, files = content
    with store.work_dir() as work:
        for name, data in files.items():
            (work / name).write_bytes(data)
        return store.publish(meta.key, meta.toolchain_id, {name: work / name for name in files}, meta)
