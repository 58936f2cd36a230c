"""The compile time of an entry with many combinations."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.plan import unit as plan
from dimorph.source.config_header import header_name
from dimorph.toolchain import host, targets
from support.kernels import PICK, WIDE


def _seconds(command: list[str], work: Path) -> float:
    """Return the CPU time of a compile, which other programs of the machine affect less than wall-clock time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("shape", [(500, 1), (25, 20)], ids=["one_axis", "two_axes"])
def test_an_entry_with_500_combinations_compiles_in_half_a_second(
    tmp_path: Path, shape: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The bound scales with the time of an entry with one combination, so that it holds on a busy machine."""
    declared = (dm.int_axis("width", "WIDTH", range(shape[0])), dm.int_axis("depth", "DEPTH", range(shape[1])))
    narrow = tuple(dataclasses.replace(axis, values=axis.values[:1]) for axis in declared)
    one, everything = (_entry_seconds(dataclasses.replace(WIDE, axes=axes), tmp_path) for axes in (narrow, declared))
    with capsys.disabled():
        print(f"\n500 combinations {shape}: {everything:.2f} s; one: {one:.2f} s")
    # On a quiet machine the small entry takes 0.13 s.
    assert everything < 0.5 * max(1.0, one / 0.13)


def _entry_seconds(kernel: dm.Kernel, directory: Path) -> float:
    compiler, config = host.find(settings.current()), settings.current()
    unit = plan.entry_unit(kernel.instantiations())
    generated = directory / f"{kernel.instantiations().slots}"
    generated.mkdir()
    (generated / header_name(kernel)).write_text(unit.header)
    (generated / "unit.cc").write_text(unit.text)
    command = compiler.compile_command(
        generated / "unit.cc",
        generated / "entry.so",
        target=targets.runnable()[0],
        include_dirs=(generated, *unit.include_dirs),
        system_include_dirs=plan.system_include_dirs(),
        extra_flags=unit.flags(config),
    )
    return min(_seconds(command, directory) for _ in range(3))


def test_absent_combinations_cost_an_entry_little(copy_of: Callable[..., dm.Kernel], store: Path) -> None:
    """A list of a few rows over a large product compiles about as fast as those rows alone."""

    def took(count: int, rows: int) -> float:
        axes = tuple(dm.int_axis(a.name, a.binds[0], range(count)) for a in PICK.axes)
        only = [{"width": i, "depth": i} for i in range(rows)]
        times = []
        for attempt in range(2):
            kernel = copy_of(PICK, f"sources-{count}-{attempt}", axes=axes, only=only)
            with (kernel.root / "pick.cc").open("a") as source:
                source.write(f"// {count} {attempt}\n")
            started = time.perf_counter()
            assert kernel.load().pick(rows - 1, rows - 1) == (rows - 1) * 1001
            times.append(time.perf_counter() - started)
        return min(times)

    dense, sparse = took(4, 4), took(40, 4)
    assert sparse < dense * 2.5 + 0.2
