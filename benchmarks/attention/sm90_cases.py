"""List registers, shared memory and instructions of the compiled cases of the sm90 family. Needs no GPU.

python benchmarks/attention/sm90_cases.py          # prints the table
python benchmarks/attention/sm90_cases.py --keep   # also writes it to results/sm90_cases.csv, which a test reads
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from elftools.elf.elffile import ELFFile

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import RESULTS, write_csv

from dimorph import aot, settings
from dimorph import attention as at
from dimorph.attention.kernels import attention_sm90
from dimorph.toolchain import cuda

TABLE = RESULTS / "sm90_cases.csv"
HEAD_DIMS = ((64, 64), (96, 96), (128, 128), (192, 128), (256, 256))
VARIANTS = {"plain": at.Plain, "causal": at.Causal}
KERNEL = "attention_forward"
_INSTRUCTION_BYTES = 16
_PROGRAM = """
#include <cstdio>
#include "sm90/config.h"
using dimorph::attention::sm90::choose_config;
int main() { std::printf("%d", choose_config(QK, VO, MASKS, false, false, false).shared_bytes()); }
"""


def compiler() -> str:
    return cuda.describe(cuda.find(settings.current()).version)


def rows() -> Iterator[dict[str, str]]:
    """Yield a row for each case, column -> text."""
    with tempfile.TemporaryDirectory() as directory:
        # Host code is not listed, so its compile may be the shortest.
        config = replace(settings.current(), store=Path(directory, "store"), cxxflags=("-O0",))
        for dims in HEAD_DIMS:
            for name, variant in VARIANTS.items():
                # Built without a load, because a process never unloads a case.
                values = {"dtype": "bfloat16", "head_dims": dims, "variant": variant}
                instantiations = attention_sm90.instantiations(**values)
                report = aot.build(instantiations, Path(directory, "out"), archs=("sm_90a",), settings=config)
                artifact = next(one for one in report.artifacts if one.meta.device)
                assert artifact.meta.device
                used = artifact.meta.device.kernels[KERNEL]
                yield {
                    "head_dims": f"{dims[0]}x{dims[1]}",
                    "variant": name,
                    "registers": str(used["registers"]),
                    "spilled_bytes": str(used["spill_stores"]),
                    "shared_bytes": str(_shared_bytes(dims, name != "plain", Path(directory))),
                    "instructions": str(_instructions(artifact.file)),
                    "cuda": compiler(),
                }


def _shared_bytes(dims: tuple[int, int], masks: bool, directory: Path) -> int:
    source, program = directory / "print.cc", directory / "print"
    source.write_text(_PROGRAM)
    root = Path(at.__file__).parent
    given = [f"-DQK={dims[0]}", f"-DVO={dims[1]}", f"-DMASKS={int(masks)}"]
    includes = [f"-I{path}" for path in (root / "csrc", root / "include", root.parent / "include")]
    command = ["g++", "-std=c++17", *given, *includes, str(source)]
    subprocess.run([*command, "-o", str(program)], check=True)
    return int(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout)


def _instructions(cubin: Path) -> int:
    with cubin.open("rb") as file:
        section = next(s for s in ELFFile(file).iter_sections() if s.name.startswith(".text") and KERNEL in s.name)
        return int(section["sh_size"]) // _INSTRUCTION_BYTES


def main() -> None:
    found = list(rows())
    write_csv(sys.stdout, found)
    if "--keep" in sys.argv[1:]:
        with TABLE.open("w", newline="") as file:
            write_csv(file, found)


if __name__ == "__main__":
    main()
