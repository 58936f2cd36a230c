"""Run Python with kernels that a sanitizer of GCC instruments.

`PYTHONPATH=tests python -m support.sanitized BUG` calls the kernel with the planted bug of that number.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dimorph as dm
from support.paths import SUPPORT

PLANTED = dm.Kernel(
    name="planted",
    entry="planted.cc",
    case=["planted_case.cc"],
    axes=[dm.int_axis("bug", "BUG", [1, 2, 3, 4, 5, 6])],
    root=SUPPORT / "kernels",
)


# Runs a module as `python -m` does, but without torch, whose import by tvm-ffi takes longer than most tests.
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Sanitizer:
    """A sanitizer of GCC.

    Attributes:
        flag: the compiler flag that turns it on.
        level: the optimisation flag with the shortest time to compile and run.
        libraries: the libraries that have to be loaded into the process first.
        options: environment variables with the sanitizer's options.
    """

    flag: str
    level: str
    libraries: tuple[str, ...]
    options: dict[str, str]

    def missing(self) -> str:
        """Return the reason why it cannot be used on this machine; empty if it can."""
        compiler = shutil.which("g++")
        if compiler is None:
            return "there is no g++ on PATH, whose sanitizers these are"
        for library, path in zip(self.libraries, self._paths(compiler), strict=True):
            if not Path(path).is_absolute():
                return f"{compiler} comes without {library}"
        probe = self._python("-c", "")
        # GCC's libtsan supports few address ranges for mappings; with vm.mmap_rnd_bits above 28, Linux uses others too.
        return f"Python does not start with it: {probe.stdout[-500:]}" if probe.returncode else ""

    def run(self, module: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a module with these arguments and with instrumented kernels; stdout and stderr are joined."""
        return self._python("-c", WITHOUT_TORCH, module, *arguments, **environ)

    def _python(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        compiler = shutil.which("g++") or "g++"
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            # Python's own allocator would take memory in large blocks, inside which a sanitizer finds no errors.
            "PYTHONMALLOC": "malloc",
            # In the reference's matrix products idle threads would spin, which takes for ever under a sanitizer.
            "OPENBLAS_NUM_THREADS": "1",
            "DIMORPH_CXX": compiler,
            "DIMORPH_CXXFLAGS": f"{self.flag} -fno-sanitize-recover=all {self.level} -g1",
            "LD_PRELOAD": " ".join(self._paths(compiler)),
            **self.options,
            **environ,
        }
        return subprocess.run(
            [sys.executable, *arguments],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )

    def _paths(self, compiler: str) -> list[str]:
        """Return the paths of the libraries; a plain name for one that is missing."""
        questions = [[compiler, f"-print-file-name={name}"] for name in self.libraries]
        return [subprocess.run(q, capture_output=True, text=True, check=True).stdout.strip() for q in questions]


ADDRESS = Sanitizer(
    "-fsanitize=address,undefined",
    "-O0",  # a quarter of -O1's time to compile, and no check is optimised away
    ("libasan.so", "libubsan.so"),
    # Python does not free all memory at its end, which would be reported as leaks.
    {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
)
THREAD = Sanitizer(
    "-fsanitize=thread",
    "-O1",
    ("libtsan.so",),
    # Of the interpreter and NumPy, the sanitizer would see some accesses but not the synchronisation between them.
    {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1 halt_on_error=1"},
)


if __name__ == "__main__":
    PLANTED.load().planted(np.ones(1000, np.int32), int(sys.argv[1]))
    print("no report")
