"""The parts that all benchmarks share: interleaved medians, result rows, a table."""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def processor() -> str:
    """Return the name of the processor and the number of CPUs that this process may use."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {len(os.sched_getaffinity(0))} CPUs"
    return platform.machine()


def installed_versions() -> dict[str, str]:
    """Return the versions of the installed packages that benchmarks use."""
    found = {"python": platform.python_version()}
    for name in ("dimorph", "apache-tvm-ffi", "torch", "numpy", "flashinfer-python"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def measured_commit() -> str:
    """Return the measured commit, with `+changes` if the sources differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "--", "src"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


@dataclass
class Row:
    """One measurement, as it is written to `results/*.jsonl`."""

    bench: str
    cell: Mapping[str, Any]
    unit: str
    ours: float
    peers: Mapping[str, float] = field(default_factory=dict)
    device: str = field(default_factory=processor)
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    commit: str = field(default_factory=measured_commit)
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))


def interleaved(subjects: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median of each subject's measurements; the subjects take turns, in alternating order."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(repeats):
        names = list(subjects) if turn % 2 == 0 else list(subjects)[::-1]
        for name in names:
            samples[name].append(subjects[name]())
    return {name: statistics.median(values) for name, values in samples.items()}


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def nanoseconds_each(call: Callable[..., object], *args: object, count: int = 20_000) -> float:
    """Return the nanoseconds of a call, the mean of `count` calls in a row."""
    repeat = range(count)
    start = time.perf_counter_ns()
    for _ in repeat:
        call(*args)
    return (time.perf_counter_ns() - start) / count


def python(code: str, *args: str, env: Mapping[str, str]) -> str:
    """Run code in a new interpreter; return its output."""
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=dict(env), check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a new process ended with exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def write(name: str, rows: list[Row], bars: Mapping[str, str] | None = None) -> None:
    """Print rows as a table and append them to `results/<name>.jsonl`."""
    table(rows)
    for what, text in (bars or {}).items():
        print(f"  {what}: {text}")
    append(name, rows)


def table(rows: list[Row]) -> None:
    print(f"\n{'bench':<26} {'cell':<66} {'ours':>11} {'unit':<6} peers (and their ratio to ours)")
    for row in rows:
        print(line(row))


def line(row: Row) -> str:
    """Return a row as a line of the table."""
    cell = ", ".join(f"{k}={v}" for k, v in row.cell.items())
    faster = row.unit.endswith("/s")
    ratios = ", ".join(
        f"{peer} {value:.4g} ({row.ours / value if faster else value / row.ours:.2f}x)"
        for peer, value in row.peers.items()
    )
    return f"{row.bench:<26} {cell:<66} {row.ours:>11.4g} {row.unit:<6} {ratios}"


def write_csv(file: TextIO, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table as CSV."""
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def append(name: str, rows: list[Row]) -> None:
    """Append rows to `results/<name>.jsonl`."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")
