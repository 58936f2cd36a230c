"""Ahead of time: builds a set of specializations into a directory, with a manifest, and checks what is there.

What is built for a set: its entry, in dispatching form (for a single specialization in JIT form), every case, and
the thread pool if a case works in parallel; all of it for each target level. Device code is built for each
architecture, once for all target levels.

Not built: the JIT form of the entry for each combination. It takes as long to compile as a small case, so it would
double a build and the size of a wheel, and adding a value would compile more than its cases and the entry. Where it
is missing, a load of one combination, or of some of the values, is served by the entry of the whole set
(`resolve.wider`); that costs a call under 100 ns, and the cases are the very same files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dimorph._lazy import logger
from dimorph.aot.needs import needs
from dimorph.aot.verifier import brackets, outdated
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet
from dimorph.plan.key import digest
from dimorph.resolve.build import Job, Progress
from dimorph.resolve.build import build as build_jobs
from dimorph.resolve.levels import compiler, target_levels
from dimorph.settings import Settings, current
from dimorph.store import manifest
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED, memo_dir, user_store
from dimorph.store.manifest import Built, Manifest, Row
from dimorph.store.store import Store

_log = logger("dimorph")

# Held while a directory is built into, so that two builds do not lose each other's part of the manifest.
_LOCK = digest(["manifest"])


@dataclass(frozen=True)
class Report:
    """What a build did.

    Attributes:
        kernel: name of the kernel.
        out: the directory.
        targets: the target levels, then the GPU architectures.
        artifacts: everything the set needs, now in the directory.
        built: how many of them were compiled for it.
        reused: how many were there, or in the user's store.
        removed: how many that the kernel does not need any more were removed from the directory.
        seconds: wall-clock time.
    """

    kernel: str
    out: Path
    targets: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    built: int
    reused: int
    removed: int
    seconds: float

    def __str__(self) -> str:
        size = sum(record.size for artifact in self.artifacts for record in artifact.meta.files.values())
        removed = f", {self.removed} removed" if self.removed else ""
        return (
            f"{self.kernel}: {self.built} compiled, {self.reused} reused{removed} for {', '.join(self.targets)} "
            f"in {self.seconds:.2f} s: {len(self.artifacts)} artifacts, {size / 1000:.0f} kB, in {self.out}"
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
) -> Report:
    """Builds what a set of specializations needs into `out`, which several kernels and sets can share.

    What is there already is kept; what is in the user's store, e.g. because a call compiled it, is copied. New
    objects are compiled in the user's store. When everything is there, what the kernel had in `out` and needs no
    more is removed, and `manifest.json` is replaced. A failed build leaves `out` as useful as it was.

    Args:
        instantiations: e.g. `kernel.instantiations()`.
        out: the directory; default: `_dimorph` beside the kernel's sources, where loading looks first. In any
            other it looks when `DIMORPH_SHARED_STORES` names it.
        targets: names of target levels. Default: the one that loading on this machine prefers, because that is
            where a plain build is used; what is shipped names its levels.
        archs: names of GPU architectures, for kernels with device code. Default: those that the kernel declares.
        settings: default: the environment's.
        progress: called with done, total and what was just compiled.
        created: when the artifacts say they were made, ISO 8601; default: the truth.

    Raises:
        DeclarationError: a source is missing or cannot be keyed, or is for none of the architectures.
        ToolchainError: there is no compiler, or no such target or architecture.
        BuildError: a unit could not be compiled.
        ArtifactCorrupt: `out` has a manifest that cannot be read.
        OSError: `out` cannot be written.
    """
    started = time.monotonic()
    config = settings or current()
    names = tuple(dict.fromkeys(targets)) if targets else (target_levels(config)[0].name,)
    store = Store(instantiations.kernel.root / PACKAGED if out is None else Path(out), private=False)
    asked = tuple(dict.fromkeys(archs)) if archs else (config.arch,) if config.arch else ()
    jobs = {
        key: Job(need.unit, need.target, compiler(need.unit, config))
        for key, need in needs(instantiations, names, asked, config).items()
    }
    memo = memo_dir(user_store(config))
    known = {used: used.identity(memo).id for used in {job.compiler for job in jobs.values()}}
    identities = {key: known[job.compiler] for key, job in jobs.items()}
    try:
        with store.lock(_LOCK):
            before = manifest.read(store.root)
            artifacts = {key: found for key in jobs if (found := store.find(key, identities[key]))}
            lacking = {key: job for key, job in jobs.items() if key not in artifacts}
            fresh, compiled = _provide(lacking, identities, config, progress)
            artifacts |= {key: _publish(store, artifact, created) for key, artifact in fresh.items()}
            ordered = tuple(artifacts[key] for key in jobs)
            after = _described(before, instantiations, names, asked, config, ordered)
            removed = _remove_stale(store, instantiations.kernel, before, after)
            if after != before:
                _write(store, after)
    finally:
        store.sweep()
    return Report(
        kernel=instantiations.kernel.name,
        out=store.root,
        targets=tuple(dict.fromkeys(job.target.name for job in jobs.values())),
        artifacts=ordered,
        built=compiled,
        reused=len(jobs) - compiled,
        removed=removed,
        seconds=time.monotonic() - started,
    )


def _provide(
    lacking: dict[str, Job], identities: Mapping[str, str], settings: Settings, progress: Progress | None
) -> tuple[dict[str, Artifact], int]:
    """Return the artifacts, from the user's store or compiled into it; and how many were compiled.

    The user's store remembers the compiler and zig its library, and a build that fails half-way goes on from there.
    """
    own = user_store(settings)
    found: dict[str, Artifact] = {}
    for key in lacking:
        try:
            if artifact := own.find(key, identities[key]):
                found[key] = artifact
        except OSError as error:  # whatever it holds can be compiled again
            _log.info("%s is not used: %s", own.root, error)
            break
    missing = {key: job for key, job in lacking.items() if key not in found}
    if missing:
        compiled = build_jobs(list(missing.values()), settings, own, progress)
        found |= dict(zip(missing, compiled, strict=True))
    return found, len(missing)


def _publish(store: Store, artifact: Artifact, created: str | None) -> Artifact:
    files = {name: artifact.path / name for name in artifact.meta.files}
    meta = replace(artifact.meta, created=created or artifact.meta.created)
    return store.publish(meta.key, meta.toolchain_id, files, meta)


def _described(
    before: Manifest,
    instantiations: InstantiationSet,
    names: Sequence[str],
    archs: Sequence[str],
    settings: Settings,
    artifacts: Iterable[Artifact],
) -> Manifest:
    """The manifest with this set in it; sets of the same kernel that no source can match any more are left out."""
    kernel = instantiations.kernel
    known = before.rows()
    rows = [known.get((a.meta.key, a.meta.toolchain_id)) or Row.of(a) for a in artifacts]
    built = Built(
        given=manifest.given(instantiations),
        values=instantiations.texts(),
        specializations=[specialization.texts() for specialization in instantiations],
        targets=list(names),
        archs=list(archs),
        debug=settings.debug,
        cxxflags=list(settings.cxxflags),
        artifacts=rows,
    )
    record = before.kernels.get(manifest.identity(kernel))
    others = []
    for other in record.built if record else ():
        if other.given == built.given:
            continue
        if reason := outdated(kernel, other):
            _log.warning("%s%s is removed: %s", kernel.name, brackets(other.given), reason)
        else:
            others.append(other)
    return manifest.with_built(before, kernel, others, built)


def _remove_stale(store: Store, kernel: Declaration, before: Manifest, after: Manifest) -> int:
    """Removes what the kernel had before and nothing needs after."""
    record = before.kernels.get(manifest.identity(kernel))
    stale = (manifest.rows(record) if record else {}).keys() - after.rows().keys()
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
