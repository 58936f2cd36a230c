"""What is said about a build that a program waits for: a line after a second, and calls of `on_build`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import dimorph as dm
from dimorph.resolve import notice
from dimorph.resolve.notice import Notice
from support.compilers import Compiler
from support.kernels import PICK


@pytest.fixture
def told() -> Iterator[list[dm.BuildProgress]]:
    kept: list[dm.BuildProgress] = []
    remove = dm.on_build(kept.append)
    yield kept
    remove()
    assert not notice._callbacks


def test_the_line_says_what_why_and_how_to_avoid_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notice, "_SILENCE", 0.0)
    one = Notice(["pick case (width=1)"], "store (/store): not there", "", lambda: "build it: dimorph build x")
    for _ in range(3):
        one.tick()
    one.finished()
    assert caplog.messages == [
        "dimorph: compiling pick case (width=1), because it is in no store: store (/store): not there; build it: "
        "dimorph build x; DIMORPH_LOG=off hides this"
    ]


@pytest.mark.parametrize("silent", [True, False])
def test_a_build_that_was_asked_for_has_no_advice(
    silent: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notice, "_SILENCE", 0.0)
    one = Notice(["pick case"], "", "", lambda: pytest.fail("asked for advice"), silent=silent)
    one.tick()
    assert caplog.messages == ([] if silent else ["dimorph: compiling pick case; DIMORPH_LOG=off hides this"])


def test_a_program_is_told(told: list[dm.BuildProgress], compiler: Compiler, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        PICK.load(width=21, depth=22)
    assert {one.units for one in told} == {told[0].units} and len(told[0].units) == len(compiler.compiled()) == 2
    assert (told[0].done, told[0].ended) == (0, False) and (told[-1].done, told[-1].ended) == (2, True)
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert "not there" in told[0].why and "build it: dimorph build" in told[0].advice
    told.clear()
    PICK.load(width=21, depth=22)  # is in the store now
    assert told == []


@pytest.mark.usefixtures("compiler")
def test_what_a_callback_raises_ends_the_build() -> None:
    def refuse(progress: dm.BuildProgress) -> None:
        raise KeyError(progress.units[0])

    remove = dm.on_build(refuse)
    try:
        with pytest.raises(KeyError, match="pick entry"):
            PICK.load(width=23, depth=24)
    finally:
        remove()


def test_the_end_of_a_failed_build_is_told(told: list[dm.BuildProgress], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXXFLAGS", "-DWIDTH=0")
    with pytest.raises(dm.BuildError):
        PICK.load(width=25, depth=26)
    assert told[-1].ended and told[-1].done < 2
