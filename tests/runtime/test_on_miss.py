"""`DIMORPH_ON_MISS=serve`: what serves a call whose case is in no store, until that case is built."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.plan.load_plan import case_plan
from dimorph.resolve.levels import archs_here
from dimorph.runtime import ffi, library, stand_in
from dimorph.runtime.stand_in import StandIn
from dimorph.source.signature import Signature
from dimorph.toolchain import targets
from support.kernels import PICK
from support.waiting import builds, until

# A case returns width * 1000 + depth, so the result tells which one ran.
COVERED = replace(PICK, covers=lambda v: [{"width": width} for width in (v["width"] + 1, v["width"] + 2)])


class Held:
    """A compiler that compiles cases only while it may; `DIMORPH_ON_MISS=serve`."""

    def __init__(self, directory: Path) -> None:
        # Spelt such that it is no path: files that a script names count among those that its compiles read.
        (directory / "held").mkdir()
        self.may, self.fails = directory / "held/may", directory / "held/fails"
        self.may.touch()
        script = directory / "g++"
        spelt = str(directory / "held").replace("/", "+")
        found = f"w=$(echo {spelt} | tr + /)"
        gate = f'{found}; while [ ! -e "$w"/may ]; do sleep 0.02; done; [ ! -e "$w"/fails ] || exit 1'
        script.write_text(f'#!/bin/sh\ncase "$*" in *case_unit.cc*) {gate};; esac\nexec g++ "$@"\n')
        script.chmod(0o755)
        self.waits = replace(settings.current(), cxx=str(script))
        self.serves = replace(self.waits, on_miss="serve")

    def hold(self) -> None:
        self.may.unlink()

    def go(self, *, fail: bool = False) -> None:
        if fail:
            self.fails.touch()
        self.may.touch()


@pytest.fixture
def held(tmp_path: Path, store: Path) -> Held:
    return Held(tmp_path)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="dimorph")
    return caplog


def loaded(form: str, held: Held, config: dm.Settings, kernel: dm.Kernel = COVERED) -> dm.Module:
    return kernel.load(settings=config, **({"width": 1, "depth": 2} if form == "jit" else {}))


@pytest.mark.parametrize("form", ["jit", "aot"])
def test_a_covering_case_serves_until_the_exact_one_is_built(
    form: str, held: Held, log: pytest.LogCaptureFixture
) -> None:
    COVERED.load(settings=held.waits, width=3, depth=2)  # the second that is named
    held.hold()
    module = loaded(form, held, held.serves)
    pick = module.pick
    assert pick(1, 2) == 3002 and pick(1, 2) == 3002
    assert "pick (width=1, depth=2) is in no store: width=3, depth=2, for x86-64" in log.text
    held.go()
    until(lambda: not builds())
    assert pick(1, 2) == 1002 and module.pick(1, 2) == 1002
    assert "pick (width=1, depth=2) is built, and serves from now on instead of width=3, depth=2" in log.text
    assert loaded(form, held, held.serves).pick(1, 2) == 1002  # nothing is missing any more
    assert not builds()


def test_the_first_that_is_built_serves(held: Held) -> None:
    for width in (2, 3):
        COVERED.load(settings=held.waits, width=width, depth=2)
    held.hold()
    assert COVERED.load(settings=held.serves).pick(1, 2) == 2002
    held.go()
    until(lambda: not builds())


def test_a_call_waits_where_nothing_serves(held: Held) -> None:
    COVERED.load(settings=held.waits, width=3, depth=2)
    module = COVERED.load(settings=held.serves)
    assert module.pick(2, 1) == 2001  # no case that covers it is built
    assert PICK.load(settings=held.serves).pick(1, 2) == 1002  # it declares no `covers`
    assert COVERED.load(settings=held.waits).pick(2, 2) == 2002  # it is off
    assert not builds()


@pytest.mark.parametrize(("result", "serves"), [("int64_t", True), ("NewHandle", False)])
def test_a_case_that_makes_handles_is_not_replaced(result: str, serves: bool, held: Held) -> None:
    COVERED.load(settings=held.waits, width=3, depth=2)
    wanted = next(iter(COVERED.instantiations(width=1, depth=2)))
    archs = archs_here(held.serves)
    exports = {"pick": Signature("pick", (), result)}
    found = stand_in.find(wanted, case_plan(wanted, archs), exports, archs, held.serves, "auto")
    assert bool(found) == serves


def test_policy_aot_takes_no_other_case(held: Held) -> None:
    COVERED.load(settings=held.waits, width=3, depth=2)
    with pytest.raises(dm.MissingSpecialization):
        COVERED.load(settings=held.serves, policy="aot", width=1, depth=2)


def test_code_for_a_lower_level_serves_meanwhile(held: Held, log: pytest.LogCaptureFixture) -> None:
    best, *_, lowest = (level.name for level in targets.runnable())
    if best == lowest:
        pytest.skip("this CPU runs one target level")
    kernel = replace(PICK, covers=lambda _: [])
    kernel.load(settings=replace(held.waits, target=lowest), width=1, depth=2)
    held.hold()
    module = kernel.load(settings=held.serves, width=1, depth=2)
    assert module.pick(1, 2) == 1002
    assert {one.artifact.meta.target for one in module.resolutions if one.unit.kind == "case"} == {lowest}
    held.go()
    until(lambda: not builds())
    assert module.pick(1, 2) == 1002
    assert {one.artifact.meta.target for one in module.resolutions if one.unit.kind == "case"} == {lowest, best}


def test_a_build_that_fails_is_told_and_the_other_case_goes_on(held: Held, log: pytest.LogCaptureFixture) -> None:
    COVERED.load(settings=held.waits, width=3, depth=2)
    held.hold()
    module = COVERED.load(settings=held.serves)
    assert module.pick(1, 2) == 3002
    held.go(fail=True)
    until(lambda: not builds())
    (told,) = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert told.startswith("pick (width=1, depth=2) cannot be built, so width=3, depth=2, for ")
    assert module.pick(1, 2) == 3002


def test_a_case_whose_functions_have_other_types_is_not_taken() -> None:
    class Made(NamedTuple):
        of: ffi.CaseFunction

        def function(self, _: str) -> int:
            return ctypes.addressof(self.of)

    serving, same, other = (Made(ffi.CaseFunction(tag, b"", invoke)) for tag, invoke in ((7, 1), (7, 2), (8, 3)))
    made = StandIn(cast(library.Case, serving))
    taken = ffi.CaseFunction.from_address(made.function("pick"))
    with pytest.raises(dm.DeclarationError, match="pick: the parameters have other types"):
        made.change(cast(library.Case, other))
    assert taken.invoke == 1
    made.change(cast(library.Case, same))
    assert taken.invoke == 2 and serving.of.invoke == 1


@pytest.mark.parametrize(
    ("covers", "message"),
    [
        (lambda _: [{"wide": 3}], "kernel pick: covers: {'wide': 3} for width=1, depth=2: kernel pick: no axis"),
        (lambda _: [{"width": "three"}], "kernel pick: covers: {'width': 'three'} for width=1, depth=2"),
        (lambda _: [{"width": [3, 4]}], "covers: expected one value for each axis, got {'width': "),
        (lambda v: [{"width": v["wide"]}], "`covers` asks for an axis 'wide'"),
        (lambda _: None, "kernel pick: covers: expected a list for width=1, depth=2, got None"),
        (lambda _: {"width": 3}, "kernel pick: covers: expected a list for width=1, depth=2, got {'width': 3}"),
        (lambda _: [3], "kernel pick: covers: 3 for width=1, depth=2"),
    ],
)
def test_what_covers_returns_is_checked(covers: Callable[..., object], message: str, held: Held) -> None:
    kernel = replace(PICK, covers=covers)
    with pytest.raises(dm.DeclarationError) as caught:
        kernel.load(settings=held.serves, width=1, depth=2)
    assert message in str(caught.value)


def test_an_unknown_value_of_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_ON_MISS", "maybe")
    with pytest.raises(ValueError, match="DIMORPH_ON_MISS: expected one of wait, serve, got 'maybe'"):
        settings.current()
