"""A web server for tests of remote stores, which misbehaves on demand."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a server does with a request for a file: nothing odd, or one of these.
FAULTS = ("silent", "drip", "half", "redirect", "error")


class Server:
    """A server of a directory.

    Attributes:
        url: its address.
        fault: one of `FAULTS`; empty: it serves.
        asked: the paths that were asked for with GET.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self.fault = ""
        self.asked: list[str] = []


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Serve a directory until the block ends."""
    stopped = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET(head=True)

        def do_GET(self, *, head: bool = False) -> None:
            if not head:
                server.asked.append(self.path)
            if server.fault == "silent":
                stopped.wait(30)
                self.close_connection = True
                return
            if server.fault == "redirect":
                self.answer(302, b"", Location=f"file://{server.directory}{self.path}")
                return
            file = server.directory / self.path.lstrip("/")
            status = 500 if server.fault == "error" else 200 if file.is_file() else 404
            content = file.read_bytes() if status == 200 else b"no"
            if head:
                content = b"" if status == 200 else content
                self.answer(status, b"", size=file.stat().st_size if status == 200 else 0)
            elif server.fault == "half":
                self.answer(status, content[: len(content) // 2], size=len(content))
                self.close_connection = True
            elif server.fault == "drip":
                self.answer(status, b"", size=len(content))
                for byte in content:
                    if stopped.wait(0.05):
                        break
                    self.wfile.write(bytes([byte]))
                self.close_connection = True
            else:
                self.answer(status, content)

        def answer(self, status: int, content: bytes, size: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if size is None else size))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that leaves early is a part of the tests."""

    with Quiet(("127.0.0.1", 0), Handler) as listener:
        server = Server(directory, listener.server_port)
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            listener.shutdown()
            thread.join()


def wait_for(condition: object, seconds: float = 10.0) -> None:
    """Wait until a function returns a true value."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
