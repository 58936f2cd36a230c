"""NVRTC from the pip package nvidia-cuda-nvrtc, in this process."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path


class Nvrtc:
    def __init__(self) -> None:
        spec = importlib.util.find_spec("nvidia")
        roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
        found = sorted(path for root in roots for path in root.rglob("libnvrtc.so.*"))
        assert found, "no libnvrtc: install nvidia-cuda-nvrtc (it is among the test requirements)"
        self._library = ctypes.CDLL(str(found[-1]))

    def compile(self, source: str, options: Sequence[str]) -> tuple[bytes, str]:
        """The cubin (empty if the source does not compile) and the compiler's messages."""
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"probe.cu", 0, None, None)
        )
        try:
            arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            failed = self._library.nvrtcCompileProgram(program, len(options), arguments) != 0
            log = self._get(program, "ProgramLog").rstrip(b"\0").decode()
            return (b"" if failed else self._get(program, "CUBIN")), log
        finally:
            self._check(self._library.nvrtcDestroyProgram(ctypes.byref(program)))

    def _get(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    @staticmethod
    def _check(status: int) -> None:
        assert status == 0, f"NVRTC returned {status}"
