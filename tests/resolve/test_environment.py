"""Variables of the environment that have no effect are told once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dimorph.resolve import environment
from support.skeletons import declared


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    for warn in (environment.warn_of_unknown, environment.warn_of_compiler):
        warn.cache_clear()
    yield
    for warn in (environment.warn_of_unknown, environment.warn_of_compiler):
        warn.cache_clear()


def _warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "compiling" not in r.getMessage()]


def test_variables_that_are_no_settings_are_told_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DIMORPH_DEBUGG", "1")
    monkeypatch.setenv("DIMORPH_PATH", "1")
    for dtype in ("float32", "float64"):
        declared(root).load(dtype=dtype, head_dim=64)
    assert _warned(caplog) == [
        "dimorph: DIMORPH_DEBUGG: there is no such setting; the nearest is DIMORPH_DEBUG",
        "dimorph: DIMORPH_PATH: there is no such setting",
    ]


def test_a_build_ahead_tells_of_them_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DIMORPH_TARGETS", "x86-64-v2")
    declared(root).build(dtype="float32", head_dim=64)
    assert "DIMORPH_TARGETS: there is no such setting; the nearest is DIMORPH_TARGET" in "".join(_warned(caplog))


def test_a_compiler_that_is_not_there_is_told_where_a_store_serves(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    declared(root).load(dtype="float32", head_dim=64)
    assert not _warned(caplog)
    monkeypatch.setenv("DIMORPH_CXX", "g++-99")
    for _ in range(2):
        declared(root).load(dtype="float32", head_dim=64)
    (line,) = _warned(caplog)
    assert "DIMORPH_CXX=g++-99: there is no such program" in line and "another compiler made are used" in line
