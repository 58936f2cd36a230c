"""Compile one file with NVRTC, as a program of its own or in this process; imports nothing of Dimorph.

NVRTC is a library, but like any compiler it may crash, use up all memory or never end, which must not harm the process
that asks for a compile. A process of its own costs 10 ms (an interpreter without its site packages), can be killed when
its time is up, and sees nothing of the caller's environment.

    python -I -S nvrtc.py LIBRARY HEADERS SOURCE OUTPUT OPTION...

HEADERS is the directory in which NVRTC installs the CUDA headers that it contains, or `-` to install none. OUTPUT ends
in `.cubin` or `.ptx`. The messages of NVRTC go to standard output; the exit status is 1 if it refuses the source, and
127 if it cannot be loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys


def compile_file(library: str, headers: str, source: str, output: str, *options: str) -> tuple[int, str]:
    """Compile `source` to `output`; return the exit status that a program would have, and the messages."""
    try:
        nvrtc = ctypes.CDLL(library)
    except OSError as error:
        return 127, f"nvrtc: error: {library} cannot be loaded: {error}\n"
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    if headers != "-":
        log = ctypes.c_char_p()
        status = nvrtc.nvrtcInstallBundledHeaders(os.fsencode(headers), 0, ctypes.byref(log))
        if status != 0:
            why = f"({status}): {_text(log.value)}"
            return 1, f"nvrtc: error: its headers cannot be installed in {headers} {why}\n"
        options = (*options, f"-I{headers}")
    program = ctypes.c_void_p()
    with open(source, "rb") as stream:  # noqa: PTH123 (pathlib would double the time of starting)
        text = stream.read()
    messages = ""
    status = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, os.fsencode(source), 0, None, None)
    try:
        if status == 0:
            given = (ctypes.c_char_p * len(options))(*(os.fsencode(option) for option in options))
            status = nvrtc.nvrtcCompileProgram(program, len(options), given)
            messages = _text(_get(nvrtc, program, "ProgramLog")[1].rstrip(b"\0"))
        made = b""
        if status == 0:
            status, made = _get(nvrtc, program, "CUBIN" if output.endswith(".cubin") else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if status != 0:
        return 1, f"{messages}nvrtc: {_text(nvrtc.nvrtcGetErrorString(status))} ({status})\n"
    with open(output, "wb") as stream:  # noqa: PTH123
        stream.write(made)
    return 0, messages


def _get(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> tuple[int, bytes]:
    """Return the status of a query of NVRTC, and its result."""
    size = ctypes.c_size_t()
    status = getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    status = status or getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return int(status), buffer.raw if status == 0 else b""


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


if __name__ == "__main__":
    exit_status, said = compile_file(*sys.argv[1:])
    sys.stdout.buffer.write(said.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()
    os._exit(exit_status)  # all output is written, and freeing the compiler's memory would only take time
