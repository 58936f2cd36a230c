"""The file of a record of use: written by many processes that may be killed, read whole or refused by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dimorph.declare.reference import Reference
from dimorph.errors import ArtifactCorrupt
from dimorph.store import use
from dimorph.store.use import Use, Writer

ONE = Use(
    kind="case",
    kernel="pick",
    found=Reference(module="mypkg.kernels:pick", file="/here/mypkg/kernels.py:pick"),
    values={"width": ["1"], "depth": []},
    variants={},
    target="x86-64-v3",
    archs=[],
    debug=False,
    cxxflags=[],
    origins={"built": 1},
    seconds=0.5,
)

# Appends lines without end: each with the number of the process and of the line, printed when it is finished.
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_use import ONE
from dimorph.store.use import Writer
writer, number = Writer(Path(sys.argv[1])), 0
while True:
    number += 1
    offset = writer.append(replace(ONE, values={"width": [f"{sys.argv[2]}-{number}"], "pad": ["x" * 3000]}).line())
    writer.count(offset, number)
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "use.json"


def _write(path: Path, *uses: Use) -> None:
    writer = Writer(path)
    for one in uses:
        writer.append(one.line())
    writer.close()


def test_lines_of_one_specialization_add_up(path: Path) -> None:
    _write(path, replace(ONE, calls=3), replace(ONE, calls=4, origins={"store": 2}, seconds=0.25))
    assert use.read(path) == [replace(ONE, calls=7, origins={"built": 1, "store": 2})]


@pytest.mark.parametrize(
    "other",
    [
        {"values": {"width": ["2"], "depth": []}},
        {"values": {"width": ["1"], "depth": ["1"]}},
        {"target": "x86-64-v2"},
        {"archs": ["sm_90a"]},
        {"debug": True},
        {"cxxflags": ["-DX"]},
        {"kind": "entry"},
        {"variants": {"Mine": Reference(made="{}")}},
        {"found": Reference(module="mypkg.others:pick")},
    ],
    ids=lambda other: next(iter(other)),
)
def test_lines_that_are_built_apart_do_not_add_up(other: dict[str, object], path: Path) -> None:
    _write(path, ONE, replace(ONE, **other))  # type: ignore[arg-type]
    assert len(use.read(path)) == 2


def test_a_package_that_lies_elsewhere_on_another_machine_is_the_same(path: Path) -> None:
    _write(path, ONE, replace(ONE, found=replace(ONE.found, file="/there/kernels.py:pick")))
    assert [one.origins for one in use.read(path)] == [{"built": 2}]


def test_counts_are_written_in_place(path: Path) -> None:
    writer = Writer(path)
    offset, size = writer.append(ONE.line()), path.stat().st_size
    for calls in (9, 10, 2**40):
        writer.count(offset, calls)
        assert use.read(path) == [replace(ONE, calls=calls)]
    assert path.stat().st_size == size


def test_counts_do_not_spoil_a_file_that_was_edited(path: Path) -> None:
    writer = Writer(path)
    offset = writer.append(ONE.line())
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"record of use"', b'"record of  use"').replace(b", ", b",  ", 1))
    edited = path.read_bytes()
    writer.count(offset, 5)
    assert path.read_bytes() == edited


def _first(**changes: object) -> bytes:
    return json.dumps({"format": 1, "dimorph": "0.1.0", "what": "a record of use", **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            _first(format=2, dimorph="9.9"),
            "format: expected 1, got 2; Dimorph 9.9 wrote this record, and this is 0.1.0",
        ),
        (_first(format="1"), "format: expected 1, got 1; Dimorph 0.1.0 wrote"),
        (b'{"calls": 1}\n', "expected a record of use, got another file"),
        (b"name,count\n", "expected a record of use, which begins with its format"),
        (b"\x00\xff\n", "expected a record of use, which begins with its format"),
        (b"[1", "expected a record of use, which begins with its format"),
        (
            _first() + ONE.line().replace(b'"pick"', b"pick", 1),
            "use.json:2: .*the line was edited or damaged: remove it",
        ),
        (_first() + ONE.line() + b"\n" + ONE.line(), "use.json:3: .*edited or damaged"),
        (_first() + ONE.line().replace(b'"kind"', b'"kinds"'), "use.json:2: a line: expected the fields"),
        (_first() + ONE.line().replace(b'"case"', b'"cases"'), "use.json:2: kind: expected entry or case, got 'cases'"),
        (
            _first() + ONE.line().replace(b'["1"]', b'["1", "2"]'),
            "expected one of each axis of a case, got several of width",
        ),
        (_first() + ONE.line().replace(b"0.5", b"NaN"), "seconds: expected a number, got nan"),
    ],
)
def test_what_is_no_record_of_this_version_is_refused_by_name(text: bytes, expected: str, path: Path) -> None:
    path.write_bytes(text)
    with pytest.raises(ArtifactCorrupt, match=expected) as caught:
        use.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [_first(format=2), b"name,count\n"])
def test_nothing_is_appended_to_another_file(text: bytes, path: Path) -> None:
    path.write_bytes(text)
    with pytest.raises(ArtifactCorrupt, match="expected"):
        Writer(path)
    assert path.read_bytes() == text


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_without_waiting(make: Callable[[Path], None], path: Path) -> None:
    make(path)
    for action in (use.read, Writer):
        with pytest.raises(OSError, match="expected a regular file"):
            action(path)


@pytest.mark.parametrize("length", [1, 30, -1])
def test_an_unfinished_line_is_passed_over_and_removed_by_the_next_writer(length: int, path: Path) -> None:
    _write(path, ONE)
    with path.open("ab") as stream:
        stream.write(replace(ONE, kernel="other").line()[:length])
    assert use.read(path) == [ONE]
    _write(path, replace(ONE, kernel="third"))
    assert [one.kernel for one in use.read(path)] == ["pick", "third"]


def test_an_unfinished_header_is_no_damage(path: Path) -> None:
    path.write_bytes(_first()[:20])
    assert use.read(path) == []
    _write(path, ONE)
    assert use.read(path) == [ONE]


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(use.fcntl, "flock", no_locks)
    _write(path, ONE)
    _write(path, replace(ONE, kernel="other"))
    assert [one.kernel for one in use.read(path)] == ["pick", "other"]


def test_equal_records_are_equal_bytes(tmp_path: Path) -> None:
    uses = [replace(ONE, kernel=name) for name in ("b", "a", "c")]
    use.write(tmp_path / "1", uses)
    use.write(tmp_path / "2", use.merged([uses[::-1]]))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert [one.kernel for one in use.read(tmp_path / "1")] == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) != [] and not list(tmp_path.glob(".*"))


def killed_writers(path: Path, rounds: int, seconds: float) -> int:
    """Let three processes write at once and kill them, `rounds` times; return the number of finished lines."""
    finished: set[str] = set()
    for number in range(rounds):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), f"{number}-{one}", str(Path(__file__).parent)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for one in range(3)
        ]
        for process in running:
            assert process.stdout and process.stdout.readline()
        time.sleep(seconds)
        for one, process in enumerate(running):
            process.send_signal(signal.SIGKILL)
            printed = process.communicate()[0].split("\n")[:-1]
            finished |= {f"{number}-{one}-{line}" for line in ["1", *printed]}
        calls = {found.values["width"][0]: found.calls for found in use.read(path)}
        wrong = {line: calls.get(line) for line in finished if calls.get(line) != int(line.rpartition("-")[2])}
        assert not wrong
    return len(finished)


def test_killed_writers_lose_nothing_that_was_finished(path: Path) -> None:
    assert killed_writers(path, rounds=2, seconds=0.3) > 100
