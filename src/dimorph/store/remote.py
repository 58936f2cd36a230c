"""Remote stores: their addresses, and reads of their files that neither hang nor fill the memory."""

from __future__ import annotations

import _thread
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.store.artifact import is_hex

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_log = logger("dimorph")
_T = TypeVar("_T")

LIMIT = 1 << 28
"""The largest file that is read of a remote store, in bytes."""

VARIABLE = "DIMORPH_REMOTE_STORES"
INSTALL = "pip install 'dimorph[remote]'"

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s#?]+", re.IGNORECASE)
_SIGNED_BY = "ed25519="
# Protocols by which anybody on the way can replace what is sent.
_OPEN = ("http", "ftp")
_CHUNK = 1 << 20  # bytes between two looks at the clock
_PAUSE = 300.0  # seconds for which a store that failed is left alone


class Unreachable(OSError):
    """A remote store that does not answer, or not in time; it is left alone for some minutes."""


class Remote(NamedTuple):
    """The address of a remote store.

    Attributes:
        url: the directory of its files.
        public_key: the public key whose signature each file needs, 64 hex digits; None: files need none.
    """

    url: str
    public_key: str | None

    @classmethod
    def parse(cls, text: str) -> Remote:
        """Parse an address as `DIMORPH_REMOTE_STORES` names it: `URL`, or `URL#ed25519=PUBLIC_KEY`.

        Raises:
            ValueError: the text is no such address, or anybody could replace what it sends.
        """
        url, hash_sign, fragment = text.partition("#")
        if not _ADDRESS.fullmatch(url):
            raise ValueError(f"{VARIABLE}: expected URLs without a query, such as https://host/store, got {url!r}")
        key = fragment.removeprefix(_SIGNED_BY)
        if hash_sign and not (fragment.startswith(_SIGNED_BY) and is_hex(key, 64)):
            raise ValueError(f"{VARIABLE}: expected #{_SIGNED_BY} and 64 hex digits after a URL, got {text!r}")
        remote = cls(url.rstrip("/"), key or None)
        if remote.protocol in _OPEN and not key:
            raise ValueError(
                f"{VARIABLE}: {remote.name}: anybody on the way can replace code that is sent by {remote.protocol}; "
                f"use https, or name the public key of its signatures: {remote.name}#{_SIGNED_BY}..."
            )
        return remote

    @property
    def protocol(self) -> str:
        """The part of the URL before the colon."""
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The URL without a password, for messages."""
        return re.sub(r"(?<=://)[^/@]*@", "", self.url)

    @property
    def digest(self) -> str:
        """16 hex digits that differ for every URL and public key."""
        return _lazy.hashlib.sha256(f"{self.url}#{self.public_key}".encode()).hexdigest()[:16]

    def read(self, name: str, seconds: float) -> bytes | None:
        """Return the content of a file of the store; None if there is no such file.

        Args:
            name: the path of the file below the URL.
            seconds: the longest time that it may take.

        Raises:
            Unreachable: the store did not answer in time, or failed, now or within the last minutes.
        """
        if time.monotonic() < _left_alone.get(self.url, 0.0):
            raise Unreachable(f"it failed before, and is left alone for {_PAUSE / 60:.0f} minutes")
        ended = threading.Event()
        try:
            self.file_system_type()
            return _within(seconds, lambda: self._content(name, ended))
        except FileNotFoundError:
            return None
        # A file system of fsspec raises the errors of the library that it is made with.
        except Exception as error:
            slow = isinstance(error, TimeoutError)
            why = f"no answer within {seconds:g} s (DIMORPH_REMOTE_TIMEOUT)" if slow else _text(error)
            _left_alone[self.url] = time.monotonic() + _PAUSE
            _log.warning("dimorph: remote store %s: %s; left alone for %.0f minutes", self.name, why, _PAUSE / 60)
            raise Unreachable(why) from error
        finally:
            ended.set()

    def file_system_type(self) -> type[AbstractFileSystem]:
        """Return the class of fsspec for the URL; what it imports does not count as time of the store.

        Raises:
            ImportError: a package is missing; the message says which.
            ValueError: fsspec knows no such protocol.
        """
        try:
            import fsspec  # here, because few users have a remote store, and it takes a quarter of a second
        except ImportError as error:
            raise ImportError(f"{self.protocol}:// needs fsspec: {INSTALL}") from error
        found: type[AbstractFileSystem] = fsspec.get_filesystem_class(self.protocol)
        return found

    def open_file_system(self) -> tuple[AbstractFileSystem, str]:
        """Return the file system of fsspec, and the path of the store in it."""
        from fsspec.core import url_to_fs

        file_system, path = url_to_fs(self.url)
        return file_system, path.rstrip("/")

    def _content(self, name: str, ended: threading.Event) -> bytes:
        file_system, root = self.open_file_system()
        parts: list[bytes] = []
        # fsspec asks for the size of a file first, and over HTTP takes every failure for a missing file. A stream, for
        # which it needs none, tells them apart.
        options = {"block_size": 0, "size": 1} if self.protocol in ("http", "https") else {}
        with file_system.open(f"{root}/{name}", "rb", **options) as stream:
            while part := stream.read(_CHUNK):
                parts.append(part)
                if sum(map(len, parts)) > LIMIT:
                    raise OSError(f"{name}: expected at most {LIMIT} bytes")
                if ended.is_set():  # nobody waits any more
                    break
        return b"".join(parts)


# URL -> the time until which it is left alone.
_left_alone: dict[str, float] = {}


def _within(seconds: float, function: Callable[[], _T]) -> _T:
    """Run a function in a thread of its own, which is left to itself after some seconds.

    Raises:
        TimeoutError: the time is over.
        Exception: the error of the function.
    """
    results: list[_T] = []
    errors: list[Exception] = []
    running = threading.Lock()
    running.acquire()

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            errors.append(error)
        finally:
            running.release()

    _thread.start_new_thread(run, ())  # the end of the process does not wait for it
    if not running.acquire(timeout=seconds):
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]


def _text(error: Exception) -> str:
    """Return a message that is never empty, as that of some errors is."""
    text: Any = str(error) or repr(error)
    return f"{type(error).__name__}: {text}"
