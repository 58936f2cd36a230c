"""Device code of a first tier, which serves a miss under `DIMORPH_ON_MISS=serve` until the optimised code is there."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.runtime import streams
from dimorph.toolchain import cuda
from support.cuda import RMS
from support.waiting import builds, until

VALUES = {"dtype": "float16", "width": 1024}


@pytest.fixture
def serves(store: Path) -> dm.Settings:
    found = replace(settings.current(), arch="sm_80", on_miss="serve")
    if not cuda.find(found).has_first_tier:
        pytest.skip(f"{cuda.find(found).program} has no first tier")
    return found


def tiers(module: dm.Module) -> list[bool]:
    return [one.unit.first_tier for one in module.resolutions if one.unit.kind == "device"]


def test_a_first_tier_serves_until_the_optimised_code_is_there(
    serves: dm.Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dimorph")
    module = RMS.load(settings=serves, **VALUES)
    assert tiers(module)[0]
    assert "its first tier serves while it is built" in caplog.text
    until(lambda: not builds())
    first, optimised = [one for one in module.resolutions if one.unit.kind == "device"]
    assert first.unit.first_tier and not optimised.unit.first_tier
    assert first.artifact.meta.key != optimised.artifact.meta.key
    assert first.artifact.file.read_bytes() != optimised.artifact.file.read_bytes()
    assert tiers(RMS.load(settings=serves, **VALUES)) == [False] and not builds()


def test_a_load_that_waits_knows_no_first_tier(serves: dm.Settings) -> None:
    module = RMS.load(settings=replace(serves, on_miss="wait"), **VALUES)
    assert tiers(module) == [False]
    with pytest.raises(dm.MissingSpecialization):
        RMS.load(settings=serves, policy="aot", dtype="float16", width=512)


def test_nothing_serves_a_miss_during_a_capture(serves: dm.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    covered = replace(RMS, covers=lambda _: [{"width": 1024}])
    covered.load(settings=replace(serves, on_miss="wait"), **VALUES)
    with monkeypatch.context() as patch:
        patch.setattr(streams, "capturing", lambda: True)
        with pytest.raises(dm.MissingSpecialization, match="a CUDA graph is being captured"):
            covered.load(settings=serves, dtype="float16", width=512)
    module = covered.load(settings=serves, dtype="float16", width=512)
    assert {one.unit.values["width"] for one in module.resolutions if one.unit.kind == "device"} >= {"1024"}
    until(lambda: not builds())
