"""A program that compiles one file with NVRTC; it imports nothing of Dimorph.

NVRTC is a library, but like any compiler it may crash, use up all memory or never end, which must not harm the process
that asks for a compile. A process of its own costs 10 ms (an interpreter without its site packages), can be killed when
its time is up, and sees nothing of the caller's environment.

    python -I -S nvrtc.py LIBRARY HEADERS SOURCE OUTPUT OPTION...

HEADERS is the directory in which NVRTC installs the CUDA headers that it contains, or `-` to install none. OUTPUT ends
in `.cubin` or `.ptx`. The messages of NVRTC go to standard output; the exit status is 1 if it refuses the source.
"""

from __future__ import annotations

import ctypes
import os
import sys


def main(library: str, headers: str, source: str, output: str, *options: str) -> int:
    nvrtc = ctypes.CDLL(library)
    if headers != "-":
        log = ctypes.c_char_p()
        status = nvrtc.nvrtcInstallBundledHeaders(headers.encode(), 0, ctypes.byref(log))
        if status != 0:
            print(f"nvrtc: error: its headers cannot be installed in {headers} ({status}): {_text(log.value)}")
            return 1
        options = (*options, f"-I{headers}")
    program = ctypes.c_void_p()
    with open(source, "rb") as stream:  # noqa: PTH123 (pathlib would double the time of starting)
        text = stream.read()
    status = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.encode(), 0, None, None)
    if status == 0:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        sys.stdout.write(_text(_get(nvrtc, program, "ProgramLog").rstrip(b"\0")))
    if status != 0:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        print(f"nvrtc: {_text(nvrtc.nvrtcGetErrorString(status))} ({status})")
        return 1
    made = _get(nvrtc, program, "CUBIN") if output.endswith(".cubin") else _get(nvrtc, program, "PTX")
    with open(output, "wb") as stream:  # noqa: PTH123
        stream.write(made)
    return 0


def _get(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


if __name__ == "__main__":
    exit_status = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(exit_status)  # all output is written, and freeing the compiler's memory would only take time
