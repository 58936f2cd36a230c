"""Changes during a compile, what a later question costs and says, and what packaged artifacts do with a record."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.plan.unit import device_unit
from dimorph.resolve import digests, reads
from dimorph.resolve.build import Job, build
from dimorph.store.layers import memo_dir
from dimorph.store.store import Store
from dimorph.toolchain import archs, cuda
from support.reads import DEFAULT, HEAD, ONE, TAIL, TWO, kernel_of, put, set_driver


def test_a_header_that_is_another_one_during_a_compile_only_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, header = kernel_of(tmp_path), tmp_path / "project" / "v.h"
    set_driver(tmp_path, monkeypatch, f"echo '#define VALUE 2' > {header}", f"echo '#define VALUE 1' > {header}")
    with pytest.raises(dm.BuildError, match="changed while it was compiled"):
        kernel.load()
    assert not list(store.glob("??/*"))


def test_a_header_that_is_replaced_by_another_file_and_back_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, header = kernel_of(tmp_path), tmp_path / "project" / "v.h"
    other = tmp_path / "other.h"
    other.write_text(TWO)
    before = f"mv {header} {tmp_path}/kept; cp {other} {header}"
    set_driver(tmp_path, monkeypatch, before, f"mv {tmp_path}/kept {header}")
    with pytest.raises(dm.BuildError, match="changed while it was compiled"):
        kernel.load()
    assert not list(store.glob("??/*"))


def test_a_system_header_that_changes_during_a_compile_is_read_again_by_the_next_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_of(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    change = f"sleep 0.02; echo '#define VALUE 2' > {tmp_path}/sys/s.h"
    set_driver(tmp_path, monkeypatch, "", change, f"-isystem {tmp_path}/sys")
    assert kernel.load().probe() == 1
    assert kernel.load().probe() == 2


@pytest.mark.parametrize("link", [False, True])
def test_a_change_right_after_a_load_is_noticed(link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_SETTLED", 0)  # as if the compile had taken seconds
    kernel = kernel_of(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys-1/s.h": ONE, "/sys-2/s.h": TWO, "/sys": Path("sys-1")})
    set_driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys")
    assert kernel.load().probe() == 1
    assert kernel.load().probe() == 1
    put(tmp_path, {"/sys": Path("sys-2")} if link else {"/sys-1/s.h": TWO})
    assert kernel.load().probe() == 2


def test_new_times_of_an_unchanged_header_cost_no_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    log = tmp_path / "log"
    set_driver(tmp_path, monkeypatch, f"echo compiled >> {log}", "", f"-isystem {tmp_path}/sys")
    kernel.load()
    put(tmp_path, {"/sys/s.h": ONE, "/sys/unrelated.h": TWO})
    os.utime(tmp_path / "sys" / "s.h", (1, 1))
    assert kernel.load().resolutions[0].place.startswith("store")
    assert log.read_text().splitlines() == ["compiled"]
    put(tmp_path, {"/sys/s.h": TWO})
    assert kernel.load().probe() == 2


@pytest.mark.parametrize("field", ["reads", "places", "stamps", "whole"])
@pytest.mark.parametrize("value", [None, 7, 0.5, "x", [], [7], {}, {"x": "y"}, {"x": [1, 2]}, "missing"])
def test_a_damaged_memo_of_what_was_checked_does_no_harm(
    field: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"probe.cc": f"{HEAD}{DEFAULT}{TAIL}"})
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "store"))
    kernel = dm.Kernel(name="probe", entry="probe.cc", case=[], root=tmp_path / "project")
    kernel.load()
    (memo,) = (tmp_path / "store").rglob("checked.json")
    content = json.loads(memo.read_bytes())
    assert field in content
    if value == "missing":
        del content[field]
    else:
        content[field] = value
    memo.write_text(json.dumps(content))
    resolved = dm.Kernel(name="probe", entry="probe.cc", case=[], root=tmp_path / "project").load()
    assert resolved.probe() == 1


def test_the_message_names_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys2/s.h": ONE, "/sys/x": ""})
    set_driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys -isystem {tmp_path}/sys2")
    kernel.load()
    put(tmp_path, {"/sys2/s.h": TWO})
    assert f"{tmp_path}/sys2/s.h, which its compile read, has changed" in str(kernel.load().resolutions[0])
    put(tmp_path, {"/sys/s.h": ONE})
    assert f"{tmp_path}/sys/s.h is new, and a compile would read it" in str(kernel.load().resolutions[0])


def test_what_was_built_ahead_serves_whatever_the_system_holds_and_is_built_again_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_of(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    set_driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys")
    assert kernel.build().built == 1
    assert kernel.build().built == 0
    put(tmp_path, {"/sys/s.h": TWO})
    loaded = kernel.load()
    assert loaded.resolutions[0].place.startswith("packaged")
    assert loaded.probe() == 1
    assert kernel.build().built == 1
    assert kernel.load().probe() == 2


def test_without_a_compiler_the_store_serves_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(tmp_path, "#include <s.h>")
    put(tmp_path, {"/sys/s.h": ONE})
    set_driver(tmp_path, monkeypatch, "", "", f"-isystem {tmp_path}/sys")
    kernel.load()
    put(tmp_path, {"/sys/s.h": TWO})
    assert kernel.load(policy="aot").probe() == 1


@pytest.mark.parametrize("changed", ["cuda_fp16.hpp", "nothing_includes_this.h"])
def test_the_headers_that_nvrtc_can_read_count(changed: str, tmp_path: Path, store: Path) -> None:
    found = cuda.find(settings.current())
    headers = tmp_path / "include"
    source = found.include or Path("/usr/local/cuda/include")
    if not (source / "cuda_fp16.h").is_file():
        pytest.skip("there are no CUDA headers to copy")
    shutil.copytree(source, headers)
    (headers / "nothing_includes_this.h").write_text("")
    compiler = found._replace(include=headers)
    put(tmp_path, {"d.cu": '#include <cuda_fp16.h>\nextern "C" __global__ void k(half* x) { x[0] = __hneg(x[0]); }\n'})
    put(tmp_path, {"e.cc": "", "c.cc": ""})
    sources = {"entry": "e.cc", "case": ["c.cc"], "device": ["d.cu"], "archs": ["sm_90"]}
    kernel = dm.Kernel(name="d", root=tmp_path / "project", **sources)  # type: ignore[arg-type]
    unit = device_unit(next(iter(kernel.instantiations())), (archs.by_name("sm_90"),))
    (artifact,) = build([Job(unit, unit.archs[0], compiler)], settings.current(), Store(store))
    memo = memo_dir(Store(store))
    assert reads.changed(artifact, unit, compiler, memo) is None
    recorded = reads.Reads.from_json((artifact.path / reads.NAME).read_bytes())
    assert {"@cuda/cuda_fp16.h", str(found.program)} <= set(recorded.files)
    moved = shutil.copytree(headers, tmp_path / "moved")
    assert reads.changed(artifact, unit, compiler._replace(include=moved), memo) is None
    with (headers / changed).open("a") as stream:
        stream.write("// another version\n")
    counts = f"@cuda/{changed}" in recorded.files
    assert counts == (changed == "cuda_fp16.hpp")
    assert (reads.changed(artifact, unit, compiler, memo) is not None) == counts
