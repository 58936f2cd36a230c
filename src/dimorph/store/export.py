"""Write the artifacts of a store as packs, from which others fetch them as from a remote store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from dimorph.errors import ArtifactCorrupt, DimorphError
from dimorph.store import mark, pack
from dimorph.store.artifact import Artifact
from dimorph.store.remote import Remote
from dimorph.store.store import Broken, Store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Exported(NamedTuple):
    """The files that an export wrote, or found there already, as paths below the URL."""

    written: list[str]
    present: list[str]


def export(store: Store, remote: Remote, signer: pack.Signer | None) -> Exported:
    """Write a pack for each key of a store, with a signature beside each, and the manifest if there is one.

    Of several compilers' artifacts with one key, the newest is written, as it is the one that a load would take.

    Args:
        store: the store.
        remote: where to write; its public key does not matter.
        signer: the key to sign with; None: write no signatures.

    Raises:
        ArtifactCorrupt: an artifact cannot be used; nothing is written of it and of those behind it.
        OSError: a file cannot be read or written.
    """
    remote.file_system_type()
    file_system, root = remote.open_file_system()
    result = Exported([], [])

    def put(name: str, content: bytes) -> None:
        files = {name: content, **({f"{name}{pack.SIGNATURE}": signer.sign(content)} if signer else {})}
        for path, data in files.items():
            if _held(file_system, f"{root}/{path}") == data:
                result.present.append(path)
            else:
                _write(file_system, f"{root}/{path}", data)
                result.written.append(path)

    keys = dict.fromkeys(_sound(item).meta.key for item in store.entries())
    for key in keys:
        artifact = store.find(key)
        if artifact is None:
            raise ArtifactCorrupt(f"{store.root}: the artifact {key} was removed, or cannot be used")
        put(pack.file_name(key), pack.packed(artifact))
    if (manifest := store.root / mark.MANIFEST).is_file():
        put(mark.MANIFEST, manifest.read_bytes())
    return result


def _sound(item: Artifact | Broken) -> Artifact:
    if isinstance(item, Artifact):
        return item
    raise item.error if isinstance(item.error, (DimorphError, OSError)) else ArtifactCorrupt(str(item.error))


def _held(file_system: AbstractFileSystem, path: str) -> bytes | None:
    try:
        content: bytes = file_system.cat_file(path)
    except FileNotFoundError:
        return None
    return content


def _write(file_system: AbstractFileSystem, path: str, content: bytes) -> None:
    """Write a file that readers see whole or not at all, as object stores do it of themselves."""
    file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
    if "file" not in (file_system.protocol if isinstance(file_system.protocol, tuple) else (file_system.protocol,)):
        file_system.pipe_file(path, content)
        return
    part = f"{path}.{os.getpid()}.part"
    file_system.pipe_file(part, content)
    os.replace(part, path)  # noqa: PTH105 - paths of fsspec are texts
