"""Build an instantiation set ahead of time into a directory with a manifest.

A build makes, for each target level, the entry of the set, all its cases, and the thread pool if a case uses it. The
entry is in dispatching form, or in JIT form for a set of one specialization. Device code is built for each
architecture, once for all target levels.

The JIT forms of the entry for the single combinations are left out. Each takes as long to compile as a small case, so
they would double the time of a build and the size of a wheel, and adding a value would compile more than its cases and
the entry. The entry of the whole set serves a load of one or some of its values instead (`resolve.wider`); that adds
less than 100 ns to a call, and the cases are the same files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dimorph._lazy import logger
from dimorph.aot.changes import Earlier, changes
from dimorph.aot.needs import Need, needs
from dimorph.aot.supply import Step, Supply, Wanted, wanted
from dimorph.aot.verifier import brackets, outdated
from dimorph.aot.workers import Workers, workers
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import LoadError, counted
from dimorph.plan.key import digest
from dimorph.resolve.build import Progress
from dimorph.resolve.levels import target_levels
from dimorph.resolve.reads import NAME as READS
from dimorph.runtime.library import unloadable
from dimorph.settings import Settings, current
from dimorph.store import manifest
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED, built_store, memo_dir, user_store
from dimorph.store.manifest import Built, Manifest, Row
from dimorph.store.store import Store
from dimorph.toolchain import elf
from dimorph.toolchain.workers import side_by_side

_log = logger("dimorph")

# Copies into the directory at a time: each waits for the disk several times.
_COPIES = 8
# The key of the lock that a build holds on its directory, so that two builds keep each other's part of the manifest.
_LOCK = digest(["manifest"])


@dataclass(frozen=True)
class Report:
    """The result of a build ahead of time.

    Attributes:
        kernel: the name of the kernel.
        out: the directory.
        targets: names of the target levels, then of the GPU architectures.
        artifacts: all artifacts that the set needs; they are now in the directory.
        built: the number of artifacts that were compiled.
        reused: the number of artifacts that were already in the directory or in the user's store.
        removed: the number of outdated artifacts of the kernel that were removed from the directory.
        seconds: the wall-clock time of the build.
        steps: how it got each artifact, in their order.
        changes: lines that compare the set with its build before into the directory; none for a shard.
        instantiations: the set.
    """

    kernel: str
    out: Path
    targets: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    built: int
    reused: int
    removed: int
    seconds: float
    steps: tuple[Step, ...]
    changes: tuple[str, ...]
    instantiations: InstantiationSet

    def __repr__(self) -> str:
        return f"<dimorph.aot.Report {self}>"

    def __str__(self) -> str:
        size = sum(record.size for artifact in self.artifacts for record in artifact.meta.files.values())
        removed = f", {self.removed} removed" if self.removed else ""
        return (
            f"{self.kernel}: {self.built} compiled, {self.reused} reused{removed} for {', '.join(self.targets)} "
            f"in {self.seconds:.2f} s: {counted(len(self.artifacts), 'artifact')}, {size / 1000:.0f} kB, in {self.out}"
        )


def build(
    instantiations: InstantiationSet,
    out: Path | str | None = None,
    *,
    targets: Sequence[str] | None = None,
    archs: Sequence[str] | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    created: str | None = None,
    executor: Workers | Executor | Callable[[], Executor] | None = None,
    shard: tuple[int, int] | None = None,
    reads: bool = True,
) -> Report:
    """Build everything that an instantiation set needs into a directory, which several kernels and sets can share.

    Artifacts that the directory already holds are kept, and those in the user's store, e.g. from earlier calls, are
    copied. The others are compiled into the user's store and copied. At the end, artifacts of the kernel that no set
    needs any more are removed, and `manifest.json` is replaced. A failed build removes nothing from the directory.

    Args:
        instantiations: the set to build, e.g. `kernel.instantiations()`.
        out: the directory; default: `_dimorph` beside the kernel's sources, which loads search first. They search any
            other directory if `DIMORPH_SHARED_STORES` names it.
        targets: names of target levels; default: the best one that this CPU runs. Name the levels of a build that is
            meant for other machines.
        archs: names of GPU architectures, for kernels with device code. Default: those that the kernel declares.
        settings: default: those of the environment.
        progress: called from several threads with the number of finished compiles, the number of compiles, and the
            label of the unit whose compile has just begun or ended.
        created: the time of creation to record in the artifacts, in ISO 8601; default: the real time.
        executor: where to compile: any `concurrent.futures.Executor`, which stays as it is, or a function without
            arguments that makes one for this build. Its workers need Dimorph and a compiler; default: this process.
        shard: (number, count): build one of `count` parts, from 1, which the keys make up. The directory gets its
            artifacts and no manifest; the build of the whole set into the directories of all parts together completes
            them. Default: the whole set.
        reads: keep the record of what each compile read with its artifact; it is a quarter of a small one when packed.

    Raises:
        DeclarationError: a source is missing or has no key, or the kernel supports none of the architectures.
        ToolchainError: there is no compiler, or a target level or architecture is unknown, or `executor` is none.
        BuildError: a unit could not be compiled.
        ValueError: `shard` is not the number of a part.
        LoadError: a compiled object cannot be loaded, e.g. because a symbol is missing; the message names it.
        ArtifactCorrupt: the manifest in `out` cannot be parsed.
        OSError: `out` cannot be read or written.
    """
    started = time.monotonic()
    config = settings or current()
    names = tuple(dict.fromkeys(targets)) if targets else (target_levels(config)[0].name,)
    root = instantiations.kernel.root
    store = built_store(root / PACKAGED if out is None else Path(out), [root], writable=True)
    # Before anything is compiled or written.
    elf.check_installed()
    store.check_content()
    manifest.read(store)
    asked = tuple(dict.fromkeys(archs)) if archs else (config.arch,) if config.arch else ()
    needed = _part(needs(instantiations, names, asked, config), shard)
    with nullcontext() if executor is None else workers(executor) as farm:
        jobs = wanted(needed, farm, config)
        try:
            # A shard writes no manifest, so those of one set may be built side by side into one directory.
            with nullcontext() if shard else store.lock(_LOCK):
                before = manifest.read(store)
                supply = Supply(jobs, config, farm, progress)
                supply.search(store, "directory", memo_dir(user_store(config)))
                lacking = [key for key in jobs if key not in supply.found]
                supply.provide(Earlier(store))
                fresh = {key: supply.found[key] for key in lacking}
                _check_loadable(fresh.values(), jobs)
                copies = [partial(_publish, store, artifact, created, reads=reads) for artifact in fresh.values()]
                artifacts = {**supply.found, **dict(zip(fresh, side_by_side(copies, _COPIES), strict=True))}
                ordered = tuple(artifacts[key] for key in jobs)
                after, removed = before, 0
                if not shard:
                    after = _described(before, instantiations, store.root, names, asked, config, ordered)
                    removed = _remove_stale(store, before, after)
                if after != before:
                    _write(store, after)
        finally:
            store.sweep()
    sets = [_built(contents, instantiations, store.root) for contents in (before, after)]
    return Report(
        kernel=instantiations.kernel.name,
        out=store.root,
        targets=tuple(dict.fromkeys(job.need.target.name for job in jobs.values())),
        artifacts=ordered,
        built=supply.compiled,
        reused=len(jobs) - supply.compiled,
        removed=removed,
        seconds=time.monotonic() - started,
        steps=tuple(supply.step(key, artifact) for key, artifact in zip(jobs, ordered, strict=True)),
        changes=tuple(changes(sets[0], sets[1])) if sets[1] and not shard else (),
        instantiations=instantiations,
    )


def _part(needed: dict[str, Need], shard: tuple[int, int] | None) -> dict[str, Need]:
    """Return the units of a shard; keys are evenly spread, and the same everywhere."""
    if shard is None:
        return needed
    number, count = shard
    if not 1 <= number <= count:
        raise ValueError(f"aot.build: shard: expected (number, count) with 1 <= number <= count, got {shard!r}")
    return {key: need for key, need in needed.items() if int(key[:16], 16) % count == number - 1}


def _check_loadable(artifacts: Iterable[Artifact], jobs: Mapping[str, Wanted]) -> None:
    for artifact in artifacts:
        if artifact.meta.kind != "device" and (why := unloadable(artifact)):
            raise LoadError(f"{jobs[artifact.meta.key].need.unit.label}: what was compiled cannot be loaded: {why}")


def _publish(store: Store, artifact: Artifact, created: str | None, *, reads: bool) -> Artifact:
    records = {name: record for name, record in artifact.meta.files.items() if reads or name != READS}
    files = {name: artifact.path / name for name in records}
    meta = replace(artifact.meta, files=records, created=created or artifact.meta.created)
    return store.publish(meta.key, meta.toolchain_id, files, meta)


def _described(
    before: Manifest,
    instantiations: InstantiationSet,
    directory: Path,
    names: Sequence[str],
    archs: Sequence[str],
    settings: Settings,
    artifacts: Iterable[Artifact],
) -> Manifest:
    """Return the manifest with this set in it, without sets of the same kernel that are outdated."""
    kernel = instantiations.kernel
    known = before.rows()
    rows = [known.get((a.meta.key, a.meta.toolchain_id)) or Row.of(a) for a in artifacts]
    specializations = [specialization.texts() for specialization in instantiations]
    wanted = {axis.name: list(values) for axis, values in instantiations.pairs() if values}
    built = Built(
        given=manifest.given(instantiations),
        values=instantiations.texts(),
        specializations=specializations,
        targets=list(names),
        archs=list(archs),
        debug=settings.debug,
        cxxflags=list(settings.cxxflags),
        artifacts=rows,
        partial=len(specializations) < sum(1 for _ in instantiate(kernel, wanted)),
    )
    record = before.kernels.get(before.name(kernel, directory))
    others = []
    for other in record.built if record else ():
        # The recorded cases of a set, and all of it, are kept beside each other.
        if (other.given, other.partial) == (built.given, built.partial):
            continue
        if reason := outdated(kernel, other):
            _log.warning("%s%s: this outdated set is removed: %s", kernel.name, brackets(other.given), reason)
        else:
            others.append(other)
    return manifest.with_built(before, kernel, directory, others, built)


def _built(contents: Manifest, instantiations: InstantiationSet, directory: Path) -> Built | None:
    """Return the set as a manifest describes it."""
    record = contents.kernels.get(contents.name(instantiations.kernel, directory))
    given = manifest.given(instantiations)
    return next((one for one in record.built if one.given == given), None) if record else None


def _remove_stale(store: Store, before: Manifest, after: Manifest) -> int:
    """Remove the artifacts that a set in the manifest needed and none needs any more; return their number.

    Only the sets of the declaration that is built can have changed, so artifacts of others stay.
    """
    stale = before.rows().keys() - after.rows().keys()
    return sum(store.remove(key, toolchain_id) for key, toolchain_id in sorted(stale))


def _write(store: Store, contents: Manifest) -> None:
    with store.work_dir() as work:
        written = work / manifest.NAME
        with written.open("w", encoding="utf-8") as stream:
            stream.write(contents.to_json())
            stream.flush()
            os.fsync(stream.fileno())
        written.chmod(0o644)
        written.replace(store.root / manifest.NAME)
