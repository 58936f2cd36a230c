"""Compiles one file with NVRTC. Run as a program, in a process of its own; it imports nothing of Dimorph.

NVRTC is a library, but a compiler all the same: it may crash, take all memory or not end, and then must not take the
process that asked along. A process of its own costs 10 ms (an interpreter without its site packages), is ended when
its time is up, and sees nothing of the caller's environment.

    python -I -S nvrtc.py LIBRARY HEADERS SOURCE OUTPUT OPTION...

HEADERS: where NVRTC may install the CUDA headers that it brings along, or `-` where it need not. OUTPUT ends in
`.cubin` or `.ptx`. What NVRTC says goes to standard output; exit status 1: it refused the source.
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
    os._exit(exit_status)  # everything is written; taking a compiler's memory apart costs more than leaving it
