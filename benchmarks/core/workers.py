"""Measure builds ahead of time on workers: one process beside a pool and Dask, and builds and workers that are killed.

python benchmarks/core/workers.py            # 1000 cases three times: about 5 minutes on 2 CPUs
python benchmarks/core/workers.py kills      # 50 kills of the process that builds, 50 of a worker: about 5 minutes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a script: the root of the repository takes the place of this folder
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.support.rows import ROOT, Row, write

import dimorph as dm
from dimorph import aot, settings
from dimorph.toolchain.jobs import processors

ENTRY = """
#include <dimorph/entry.h>
#include "pick_config.h"
int64_t pick(int64_t width, int64_t depth) {
  DISPATCH_width(width, WIDTH, DISPATCH_depth(depth, DEPTH, return DIMORPH_CALL(pick, int64_t)()));
}
DIMORPH_EXPORT(pick)
"""
CASE = """
#include <dimorph/case.h>
#include "pick_config.h"
namespace DIMORPH_CASE {
int64_t pick() noexcept { return int64_t{WIDTH} * 1000 + DEPTH; }
}
"""
DECLARED = """
import dimorph as dm
pick = dm.Kernel(name="pick", axes=[
    dm.int_axis("width", "WIDTH", range(1, WIDTHS + 1)), dm.int_axis("depth", "DEPTH", range(1, 11))])
"""
GXX = shutil.which("g++") or "g++"
# A build on a cluster of Dask, on a pool of processes, or in one process; it prints its wall-clock time, the number of
# compiles and their time.
BUILD = """
import sys, json
from contextlib import ExitStack
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from dimorph import aot
if __name__ == "__main__":
    spec, out, kind, workers = sys.argv[1:]
    with ExitStack() as stack:
        executor = partial(ProcessPoolExecutor, int(workers)) if kind == "pool" else None
        if kind == "dask":
            from dask.distributed import Client, LocalCluster
            cluster = LocalCluster(n_workers=int(workers), threads_per_worker=1, dashboard_address=None)
            executor = stack.enter_context(Client(stack.enter_context(cluster))).get_executor()
        (kernel,) = aot.load_kernels(spec)
        report = aot.build(kernel.instantiations(), out, executor=executor)
    runs = [step.run.seconds for step in report.steps if step.run]
    print(json.dumps([report.seconds, len(runs), sum(runs)]))
"""


def project(directory: Path, cases: int) -> Path:
    """Write a kernel of `cases` cheap cases and a program that builds it on a cluster; return the declaring file."""
    directory.mkdir(parents=True)
    (directory / "pick.cc").write_text(ENTRY)
    (directory / "pick_case.cc").write_text(f"{CASE}// {directory}\n")
    (directory / "kernels.py").write_text(DECLARED.replace("WIDTHS", str(cases // 10)))
    (directory / "build.py").write_text(BUILD)
    return directory / "kernels.py"


def measure(cases: int, workers: int, place: Path) -> list[Row]:
    """Build the same set in one process and on workers, each with empty stores.

    Beside the wall-clock time stand the seconds of processors that all processes took together, which other programs
    on the machine hardly change. Those of Dask include the start of the cluster and what it takes while it waits.
    """
    spec = project(place / "project", cases)
    wall, busy = {}, {}
    for name in ("here", "pool", "dask"):
        arguments = [spec, place / name, name, str(workers)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DIMORPH_STORE": str(place / f"store of {name}")}
        before = sum(os.times()[2:4])
        command = [sys.executable, spec.with_name("build.py"), *arguments]
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
        busy[name] = sum(os.times()[2:4]) - before
        wall[name], compiled, compilers = json.loads(done.stdout.splitlines()[-1])
        assert compiled == cases + 1, f"{compiled} compiles of {cases + 1} units"
        print(f"{name}: {wall[name]:.1f} s, processors {busy[name]:.1f} s, compilers {compilers:.1f} s", flush=True)
    cell = {"cases": cases, "workers": workers, "cpus": processors()}
    rows = []
    for name in ("pool", "dask"):
        same(place / "here", place / name)
        for what, taken in (("wall clock", wall), ("processors", busy)):
            one = {"one process": taken["here"]}
            rows.append(Row("build_on_workers", {"on": name, **cell, "time": what}, "s", taken[name], one))
    return rows


def same(first: Path, second: Path) -> None:
    """Compare two built directories, but for the time of creation."""
    for path in first.rglob("*"):
        other = second / path.relative_to(first)
        if path.name == "meta.json":
            texts = [json.loads(one.read_text()) | {"created": ""} for one in (path, other)]
            assert texts[0] == texts[1], path
        elif path.is_file():
            assert path.read_bytes() == other.read_bytes(), path


def kills(times: int, cases: int, place: Path) -> None:
    """Kill the process that builds, or workers of its pool, at random moments, until sets are built; check each."""
    for victim in ("builder", "worker"):
        done = sets = again = 0
        while done < times:
            where = place / f"{victim}-{sets}"
            spec, sets = project(where / "project", cases), sets + 1
            before: set[Path] = set()
            killed = 0
            while not (where / "out" / "manifest.json").exists():
                killed += attempt(where, spec, victim, times - done - killed)
                kept = finished(where)
                assert kept >= before, f"{len(before - kept)} finished artifacts are lost"
                before = kept
            done += killed
            # A pool of two loses what both workers run, whichever process is killed.
            compiles = (where / "log").read_text().count("\n")
            assert cases + 1 <= compiles <= cases + 1 + 2 * killed, (compiles, cases, killed)
            again += compiles - cases - 1
            check(where / "out", spec, cases)
            shutil.rmtree(where)
        print(
            f"{done} kills of a {victim}: {sets} sets of {cases + 1}, each whole and right; {again} jobs ran again",
            flush=True,
        )


def finished(where: Path) -> set[Path]:
    return set((where / "store").glob("??/*/*"))


def attempt(where: Path, spec: Path, victim: str, most: int) -> int:
    """Build, and kill soon after something new was finished, at most `most` times; return the number of kills."""
    driver = where / "g++"
    driver.write_text(f'#!/bin/sh\ncase " $* " in *" -shared "*" -o "*) echo >> {where}/log;; esac\nexec {GXX} "$@"\n')
    driver.chmod(0o755)
    store = {"DIMORPH_STORE": str(where / "store"), "DIMORPH_CXX": str(driver), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, spec.with_name("build.py"), spec, where / "out", "pool", "2"]
    killed, seen = 0, len(finished(where))
    log = where / "errors"
    with (
        log.open("a") as errors,
        subprocess.Popen(
            command, env={**os.environ, **store}, stdout=errors, stderr=errors, start_new_session=True
        ) as running,
    ):
        while running.poll() is None:
            if killed < most and len(finished(where)) > seen:
                time.sleep(random.uniform(0, 0.5))
                seen = len(finished(where))
                victims = [running.pid] if victim == "builder" else children(running.pid)
                if victims and running.poll() is None:
                    killed += 1
                    os.kill(random.choice(victims), signal.SIGKILL)
            time.sleep(0.05)
    with suppress(ProcessLookupError):  # workers of a process that was killed
        os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode in (0, -signal.SIGKILL), log.read_text()
    return killed


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that run its own program."""
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            with suppress(OSError):
                if Path(f"/proc/{child}/cmdline").read_bytes() == own:
                    found.append(child)
    return found


def check(out: Path, spec: Path, cases: int) -> None:
    """Verify a directory, and call every case in it."""
    (kernel,) = aot.load_kernels(str(spec))
    coverage = aot.verify([kernel], out)
    assert coverage.ok, coverage
    assert isinstance(kernel, dm.Kernel)
    config = replace(settings.current(), shared_stores=(out,), store=out.parent / "none")
    module = kernel.load(policy="aot", settings=config)
    for width in range(1, cases // 10 + 1):
        for depth in range(1, 11):
            assert module.pick(width, depth) == width * 1000 + depth


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", default="measure", choices=["measure", "kills"])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.part == "measure":
            write("workers", measure(given.cases, given.workers, Path(scratch)))
        else:
            kills(given.kills, min(given.cases, 60), Path(scratch))


if __name__ == "__main__":
    main()
