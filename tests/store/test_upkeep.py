"""The upkeep of the user's store: one sweep a day, which removes nothing that may be in use."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dimorph import settings
from dimorph.settings import Settings
from dimorph.store.store import Store
from dimorph.store.upkeep import sweep_daily
from support.kernels import SCALE
from support.store import key_of, publish

DAY = 86400.0


def _aged(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def _bounds(store: Store, **bounds: float) -> Settings:
    return replace(settings.current(), store=store.root, **bounds)


@pytest.fixture
def due(store: Store) -> Store:
    """A store whose last sweep was two days ago."""
    sweep_daily(store, _bounds(store))  # the very first call creates the mark and removes nothing
    _aged(store.root / "swept", 2)
    return store


def _keys(store: Store) -> list[str]:
    return [item.path.parent.name for item in store.entries()]


def test_the_oldest_go_until_the_rest_fits(due: Store, sources: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, days in ((1, 30), (2, 20), (3, 10)):
        _aged(publish(due, sources, number, size=100_000).path, days)
    with caplog.at_level(logging.INFO, "dimorph"):
        sweep_daily(due, _bounds(due, store_size=250_000))
    assert _keys(due) == [key_of(2), key_of(3)]
    assert "1 artifact (0.1 MB)" in caplog.text


def test_artifacts_that_nobody_used_for_long_go(due: Store, sources: Path) -> None:
    for number, days in ((1, 91), (2, 89)):
        _aged(publish(due, sources, number).path, days)
    sweep_daily(due, _bounds(due))
    assert _keys(due) == [key_of(2)]


def test_artifacts_that_may_be_in_use_stay_whatever_the_bounds(due: Store, sources: Path) -> None:
    _aged(publish(due, sources, 1).path, 3)
    publish(due, sources, 2)
    _aged(publish(due, sources, 3).path, 1.9)
    sweep_daily(due, _bounds(due, store_size=0, store_age=0))
    assert _keys(due) == [key_of(2), key_of(3)]


def test_once_a_day(due: Store, sources: Path) -> None:
    sweep_daily(due, _bounds(due))
    _aged(publish(due, sources, 1).path, 365)
    sweep_daily(due, _bounds(due))
    assert _keys(due) == [key_of(1)]
    _aged(due.root / "swept", 1.1)
    sweep_daily(due, _bounds(due))
    assert _keys(due) == []


def test_a_work_directory_in_use_stays(due: Store) -> None:
    with due.work_dir() as work:
        sweep_daily(due, _bounds(due, store_size=0, store_age=0))
        assert work.is_dir()


def test_a_store_that_cannot_be_swept_costs_a_line(
    due: Store, sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Store, "prune", fail)
    with caplog.at_level(logging.INFO, "dimorph"):
        sweep_daily(due, _bounds(due))
    assert "is not swept: the disk is on fire" in caplog.text


def test_a_build_sweeps_its_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sources: Path) -> None:
    store = Store(tmp_path / "own")
    monkeypatch.setenv("DIMORPH_STORE", str(store.root))
    SCALE.load(dtype="float32")
    _aged(publish(store, sources, 1).path, 100)
    _aged(store.root / "swept", 2)
    SCALE.load(dtype="float64")
    assert key_of(1) not in _keys(store)
