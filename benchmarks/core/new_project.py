"""Measure what the author of a new project waits for: `dimorph new`, the first result, a changed value.

python benchmarks/core/new_project.py     # about a minute

Each time is that of a whole process, from its start to its end, Python and NumPy included; `python -c "import numpy"`
stands beside it as the part that Dimorph has no hand in.
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, interleaved, python, seconds, write

NAME = "rms"
MAIN = "import sys; from dimorph.cli.main import main; sys.argv[1:1] = {}; main()"
CALL = f"import numpy, {NAME} as p; print(p.{NAME}(numpy.full((2, 64), 2, 'float32')).max())"
BARS = {"first result": "below 10 s", "changed value": "below 1 s"}


def environment(project: Path, store: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(project / "src")])
    # Imports are compiled once, as they are where a package is installed.
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(store.parent / "bytecode")}
    return {**os.environ, **kept, "PYTHONPATH": path, "DIMORPH_STORE": str(store)}


def processor(run: Callable[[], object]) -> float:
    """Return the processor time of the processes that a call starts, compilers included; load does not change it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def generate(place: Path, env: Mapping[str, str], name: str) -> None:
    place.mkdir(exist_ok=True)
    python(f"import os; os.chdir({str(place)!r}); {MAIN.format(['new', name, '-q'])}", env=env)


def measure(place: Path, repeats: int) -> list[Row]:
    project = place / "first" / NAME
    env = environment(project, place / "store")
    generate(place / "first", env, NAME)
    numbers = itertools.count(2)
    case = project / "src" / NAME / f"{NAME}_case.cc"
    source = case.read_text()

    def new() -> float:
        return seconds(partial(generate, place / "more", env, f"project_{next(numbers)}"))

    def first() -> float:
        with tempfile.TemporaryDirectory(dir=place) as store:
            return seconds(partial(python, CALL, env={**env, "DIMORPH_STORE": store}))

    def changed() -> float:
        case.write_text(source.replace("DType(1e-6)", f"DType({next(numbers)})"))
        return seconds(partial(python, CALL, env=env))

    def again() -> float:
        return seconds(partial(python, CALL, env=env))

    def numpy_alone() -> float:
        return seconds(partial(python, "import numpy", env=env))

    python(CALL, env=env)
    found = interleaved(
        {
            "dimorph new": new,
            "first result": first,
            "changed value": changed,
            "nothing changed": again,
            "import numpy": numpy_alone,
        },
        repeats,
    )
    alone = {"import numpy": found.pop("import numpy")}
    rows = [Row("cpu/new project", {"what": what}, "s", value, alone) for what, value in found.items()]
    used = interleaved({"first result": partial(processor, first), "changed value": partial(processor, changed)}, 3)
    rows += [Row("cpu/new project", {"what": what, "time": "processor"}, "s", value) for what, value in used.items()]
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        write("new_project", measure(Path(place), repeats=11), BARS)


if __name__ == "__main__":
    main()
