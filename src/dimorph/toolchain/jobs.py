"""The number of compilers that may run at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dimorph.settings import Settings

# An upper bound of the memory of one compiler on a template-heavy case.
BYTES_PER_JOB = 700_000_000
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def parallel_jobs(settings: Settings) -> int:
    """Return the number of compilers to run at a time: `settings.jobs`, or as many as processors and memory allow.

    Counted are the processors that this process may use and the memory that is free, both within the limits of every
    control group (version 1 or 2) that this process is in. The number is at least 1.
    """
    if settings.jobs is not None:
        return settings.jobs
    memory = _free_memory()
    most = processors()
    return max(1, most if memory is None else min(most, memory // BYTES_PER_JOB))


def processors() -> int:
    """Return the number of processors that this process may use, by its affinity and its control groups."""
    quotas = [quota for group in _groups("cpu") if (quota := _cpu_quota(group)) is not None]
    return min([len(os.sched_getaffinity(0)), *quotas])


def _cpu_quota(group: Path) -> int | None:
    """Return the number of processors that a control group may use, rounded up; None if it sets no limit."""
    if text := _read(group / "cpu.max"):
        quota, period = text.split()
    else:
        quota, period = _read(group / "cpu.cfs_quota_us") or "-1", _read(group / "cpu.cfs_period_us") or "0"
    if quota in ("max", "-1"):
        return None
    return -(-int(quota) // int(period))


def _free_memory() -> int | None:
    """Return the bytes of memory free for this process; None if unknown."""
    rooms = [room for group in _groups("memory") if (room := _group_memory(group)) is not None]
    available = _field(_read(_PROC / "meminfo"), "MemAvailable:")
    if available is not None:
        rooms.append(available * 1024)
    return min(rooms, default=None)


def _group_memory(group: Path) -> int | None:
    """Return the bytes left within a control group's memory limit; None if it sets no limit."""
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _read(group / limit_name), _read(group / usage_name)
        if limit and usage and limit != "max":
            # Cached pages of files count as used, but the kernel frees them on demand.
            cache = _field(_read(group / "memory.stat"), cache_name) or 0
            return max(0, int(limit) - int(usage) + cache)
    return None


def _groups(controller: str) -> Iterator[Path]:
    """Yield the directories of the control groups that this process is in, innermost first."""
    for line in (_read(_PROC / "self" / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = _CGROUPS
        elif controller in controllers.split(","):
            root = _CGROUPS / controller
        else:
            continue
        # In a container, the path may be the host's and not exist; the root then is the container's own group.
        own = root / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group == root or root in group.parents)


def _field(text: str | None, name: str) -> int | None:
    for line in (text or "").splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    return None


def _read(path: Path) -> str | None:
    """Return the text of a file; None if it cannot be read, which is normal: kernels have different files."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
