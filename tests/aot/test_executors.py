"""Builds on executors: the same artifacts as a build here, from sources by content, whatever happens to a worker."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import dimorph as dm
from dimorph import aot, settings
from dimorph.aot import workers as module
from dimorph.aot.needs import Need, needs
from dimorph.aot.workers import make, workers
from dimorph.attention.kernels import attention_cpu, attention_sm90
from dimorph.resolve.parcel import Packer
from dimorph.source.include_scan import OWN
from dimorph.store.layers import user_store
from support.compilers import Compiler
from support.kernels import KINDS
from support.skeletons import declared
from support.skeletons import replace as edit

VALUES: dict[str, Any] = {"dtype": "float32", "head_dim": [64, 128]}
UNITS = ["case_unit.cc", "case_unit.cc", "entry_unit.cc"]
ONE = {**VALUES, "head_dim": 64}


@pytest.fixture
def kernel(root: Path, compiler: Compiler) -> dm.Kernel:
    """The skeleton, whose case includes headers by a path with `..` and of a name that the system has, too."""
    for name in ("bits", "sys", "inner"):  # the first two without a header: what is not found in them is recorded
        (root / name).mkdir()
    (root / "inner" / "half.h").write_text('#include "../more.h"\n')
    (root / "more.h").write_text("#pragma once\ninline constexpr int kMore = 0;\n")
    edit(
        root / "affine_case.cc", '#include "affine_config.h"\n', '#include "affine_config.h"\n#include "inner/half.h"\n'
    )
    return declared(root)


def build(
    kernel: dm.Kernel, out: Path, store: Path, executor: Any = None, values: dict[str, Any] = VALUES
) -> aot.Report:
    """Build some specializations by way of a store of their own."""
    config = replace(settings.current(), store=store)
    created = "2026-01-01T00:00:00+00:00"
    return aot.build(kernel.instantiations(**values), out, settings=config, executor=executor, created=created)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Threads(ThreadPoolExecutor):
    """Two threads, with a store of their own."""

    def __init__(self) -> None:
        super().__init__(2)


def processes() -> Executor:
    return ProcessPoolExecutor(2)


def needed(kernel: dm.Kernel) -> list[Need]:
    config = settings.current()
    level = settings.current().target or aot.builder.target_levels(config)[0].name
    return list(needs(kernel.instantiations(**VALUES), [level], [], config).values())


def test_an_executor_makes_the_same_bytes(
    kernel: dm.Kernel, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = build(kernel, tmp_path / "here", tmp_path / "s0", values=ONE)
    assert len(compiler.compiled()) == 2
    expected = tree(tmp_path / "here")
    with ThreadPoolExecutor(2) as pool:
        for number, executor in enumerate([pool, Threads, processes], 1):
            monkeypatch.setenv("DIMORPH_STORE", str(tmp_path / f"worker{number}"))
            out = tmp_path / f"out{number}"
            report = build(kernel, out, tmp_path / f"s{number}", executor, ONE)
            assert (report.built, report.reused) == (2, 0)
            assert [one.meta.key for one in report.artifacts] == [one.meta.key for one in here.artifacts]
            assert tree(out) == expected
            assert len(compiler.compiled()) == 2 * (number + 1)
            # Neither here nor there is anything compiled again: what a worker records is true here, too.
            for again in (executor, None):
                assert build(kernel, out, tmp_path / f"s{number}", again, ONE).built == 0
        assert pool.submit(int).result() == 0  # an executor that was given stays open
    assert len(compiler.compiled()) == 2 * 4


RECEIVER = """
import pickle, sys
from dimorph.aot.workers import make
sys.stdout.buffer.write(pickle.dumps(make(pickle.load(sys.stdin.buffer))))
"""


def test_a_worker_needs_neither_sources_nor_their_module(kernel: dm.Kernel, root: Path, tmp_path: Path) -> None:
    one = needed(kernel)[1]
    built = build(kernel, tmp_path / "here", tmp_path / "s", values=ONE).artifacts[1]
    assert built.meta.key == one.unit.key(one.target, settings.current())
    parcel = pickle.dumps(Packer(settings.current()).pack(*one))
    shutil.rmtree(root)
    done = subprocess.run([sys.executable, "-c", RECEIVER], input=parcel, capture_output=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr.decode()
    made = pickle.loads(done.stdout)
    assert made.files == {name: (built.path / name).read_bytes() for name in built.meta.files}
    assert made.run.seconds > 0


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("affine_case.cc", "DType sum = 0;", "DType sum = nothing;", "affine_case.cc:{line}: error: "),
        ("affine.cc", "DIMORPH_EXPORT(affine)", "", "exports no function"),
    ],
)
def test_a_mistake_is_told_in_the_same_words(
    file: str, old: str, new: str, told: str, kernel: dm.Kernel, root: Path, tmp_path: Path
) -> None:
    line = edit(root / file, old, new)
    texts = []
    for executor in (None, Threads):
        with pytest.raises(dm.BuildError) as caught:
            build(kernel, tmp_path / "out", tmp_path / "s", executor, ONE)
        texts.append(str(caught.value))
        assert str(root) in " ".join([*texts, *caught.value.command])
    assert texts[0] == texts[1]
    assert told.format(line=line) in texts[0]


class Fragile(Executor):
    """Runs jobs at once; breaks at its third, as a pool of processes does when a worker dies, with all it holds."""

    made: ClassVar[int] = 0
    ran: ClassVar[list[str]] = []

    def __init__(self) -> None:
        Fragile.made += 1
        self._left = 3

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._left == 0:
            raise BrokenExecutor("a worker died")
        future: Future[Any] = Future()
        self._left -= fn is make
        if self._left == 0:
            future.set_exception(BrokenExecutor("a worker died"))
        else:
            Fragile.ran.append(fn.__name__)
            future.set_result(fn(*args, **kwargs))
        return future


def test_a_pool_that_breaks_is_made_anew_and_only_the_lost_job_runs_again(
    kernel: dm.Kernel, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fragile, "made", 0)
    monkeypatch.setattr(Fragile, "ran", [])
    with workers(Fragile) as farm:
        assert build(kernel, tmp_path / "out", tmp_path / "s", farm).built == len(UNITS)
        assert build(kernel, tmp_path / "out", tmp_path / "s", farm).built == 0
    assert Fragile.made == 2
    assert Fragile.ran == ["identify", "make", "make", "make", "identify"]
    assert sorted(compiler.compiled()) == UNITS


def test_a_given_pool_that_breaks_is_told_and_what_was_finished_is_kept(
    kernel: dm.Kernel, compiler: Compiler, tmp_path: Path
) -> None:
    with pytest.raises(dm.BuildError, match=r"Fragile is broken, as a worker died: a worker died\n  name a function"):
        build(kernel, tmp_path / "out", tmp_path / "s", Fragile())
    assert len(compiler.compiled()) == 2
    assert build(kernel, tmp_path / "out", tmp_path / "s").built == 1
    assert sorted(compiler.compiled()) == UNITS


class Forgetful(Executor):
    """Cancels every job of one kind that it is given, or answers it with an error of its own."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if fn is not make:
            future.set_result(fn(*args, **kwargs))
        elif self._error is None:
            future.cancel()
        else:
            future.set_exception(self._error)
        return future


def test_an_executor_that_loses_jobs_is_not_asked_for_ever(kernel: dm.Kernel, tmp_path: Path) -> None:
    with pytest.raises(dm.BuildError, match=r"affine entry \(.*\): the executor cancelled it 3 times"):
        build(kernel, tmp_path / "out", tmp_path / "s", Forgetful(None))
    with pytest.raises(dm.BuildError, match=r"affine entry \(.*\): its worker failed: MemoryError: no room"):
        build(kernel, tmp_path / "out", tmp_path / "s", Forgetful(MemoryError("no room")))


@pytest.mark.parametrize("given", [3, lambda: 3, dict])
def test_something_else_than_an_executor_is_refused(given: Any, kernel: dm.Kernel, tmp_path: Path) -> None:
    with pytest.raises(
        dm.ToolchainError, match=r"^executor: expected a concurrent.futures.Executor, or a function without"
    ):
        build(kernel, tmp_path / "out", tmp_path / "s", given)


def test_a_worker_with_another_dimorph_is_told(kernel: dm.Kernel) -> None:
    packer = Packer(settings.current())
    parcel = packer.pack(*needed(kernel)[0])
    with pytest.raises(dm.ToolchainError, match=r"has another Dimorph .* its own flags or formats differ; install"):
        make(replace(parcel, key="0" * 64))
    files = {
        path: content + b"\n" if path.endswith("/affine.cc") else content for path, content in parcel.files.items()
    }
    with pytest.raises(dm.ToolchainError, match=r"has another Dimorph .* affine entry: affine.cc differ; install"):
        make(replace(parcel, files=files))


def test_a_wrong_result_is_refused_and_not_kept(kernel: dm.Kernel, store: Path) -> None:
    first, second, *_ = needed(kernel)
    made = make(Packer(settings.current()).pack(*first))
    keys = [need.unit.key(need.target, settings.current()) for need in (first, second)]
    user_store(settings.current()).remove(keys[0])
    half = {name: content[: len(content) // 2] for name, content in made.files.items()}
    lacking = dict(list(made.files.items())[1:])
    for wrong, key in (
        (made, keys[1]),
        (replace(made, meta="garbage"), keys[0]),
        (replace(made, files=half), keys[0]),
        (replace(made, files=lacking), keys[0]),
    ):
        with pytest.raises(dm.ToolchainError, match="a worker returned a wrong result: "):
            module._kept(wrong, key, user_store(settings.current()))
        assert user_store(settings.current()).find(key) is None
    assert module._kept(made, keys[0], user_store(settings.current())).meta.key == keys[0]


def test_a_debug_build_stays_here(kernel: dm.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_DEBUG", "1")
    with pytest.raises(dm.ToolchainError, match=r"DIMORPH_DEBUG=1: .* build without an executor"):
        build(kernel, tmp_path / "out", tmp_path / "s", Threads)


def test_a_source_behind_a_link_that_has_no_place_in_a_tree_is_refused(kernel: dm.Kernel, root: Path) -> None:
    far = root.parent / "far"
    (far / "deep").mkdir(parents=True)
    (far / "more.h").write_text("#pragma once\ninline constexpr int kMore = 1;\n")
    (far / "deep" / "half.h").write_text('#include "../more.h"\n')
    shutil.rmtree(root / "inner")
    (root / "inner").symlink_to(far / "deep")
    edit(root / "affine_case.cc", '#include "inner/half.h"\n', '#include "inner/half.h"\n#include "more.h"\n')
    (case,) = [need for need in needed(declared(root)) if need.unit.values.get("head_dim") == "64"]
    with pytest.raises(dm.DeclarationError, match=r"leads through a link to another file than .*more\.h"):
        Packer(settings.current()).pack(*case)


def test_without_a_compiler_here_the_workers_have_one(
    kernel: dm.Kernel, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = f"import os; os.environ['DIMORPH_CXX'] = {str(compiler.driver)!r}"
    pool = ProcessPoolExecutor(1, initializer=exec, initargs=(setup,))
    monkeypatch.setenv("DIMORPH_CXX", "/nowhere/g++")
    with pool:
        assert build(kernel, tmp_path / "out", tmp_path / "s", pool, ONE).built == 2
        assert build(kernel, tmp_path / "out", tmp_path / "s", pool, ONE).built == 0
    assert sorted(compiler.compiled()) == UNITS[1:]


@pytest.mark.parametrize("kernel", [attention_cpu, attention_sm90, KINDS], ids=lambda kernel: kernel.name)
def test_a_unit_keeps_its_key_on_its_way(kernel: dm.Kernel, tmp_path: Path) -> None:
    """Sources of Dimorph are those of the receiver; those of the kernel and of its variant keep their places."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "functor.h").write_text("#pragma once\nstruct Functor {};\n")
    variant = dm.Variant("Functor", header="functor.h", root=own)
    config = settings.current()
    one = next(iter(kernel.instantiations(variant=variant))).alone()
    for key, need in needs(one, ["x86-64-v3"], [], config).items():
        parcel = pickle.loads(pickle.dumps(Packer(config).pack(*need)))
        place = tmp_path / key[:8]
        place.mkdir()
        unit = parcel.unpack(str(place), config)
        assert unit.key(parcel.target, config) == parcel.key == key
        assert all(f"{path}/".startswith((str(place), OWN)) for path in unit.include_dirs)
        assert all(f"{variant.root}/".startswith((str(place), OWN)) for variant in unit.variants)
        assert (place / str(own / "functor.h")[1:]).exists() == (variant in need.unit.variants)
