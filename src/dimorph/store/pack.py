"""Packs: the files in which artifacts travel to and from remote stores, one for each key; and their signatures.

A pack is a zip archive of an artifact's description and its files. Equal artifacts are equal packs, byte for byte.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from dimorph import _lazy, records
from dimorph.errors import ArtifactCorrupt, DimorphError
from dimorph.store.artifact import META_NAME, Artifact, FileRecord, Meta
from dimorph.store.remote import INSTALL, LIMIT

SIGNATURE = ".sig"
"""The end of the name of a signature: 64 bytes, of all bytes of the file beside it."""

# What a zip archive with any content may raise.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, OSError, RuntimeError, ValueError)


def file_name(key: str) -> str:
    """Return the path of the pack of a key, below the URL of a remote store."""
    return f"{key[:2]}/{key}.zip"


class Content(NamedTuple):
    """The content of a pack: a description, and the bytes of each file that it lists."""

    meta: Meta
    files: dict[str, bytes]


def packed(artifact: Artifact) -> bytes:
    """Return the pack of an artifact.

    Raises:
        OSError: a file of the artifact cannot be read.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in (META_NAME, *sorted(artifact.meta.files)):
            info = zipfile.ZipInfo(name)  # dated 1980
            info.create_system, info.external_attr = 3, 0o444 << 16
            archive.writestr(info, (artifact.path / name).read_bytes(), zipfile.ZIP_DEFLATED, 6)
    return stream.getvalue()


def unpacked(content: bytes, key: str, where: str) -> Content:
    """Return what a pack holds, with the checksums in its description compared.

    Args:
        content: the bytes of the pack, of any origin.
        key: the key that it must have.
        where: its address, for messages.

    Raises:
        ArtifactCorrupt: it is no pack, a damaged one, or that of another key; the message starts with `where`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sizes = [info.file_size for info in archive.infolist()]
            if sum(sizes) > LIMIT:
                raise ArtifactCorrupt(f"expected at most {LIMIT} bytes, got {sum(sizes)}")
            if (size := archive.getinfo(META_NAME).file_size) > records.LIMIT:
                raise ArtifactCorrupt(f"{META_NAME}: expected at most {records.LIMIT} bytes, got {size}")
            meta = Meta.from_json(archive.read(META_NAME), META_NAME, time.time_ns())
            if meta.key != key:
                raise ArtifactCorrupt(f"expected the artifact {key}, got {meta.key}")
            names = sorted(archive.namelist())
            if names != sorted([META_NAME, *meta.files]):
                raise ArtifactCorrupt(f"expected the files {sorted(meta.files)}, got {names}")
            Artifact(Path(), meta).object_name()  # raises an error where there is no object to load
            files = {name: archive.read(name) for name in meta.files}
            for name, record in meta.files.items():
                actual = FileRecord(_lazy.hashlib.sha256(files[name]).hexdigest(), len(files[name]))
                if actual != record:
                    raise ArtifactCorrupt(f"{name}: expected {record}, actual {actual}")
            return Content(meta, files)
    except _BROKEN as error:
        raise ArtifactCorrupt(f"{where}: not an artifact: {error}") from error


def check_signature(content: bytes, signature: bytes | None, public_key: str, where: str) -> None:
    """Refuse a file without a signature by the owner of a public key.

    Raises:
        ArtifactCorrupt: the file is refused; the message starts with `where`.
        DimorphError: the package cryptography is not installed.
    """
    if signature is None:
        raise ArtifactCorrupt(f"{where}: expected a signature by {public_key}, found none")
    keys = _keys(f"{where}: its signature")
    from cryptography.exceptions import InvalidSignature

    try:
        keys.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, content)
    except (InvalidSignature, ValueError) as error:
        raise ArtifactCorrupt(f"{where}: expected a signature by {public_key}, got another one") from error


class Signer:
    """A private key of ed25519, kept in a file in the format PEM.

    Attributes:
        public_key: its public key, 64 hex digits.
    """

    def __init__(self, file: Path) -> None:
        """Read the key, or make a new one where there is no file.

        Raises:
            DimorphError: the file holds no ed25519 key without a password, or cryptography is not installed.
            OSError: the file cannot be read or written, or another user can write it.
        """
        keys = _keys(str(file))
        from cryptography.hazmat.primitives import serialization as form

        try:
            text = records.read(file, records.open_own)
        except FileNotFoundError:
            made = keys.Ed25519PrivateKey.generate()
            text = made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
            with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
                stream.write(text)
        try:
            key = form.load_pem_private_key(text, None)
        except (ValueError, TypeError) as error:
            raise DimorphError(f"{file}: expected a private key in PEM, without a password: {error}") from error
        if not isinstance(key, keys.Ed25519PrivateKey):
            raise DimorphError(f"{file}: expected a private key of ed25519, got {type(key).__name__}")
        self._key = key
        self.public_key: str = key.public_key().public_bytes_raw().hex()

    def sign(self, content: bytes) -> bytes:
        """Return the signature of a content."""
        signature: bytes = self._key.sign(content)
        return signature


def _keys(what: str) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # here, because few users have signatures
    except ImportError as error:
        raise DimorphError(f"{what} needs the package cryptography: {INSTALL}") from error
    return ed25519
