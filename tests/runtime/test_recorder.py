"""Records of a running process: what was loaded, when and by whom, and what no other process could find again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph.attention.variants import Sinks, Window
from dimorph.attention.variants.compose import composition
from dimorph.declare.reference import Made, kernel_reference, variant_reference
from dimorph.errors import ArtifactCorrupt
from dimorph.runtime import recorder
from dimorph.store import use
from dimorph.store.use import Use
from support.kernels import PICK, ROOT, SHIFT

pytestmark = pytest.mark.usefixtures("warm_store")

# A variant beside a header, held by no variable.
HELD = [dm.Variant("Nameless", header="variants.h", struct="Shift", root=ROOT, params=SHIFT.params)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "use.json"


def _calls(path: Path) -> dict[str, int]:
    return {one.label: one.calls for one in use.read(path)}


def test_a_record_has_what_was_loaded_and_called(path: Path) -> None:
    with dm.record(path):
        module = PICK.load(width=[1, 2], depth=1)
        for _ in range(5):
            module.pick(2, 1)
    entry, case = use.read(path)
    assert (entry.kind, entry.values, entry.calls) == ("entry", {"width": ["1", "2"], "depth": ["1"]}, 0)
    assert (case.kind, case.values, case.calls) == ("case", {"width": ["2"], "depth": ["1"]}, 5)
    assert case.found.module == "support.kernels:pick" and case.found.file == f"{ROOT / '__init__.py'}:pick"
    assert set(case.origins) <= {"built", "store"} and case.seconds > 0
    assert case.target == module.resolutions[-1].artifact.meta.target


def test_a_record_that_begins_late_and_ends_early(path: Path) -> None:
    module = PICK.load(width=1, depth=[1, 2])
    module.pick(1, 1)
    with dm.record(path):
        module.pick(1, 1)
        PICK.load(width=1, depth=1).pick(1, 1)  # is gone at the end of the block
        gc.collect()
    module.pick(1, 1)
    assert _calls(path) == {
        "pick entry (width=1, depth=1|2)": 0,
        "pick entry (width=1, depth=1)": 0,
        "pick case (width=1, depth=1)": 2,
    }


def test_what_is_bound_is_in_the_file_at_once_and_counts_after_a_second(path: Path) -> None:
    with dm.record(path):
        module = PICK.load(width=1, depth=1)
        assert _calls(path)["pick case (width=1, depth=1)"] == 0
        module.pick(1, 1)
        deadline = time.monotonic() + 20
        while not _calls(path)["pick case (width=1, depth=1)"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _calls(path)["pick case (width=1, depth=1)"] == 1


def test_records_in_records(path: Path, tmp_path: Path) -> None:
    with dm.record(path), dm.record(path), dm.record(tmp_path / "other.json"):
        PICK.load(width=1, depth=1).pick(1, 1)
    assert _calls(path) == _calls(tmp_path / "other.json")
    assert _calls(path)["pick case (width=1, depth=1)"] == 1


def test_a_value_that_is_built_late(path: Path) -> None:
    with dm.record(path):
        module = PICK.load(width=[1, 2], depth=1)
        module.pick(3, 1)
    assert [one.values["width"] for one in use.read(path)] == [["1", "2"], ["1", "2", "3"], ["3"]]


def test_a_child_counts_its_own_calls(path: Path) -> None:
    with dm.record(path):
        module = PICK.load(width=1, depth=1)
        module.pick(1, 1)
        child = os.fork()
        if not child:
            module.pick(1, 1)
            module.pick(1, 1)
            recorder._end(path)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    lines = path.read_text().splitlines()[1:]
    assert [line[:30].split()[1] for line in lines if '"case"' in line] == ["1", "2"]


def test_a_setting_names_the_record_of_many_processes(path: Path) -> None:
    program = "from support.kernels import PICK; PICK.load(width=1, depth=1).pick(1, 1)"
    environ = {**os.environ, "DIMORPH_RECORD": str(path), "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environ) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    entry, case = use.read(path)
    assert case.calls == 3 and sum(case.origins.values()) == sum(entry.origins.values()) == 3


def test_a_setting_that_names_no_possible_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_RECORD", str(path / "in" / "use.json"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="DIMORPH_RECORD: No such file"):
            PICK.load(width=1, depth=1)
    path.write_text("name,count\n")
    monkeypatch.setenv("DIMORPH_RECORD", str(path))
    with pytest.raises(ArtifactCorrupt, match="expected a record of use"):
        PICK.load(width=1, depth=1)


def test_a_full_disk_ends_the_record_and_not_the_program(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with dm.record(path):
        module = PICK.load(width=1, depth=[1, 2])
        monkeypatch.setattr(use, "_write", lambda fd, line: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
        assert module.pick(1, 2) == 1002
        assert module.pick(1, 1) == 1001
    assert [record.getMessage() for record in caplog.records if "record" in record.getMessage()] == [
        f"dimorph: the record {path} ends here, because it cannot be written: [Errno 28] No space left on device"
    ]


def test_kernels_that_no_process_finds_again() -> None:
    inner = replace(PICK)
    assert (
        "no variable of" in kernel_reference(inner).why and "bind it at the module level" in kernel_reference(inner).why
    )
    notebook = replace(PICK, origin=Path("/nowhere/<interactive>"), root=PICK.root)
    assert "no file declares it" in kernel_reference(notebook).why


@pytest.mark.parametrize(
    ("make", "module", "made"),
    [
        (lambda: SHIFT, "support.kernels:Shift", "Shift"),
        (lambda: HELD[0], "", "Nameless"),
        (lambda: composition(Sinks, Window), "", "Sinks_Window"),
    ],
    ids=["variable", "none", "composition"],
)
def test_variants_are_described(make: Callable[[], dm.Variant], module: str, made: str) -> None:
    found = variant_reference(make())
    assert (found.module, Made.from_text(found.made).name, found.why) == (module, made, "")


def test_a_variant_without_its_header_cannot_be_found(tmp_path: Path) -> None:
    lost = dm.Variant("Lost", header="lost.h", root=tmp_path)
    assert "there is no header" in variant_reference(lost).why


def test_uses_are_plain() -> None:
    one = Use("case", "k", kernel_reference(PICK), {"a": ["1"]}, {}, "x86-64-v3", [], False, [])
    assert one.label == "k case (a=1)"
