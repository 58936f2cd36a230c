"""Print how two commits tell an author's mistakes: how much of cause, place and cure, in how many lines.

python benchmarks/core/mistakes.py OTHER     # a checkout of the other commit; about four minutes

The mistakes are those of `tests/support/mistakes`, made in the skeleton example of each checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Prints the grade and the number of lines of the message about one mistake; null where there is no message.
PROGRAM = """
import json, re, sys, tempfile
from pathlib import Path
import numpy as np
import dimorph as dm
from support import skeletons
from support.mistakes import MISTAKES
root, mistake = Path(sys.argv[1]), MISTAKES[sys.argv[2]]
skeletons.SKELETON = root / "examples" / "skeleton"
with tempfile.TemporaryDirectory() as directory:
    made = skeletons.copy_skeleton(Path(directory))
    try:
        place = mistake.make(made)
    except AssertionError:
        sys.exit(print("\\nTOLD", json.dumps("other lines")))
    try:
        kernel = skeletons.declared(made)
        if mistake.form == "specialized":
            module = kernel.load(dtype="float32", head_dim=64)
        else:
            module = kernel.load()
        if mistake.form != "dispatching":
            x = np.ones((1, 64), dtype=np.float32)
            module.affine(x, np.empty_like(x), 2.0)
    except Exception as error:
        text = str(error)
        places = [place, place.rpartition("/")[2]] if mistake.form == "call" else [place]
        told = [re.search(mistake.cause, text), any(one in text for one in places), re.search(mistake.cure, text)]
        print("\\nTOLD", json.dumps([sum(map(bool, told)), len(text.splitlines())]))
    else:
        print("\\nTOLD", json.dumps(None))
"""


def told(root: Path, name: str) -> str:
    """Return how a checkout tells a mistake: `3 of 3, 5 lines`."""
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{ROOT / 'tests'}", "DIMORPH_LOG": "off"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), name], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"the process ends with {done.returncode}"
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    match json.loads(line.removeprefix("TOLD ")):
        case None:
            return "nothing"
        case str(why):
            return why
        case grade, lines:
            return f"{grade} of 3, {lines} line{'s' * (lines > 1)}"
    raise AssertionError(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    other = parser.parse_args().other.resolve()
    sys.path.insert(0, str(ROOT / "tests"))
    from support.mistakes import MISTAKES

    print("| mistake | before | now |\n|---|---|---|")
    for name in MISTAKES:
        print(f"| {name} | {told(other, name)} | {told(ROOT, name)} |", flush=True)


if __name__ == "__main__":
    main()
