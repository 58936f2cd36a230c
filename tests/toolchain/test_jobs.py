"""The number of compilers that run at a time, under limits of every kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dimorph.settings import Settings
from dimorph.toolchain import jobs

_GIB = 1 << 30
_SETTINGS = Settings(store=Path("unused"))


class Machine:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def memory(self, available: int) -> None:
        self.write(self.proc / "meminfo", f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB")

    def group(self, line: str) -> None:
        self.write(self.proc / "self" / "cgroup", line)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(jobs, "_PROC", made.proc)
    monkeypatch.setattr(jobs, "_CGROUPS", made.cgroups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    return made


def test_the_setting_wins() -> None:
    assert jobs.parallel_jobs(Settings(store=Path("unused"), jobs=37)) == 37


def test_processors_that_may_be_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.memory(64 * _GIB)
    assert jobs.parallel_jobs(_SETTINGS) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert jobs.parallel_jobs(_SETTINGS) == 2


def test_without_anything_to_read_the_processors_decide(machine: Machine) -> None:
    assert jobs.parallel_jobs(_SETTINGS) == 16


@pytest.mark.parametrize(("available", "expected"), [(4 * jobs.BYTES_PER_JOB, 4), (10_000_000, 1)])
def test_free_memory(machine: Machine, available: int, expected: int) -> None:
    machine.memory(available + 1024)
    assert jobs.parallel_jobs(_SETTINGS) == expected


def test_version_2_groups_and_those_above(machine: Machine) -> None:
    machine.memory(64 * _GIB)
    machine.group("0::/outer/inner")
    inner = machine.cgroups / "outer" / "inner"
    machine.write(inner / "memory.max", "max")
    machine.write(inner / "memory.current", "1000")
    assert jobs.parallel_jobs(_SETTINGS) == 16
    machine.write(inner.parent / "memory.max", str(6 * jobs.BYTES_PER_JOB))
    machine.write(inner.parent / "memory.current", str(5 * jobs.BYTES_PER_JOB))
    assert jobs.parallel_jobs(_SETTINGS) == 1
    machine.write(inner.parent / "memory.stat", f"anon 7\ninactive_file {2 * jobs.BYTES_PER_JOB}")
    assert jobs.parallel_jobs(_SETTINGS) == 3


def test_version_1_groups(machine: Machine) -> None:
    machine.memory(64 * _GIB)
    machine.group("9:name=systemd:/x\n4:memory:/box\n1:cpu,cpuacct:/box\n0::/")
    memory = machine.cgroups / "memory" / "box"
    machine.write(memory / "memory.limit_in_bytes", "9223372036854771712")
    machine.write(memory / "memory.usage_in_bytes", "123456")
    assert jobs.parallel_jobs(_SETTINGS) == 16
    machine.write(memory / "memory.limit_in_bytes", str(5 * jobs.BYTES_PER_JOB))
    assert jobs.parallel_jobs(_SETTINGS) == 4
    machine.write(machine.cgroups / "cpu" / "box" / "cpu.cfs_quota_us", "250000")
    machine.write(machine.cgroups / "cpu" / "box" / "cpu.cfs_period_us", "100000")
    assert jobs.parallel_jobs(_SETTINGS) == 3


def test_a_containers_limit_where_the_path_is_the_hosts(machine: Machine) -> None:
    machine.memory(64 * _GIB)
    machine.group("4:memory:/docker/0123")
    machine.write(machine.cgroups / "memory" / "memory.limit_in_bytes", str(3 * jobs.BYTES_PER_JOB))
    machine.write(machine.cgroups / "memory" / "memory.usage_in_bytes", "0")
    assert jobs.parallel_jobs(_SETTINGS) == 3


@pytest.mark.parametrize(("text", "expected"), [("max 100000", 16), ("200000 100000", 2), ("50000 100000", 1)])
def test_processor_quota(machine: Machine, text: str, expected: int) -> None:
    machine.memory(64 * _GIB)
    machine.group("0::/")
    machine.write(machine.cgroups / "cpu.max", text)
    assert jobs.parallel_jobs(_SETTINGS) == expected


def test_on_this_machine() -> None:
    assert 1 <= jobs.parallel_jobs(_SETTINGS) <= len(os.sched_getaffinity(0))
