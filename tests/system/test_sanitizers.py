"""Kernels under the sanitizers: planted bugs, which they must report, and attention, where they must find none."""

from __future__ import annotations

from collections import defaultdict

import pytest

from support.attention_configs import ROUND, config_of
from support.sanitized import ADDRESS, THREAD, Sanitizer

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("warm_store")]

CHECK = "support.attention_check"


@pytest.fixture(scope="session")
def usable() -> dict[str, str]:
    """Return for each sanitizer why it cannot be used; empty if it can."""
    return {sanitizer.flag: sanitizer.missing() for sanitizer in (ADDRESS, THREAD)}


@pytest.mark.parametrize(
    ("sanitizer", "bug", "report"),
    [
        pytest.param(ADDRESS, 1, "AddressSanitizer: heap-buffer-overflow", id="read past the end"),
        pytest.param(ADDRESS, 2, "AddressSanitizer: heap-buffer-overflow", id="write past the end"),
        pytest.param(ADDRESS, 3, "runtime error: signed integer overflow", id="signed overflow"),
        pytest.param(ADDRESS, 4, "runtime error: load of misaligned address", id="misaligned load"),
        pytest.param(THREAD, 5, "WARNING: ThreadSanitizer: data race", id="data race"),
    ],
)
def test_a_planted_bug_is_reported(usable: dict[str, str], sanitizer: Sanitizer, bug: int, report: str) -> None:
    skip_if(usable[sanitizer.flag])
    done = sanitizer.run("support.sanitized", str(bug), DIMORPH_NUM_THREADS="4")
    assert done.returncode != 0 and report in done.stdout, done.stdout
    assert "planted_case.cc" in done.stdout, "the report names no line of the kernel"


def test_what_is_right_is_not_reported(usable: dict[str, str]) -> None:
    for sanitizer in (ADDRESS, THREAD):
        skip_if(usable[sanitizer.flag])
        done = sanitizer.run("support.sanitized", "6", DIMORPH_NUM_THREADS="4")
        assert done.returncode == 0 and "no report" in done.stdout, done.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_attention_stays_within_its_memory(usable: dict[str, str], dtype: str) -> None:
    skip_if(usable[ADDRESS.flag])
    done = ADDRESS.run(CHECK, *seeds(dtype, specializations=5, count=100))
    assert done.returncode == 0, done.stdout[-5000:]
    assert "100 seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("threads", [2, 4])
def test_attention_from_several_threads_has_no_race(usable: dict[str, str], threads: int) -> None:
    skip_if(usable[THREAD.flag])
    options = ["--threads", "3", *seeds("float32", specializations=3, count=40)]
    done = THREAD.run(CHECK, *options, DIMORPH_NUM_THREADS=str(threads))
    assert done.returncode == 0, done.stdout[-5000:]
    assert "40 seeds, 0 failed" in done.stdout


def skip_if(reason: str) -> None:
    if reason:
        pytest.skip(reason)


def seeds(dtype: str, specializations: int, count: int) -> list[str]:
    """Seeds of round 0 that need few specializations, spread over all of a dtype."""
    found = defaultdict(list)
    for config in map(config_of, range(ROUND)):
        if config.specialization.dtype == dtype:
            found[config.specialization].append(str(config.seed))
    groups = [found[key] for key in sorted(found, key=repr)]
    chosen = [groups[i * len(groups) // specializations] for i in range(specializations)]
    result = [seed for group in chosen for seed in group][:count]
    assert len(result) == count
    return result
