"""Time `dimorph cover` for a record of 1000 specializations, all of which were built, and for a level that was not.

    PYTHONPATH=src python benchmarks/core/cover.py [widths] [depths]

The build before takes some minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from dimorph import aot
from dimorph.declare.reference import kernel_reference
from dimorph.store import use
from dimorph.store.use import Use
from support.kernels import PICK

TARGETS = ("x86-64-v3", "x86-64-v2")


def main(widths: int, depths: int) -> None:
    loads = [PICK.instantiations(width=w, depth=d) for w in range(1, widths + 1) for d in range(1, depths + 1)]
    found = kernel_reference(PICK)
    uses = [
        Use(kind, "pick", found, one.texts(), {}, TARGETS[0], [], False, [])
        for one in loads
        for kind in ("entry", "case")
    ]
    with tempfile.TemporaryDirectory() as directory:
        record, out = Path(directory, "use.json"), Path(directory, "out")
        use.write(record, uses)
        print(PICK.build(out, targets=TARGETS[:1], width=[*range(1, widths + 1)], depth=[*range(1, depths + 1)]))
        for target in TARGETS:
            wall, processor = time.perf_counter(), time.process_time()
            proof = aot.cover(record, [out], targets=[target])
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            last = str(proof).splitlines()[-1]
            print(f"{target}: {last}: {wall:.2f} s, {processor:.2f} s of processor time")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (40, 25))
