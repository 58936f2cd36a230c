"""Which artifact serves: the order of places, the reasons why not, and the policies."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import dimorph as dm
from dimorph.store.layers import PACKAGED
from dimorph.toolchain import targets
from support.compilers import counting_compiler
from support.forms import built_ahead
from support.kernels import PICK, SCALE
from support.store import result_of, start_child, tree

Copier = Callable[..., dm.Kernel]


@pytest.fixture
def kernel(copy_of: Copier) -> dm.Kernel:
    return copy_of(PICK)


def _package(kernel: dm.Kernel, store: Path) -> Path:
    """Makes what is in the store the kernel's packaged artifacts; the store is empty again."""
    packaged = kernel.root / PACKAGED
    shutil.copytree(store, packaged, ignore=shutil.ignore_patterns("tmp", "locks", "toolchains"))
    shutil.rmtree(store)
    return packaged


def _places(module: dm.Module) -> list[str]:
    return [resolution.place.partition(" (")[0] for resolution in module.resolutions]


def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "ziglang" else _find_spec(name))


_find_spec = __import__("importlib.util").util.find_spec


# --- Places, in order ---


def test_a_second_load_is_served_by_the_store_and_says_so(
    kernel: dm.Kernel, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dimorph"):
        first = kernel.load(width=1, depth=1)
        assert _places(first) == ["built", "built"]
        second = kernel.load(width=1, depth=1)
    assert _places(second) == ["store", "store"]
    assert second.pick(1, 1) == 1001
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("pick ")]
    assert len(lines) == 4, "one line for each artifact"
    assert "built" in lines[0] and f"store ({store})" in lines[0] and "not there" in lines[0]
    assert f"store ({store})" in lines[2] and targets.runnable()[0].name in lines[2] and "g++" in lines[2]


def test_what_is_packaged_comes_before_the_store(kernel: dm.Kernel, store: Path) -> None:
    kernel.load(width=1, depth=1)
    packaged = _package(kernel, store)
    before = tree(packaged)
    module = kernel.load(width=1, depth=1)
    assert _places(module) == ["packaged", "packaged"]
    assert module.pick(1, 1) == 1001
    assert not store.exists() and tree(packaged) == before, "a load from a package writes nothing"


def test_a_shared_store_serves_when_it_is_named_and_only_then(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.load(width=1, depth=1)
    shared = tmp_path / "shared"
    store.rename(shared)
    assert _places(kernel.load(width=1, depth=1)) == ["built", "built"]
    shutil.rmtree(store)
    monkeypatch.setenv("DIMORPH_SHARED_STORES", f"{tmp_path / 'nothing'}{os.pathsep}{shared}")
    before = tree(shared)
    module = kernel.load(width=1, depth=1)
    assert _places(module) == ["shared store", "shared store"]
    assert module.pick(1, 1) == 1001
    assert tree(shared) == before


def test_an_artifact_made_for_a_lower_level_serves_from_a_package(
    kernel: dm.Kernel, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, *_, lowest = targets.runnable()
    monkeypatch.setenv("DIMORPH_TARGET", lowest.name)
    kernel.load(width=1, depth=1)
    monkeypatch.delenv("DIMORPH_TARGET")
    rebuilt = kernel.load(width=1, depth=1)
    assert [r.artifact.meta.target for r in rebuilt.resolutions] == [best.name] * 2, "what can be compiled is the best"
    shutil.rmtree(store)
    monkeypatch.setenv("DIMORPH_TARGET", lowest.name)
    kernel.load(width=1, depth=1)
    monkeypatch.delenv("DIMORPH_TARGET")
    _package(kernel, store)
    packaged = kernel.load(width=1, depth=1)
    assert [r.artifact.meta.target for r in packaged.resolutions] == [lowest.name] * 2
    assert packaged.pick(1, 1) == 1001


def test_a_package_for_all_values_serves_a_load_of_one(kernel: dm.Kernel, store: Path) -> None:
    built_ahead(kernel)
    _package(kernel, store)
    for policy in ("auto", "aot"):
        module = kernel.load(width=1, depth=2, policy=policy)
        assert module.pick(1, 2) == 1002
        assert set(_places(module)) == {"packaged"}
    assert not store.exists()


# --- Why not ---


def _reasons(module: dm.Module) -> str:
    return "; ".join(reason for resolution in module.resolutions for reason in resolution.passed)


def test_a_package_whose_sources_were_edited_is_not_used_and_the_log_says_why(kernel: dm.Kernel, store: Path) -> None:
    kernel.load(width=1, depth=1)
    packaged = _package(kernel, store)
    case = kernel.root / "pick_case.cc"
    case.write_text(case.read_text().replace("DEPTH;", "DEPTH + 500000;"))
    module = kernel.load(width=1, depth=1)
    assert module.pick(1, 1) == 501001
    assert _places(module) == ["packaged", "built"]
    assert f"packaged ({packaged}): nothing in it has the key of these sources and values" in _reasons(module)


def test_a_package_made_for_another_ffi_is_not_used_and_the_log_says_why(kernel: dm.Kernel, store: Path) -> None:
    kernel.load(width=1, depth=1)
    for meta in _package(kernel, store).rglob("meta.json"):
        described = json.loads(meta.read_text())
        meta.chmod(0o600)
        meta.write_text(json.dumps({**described, "ffi_abi": "tvm-ffi 99"}))
    module = kernel.load(width=1, depth=1)
    assert _places(module) == ["built", "built"]
    assert "made for tvm-ffi 99" in _reasons(module)
    assert module.pick(1, 1) == 1001


def test_another_compilers_work_is_not_used_while_a_compiler_is_there(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.load(width=1, depth=1)
    other = counting_compiler(tmp_path, before="# another program, so another compiler")
    monkeypatch.setenv("DIMORPH_CXX", str(other.driver))
    module = kernel.load(width=1, depth=1)
    assert _places(module) == ["built", "built"] and len(other.compiled()) == 2
    assert "made by" in _reasons(module)
    monkeypatch.delenv("DIMORPH_CXX")
    assert _places(kernel.load(width=1, depth=1)) == ["store", "store"], "both are kept"


def test_with_no_compiler_whatever_compiler_made_it_serves(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.load(width=1, depth=1)
    _no_compiler(monkeypatch, tmp_path)
    with caplog.at_level(logging.INFO, "dimorph"):
        module = kernel.load(width=1, depth=1)
    assert _places(module) == ["store", "store"]
    assert module.pick(1, 1) == 1001
    assert "no C++ compiler found" in caplog.text
    with pytest.raises(dm.MissingSpecialization, match=r"no C\+\+ compiler found: .*ziglang") as caught:
        kernel.load(width=2, depth=1)
    assert caught.value.missing == {"width": "2", "depth": "1"}
    assert "dimorph build" in str(caught.value)


def test_a_level_too_high_is_not_taken_and_a_lower_one_is_with_no_compiler(
    kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowest = targets.runnable()[-1]
    monkeypatch.setenv("DIMORPH_TARGET", lowest.name)
    kernel.load(width=1, depth=1)
    monkeypatch.delenv("DIMORPH_TARGET")
    _no_compiler(monkeypatch, tmp_path)
    module = kernel.load(width=1, depth=1)
    assert {r.artifact.meta.target for r in module.resolutions} == {lowest.name}
    monkeypatch.setattr(targets, "runnable", lambda: targets.levels()[:1])
    if targets.levels()[0] != lowest:
        with pytest.raises(dm.MissingSpecialization):
            kernel.load(width=1, depth=1)


# --- Policies ---


def test_aot_never_compiles_and_names_the_exact_command(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = counting_compiler(tmp_path)
    monkeypatch.setenv("DIMORPH_CXX", str(compiler.driver))
    monkeypatch.setenv("DIMORPH_POLICY", "aot")
    with pytest.raises(dm.MissingSpecialization) as caught:
        kernel.load(width=1, depth=2)
    error = caught.value
    assert (error.kernel, error.missing) == ("pick", {"width": "1", "depth": "2"})
    assert error.command == f"dimorph build {kernel.origin}:pick width=1 depth=2 --out {kernel.root / PACKAGED}"
    for part in ("the policy is aot", f"store ({store})", f"packaged ({kernel.root / PACKAGED})", error.command):
        assert part in str(error)
    assert not compiler.compiled() and not store.exists()
    assert kernel.load(width=1, depth=2, policy="auto").pick(1, 2) == 1002
    assert kernel.load(width=1, depth=2).pick(1, 2) == 1002


def test_jit_uses_neither_packages_nor_shared_stores(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.load(width=1, depth=1)
    packaged = _package(kernel, store)
    shutil.copytree(packaged, tmp_path / "shared")
    monkeypatch.setenv("DIMORPH_SHARED_STORES", str(tmp_path / "shared"))
    module = kernel.load(width=1, depth=1, policy="jit")
    assert _places(module) == ["built", "built"]
    assert _reasons(module).count("policy is jit") == 4
    assert _places(kernel.load(width=1, depth=1, policy="jit")) == ["store", "store"]


def test_a_policy_in_the_call_wins_over_the_settings(kernel: dm.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_POLICY", "aot")
    with pytest.raises(dm.MissingSpecialization):
        kernel.load(width=1, depth=1)
    module = kernel.load(policy="auto")
    assert module.pick(1, 1) == 1001, "and it holds for what the module binds later"


def test_settings_are_those_of_the_load_not_of_the_call(
    kernel: dm.Kernel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = kernel.load()
    monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / "other"))
    monkeypatch.setenv("DIMORPH_POLICY", "aot")
    assert module.pick(1, 1) == 1001
    assert not (tmp_path / "other").exists()


# --- What a hit costs ---


def _watched(work: Callable[[], object], names: tuple[str, ...]) -> list[str]:
    """Runs `work` in a forked child and returns the audit events with these names, with their first argument."""

    def child() -> list[str]:
        import sys

        seen: list[str] = []
        watching = True

        def hook(event: str, args: tuple[object, ...]) -> None:
            if watching and event.startswith(names):
                seen.append(f"{event} {args[:3]}")

        sys.addaudithook(hook)
        work()
        watching = False
        return seen

    return list(result_of(start_child(child)))


STARTS = ("subprocess.", "os.fork", "os.posix_spawn", "os.exec", "os.spawn", "os.system", "pty.")


def test_a_store_hit_starts_no_process(kernel: dm.Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel.load(width=1, depth=1)
    dispatching = kernel.load()
    assert dispatching.pick(2, 2) == 2002
    one = _watched(lambda: kernel.load(width=1, depth=1).pick(1, 1), STARTS)
    several = _watched(lambda: kernel.load().pick(2, 2), STARTS)
    assert one == several == []
    assert _watched(lambda: kernel.load(width=2, depth=1), STARTS), "a build is seen"
    _no_compiler(monkeypatch, tmp_path)
    assert _watched(lambda: kernel.load(width=1, depth=1).pick(1, 1), STARTS) == []


def test_a_store_hit_is_one_while_the_store_cannot_be_written(kernel: dm.Kernel, store: Path) -> None:
    """An identity that has to be found anew at each load would start processes."""
    kernel.load(width=1, depth=1)
    for directory, _, files in os.walk(store, topdown=False):
        for name in files:
            (Path(directory) / name).chmod(0o400)
        Path(directory).chmod(0o500)
    assert _watched(lambda: kernel.load(width=1, depth=1).pick(1, 1), STARTS) == []


def test_a_load_from_a_package_writes_nothing_and_starts_nothing(kernel: dm.Kernel, store: Path) -> None:
    built_ahead(kernel)
    packaged = _package(kernel, store)
    before = tree(packaged)

    def work() -> None:
        module = kernel.load()
        assert [module.pick(w, d) for w in (1, 2) for d in (1, 2)] == [1001, 1002, 2001, 2002]

    assert _watched(work, STARTS) == []
    opened = _watched(work, ("open", "os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink"))
    writing = [e for e in opened if not e.startswith("open ") or not _reads(e)]
    assert writing == []
    assert tree(packaged) == before and not store.exists()


def _reads(event: str) -> bool:
    path, mode, flags = event.removeprefix("open (").rstrip(")").rsplit(", ", 2)
    assert path and mode
    return int(flags) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0


def test_a_load_only_compares_what_belongs_to_it(kernel: dm.Kernel, copy_of: Copier) -> None:
    """Two kernels in one directory do not disturb each other's packages."""
    other = copy_of(SCALE)
    assert other.root == kernel.root
    kernel.load(width=1, depth=1)
    module = other.load(dtype="float32", width=7)
    assert "pick" not in _reasons(module)
