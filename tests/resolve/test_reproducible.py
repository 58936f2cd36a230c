"""Two builds of one key are equal byte for byte, whoever makes them, where, and when."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.declare.instantiations import instantiate
from dimorph.plan.unit import device_unit
from dimorph.resolve import before
from dimorph.store.artifact import META_NAME, Artifact
from dimorph.store.store import Store
from dimorph.toolchain import archs
from support.kernels import PICK
from support.paths import EXAMPLES
from support.store import ME, in_child, needs_root

# A warning, and what names the file. The date and the time are refused in kernels.
_TELLING = """
static const char* volatile made = __FILE__;
static int nobody_calls_this() { return 1; }
"""


def content(out: Path) -> dict[str, bytes]:
    """Return the name and the content of every file that artifacts consist of, and of the manifest."""
    found = {}
    for artifact in Store(out, writable=False, private=False).entries():
        assert isinstance(artifact, Artifact)
        for name in (META_NAME, *artifact.meta.files):
            found[f"{artifact.meta.key[:8]}/{name}"] = (artifact.path / name).read_bytes()
    return found


def built(kernel: dm.Kernel, root: Path, out: Path) -> None:
    """Build a copy of a kernel's sources, with a store of its own."""
    shutil.copytree(kernel.root, root, ignore=shutil.ignore_patterns("__pycache__", "_dimorph"))
    case = root / kernel.case[0]
    head, last, tail = case.read_text().partition("int64_t pick()")
    case.write_text(f"{head}{_TELLING}{last}{tail.replace('DEPTH;', 'DEPTH + !made;')}")
    config = replace(settings.current(), store=out.with_name("store"))
    moved = replace(kernel, root=root, origin=root / "declared.py")
    axes = {axis.name: axis.values[0] for axis in kernel.axes}
    moved.build(out, settings=config, targets=["x86-64-v3"], **axes)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("first")
    built(PICK, root / "sources", root / "out")
    return content(root / "out")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with another name of another length, that others can enter."""
    with tempfile.TemporaryDirectory(prefix="dimorph another place, with a long name ") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Return the first differing lines of each file that differs."""
    found = []
    for name in (name for name in first if first[name] != second[name]):
        lines = zip(first[name].splitlines(), second[name].splitlines(), strict=False)
        found += [f"{name}: {one[:100]!r}, {other[:100]!r}" for one, other in lines if one != other][:3]
    return found


def check(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    assert first.keys() == second.keys()
    assert differing(first, second) == []
    objects = [data for name, data in first.items() if name.endswith("case.so")]
    assert objects
    assert all(b"/dimorph/0/pick_case.cc" in data for data in objects)
    assert any(b"nobody_calls_this" in data for name, data in first.items() if name.endswith(META_NAME))


def test_in_another_directory_at_another_time(
    first: dict[str, bytes], place: Path, monkeypatch: pytest.MonkeyPatch, umask: Callable[[int], None]
) -> None:
    umask(0o077)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("LANG", "tr_TR.UTF-8")
    monkeypatch.setenv("TMPDIR", str(place))
    (place / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{place}/bin:{place}/none:{os.environ['PATH']}")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr("dimorph.resolve.build.timestamp", lambda: "2031-01-01T00:00:00+00:00")
    time.tzset()
    try:
        built(PICK, place / "deeper" / "sources", place / "out")
    finally:
        monkeypatch.undo()
        time.tzset()
    check(first, content(place / "out"))


@needs_root
def test_by_another_user(first: dict[str, bytes], place: Path) -> None:
    def build() -> None:
        os.environ["HOME"] = str(place)
        built(PICK, place / "sources", place / "out")

    os.chown(place, ME, ME)
    in_child(build, uid=ME)
    check(first, content(place / "out"))


def test_device_code(tmp_path: Path) -> None:
    pytest.importorskip("nvidia", reason="NVRTC, of the extra `cuda`, is not installed")
    found = []
    for place in ("a", "another-place"):
        root = tmp_path / place
        shutil.copytree(EXAMPLES / "cuda", root / "sources", ignore=shutil.ignore_patterns("__pycache__"))
        case = root / "sources" / "rms.cu"
        case.write_text(case.read_text() + "\nstatic __device__ int nobody_calls_this() { return 1; }\n")
        kernel = dm.Kernel(
            name="rms",
            root=root / "sources",
            case=["rms_case.cc"],
            device=["rms.cu"],
            archs=["sm_80"],
            axes=_rms_axes(),
            origin=root / "sources" / "declared.py",
        )
        config = replace(settings.current(), store=root / "store")
        values = {axis.name: axis.values[0] for axis in kernel.axes}
        kernel.build(root / "out", settings=config, targets=["x86-64-v3"], **values)
        found.append(content(root / "out"))
    assert found[0].keys() == found[1].keys()
    assert differing(*found) == []
    assert any(name.endswith(".cubin") for name in found[0])


@pytest.mark.parametrize("name", ["__DATE__", "__TIME__", "__TIMESTAMP__"])
@pytest.mark.parametrize("where", ["rms.cu", "rms_params.h"])
def test_the_time_is_refused_in_device_code(tmp_path: Path, name: str, where: str) -> None:
    shutil.copytree(EXAMPLES / "cuda", tmp_path / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "sources" / where
    text = file.read_text() + f"\n// {name} in a comment is fine\n"
    kernel = dm.Kernel(
        name="rms", root=tmp_path / "sources", device=["rms.cu"], archs=["sm_80"], axes=_rms_axes(), origin=file
    )
    (one,) = instantiate(kernel, {axis.name: axis.values[0] for axis in kernel.axes})

    def check_text(added: str) -> None:
        file.write_text(text + added)
        before.check(device_unit(one, (archs.by_name("sm_80"),)))

    check_text("")
    with pytest.raises(dm.BuildError, match=rf"{where}:\d+: error: this is another text at each build"):
        check_text(f"#define WHEN {name}\n")


def _rms_axes() -> tuple[dm.Axis, ...]:
    sys.path.insert(0, str(EXAMPLES / "cuda"))
    try:
        import rms
    finally:
        sys.path.remove(str(EXAMPLES / "cuda"))
    return tuple(next(value for value in vars(rms).values() if isinstance(value, dm.Kernel)).axes)
