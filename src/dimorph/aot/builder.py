"""Ahead of time: builds a set of specializations into a directory, with a manifest, and checks what is there.

What is built for a set: its entry, in dispatching form (for a single specialization in JIT form), every case, and
the thread pool if a case works in parallel; all of it for each target level. Device code is built for each
architecture, once for all target levels.

Not built: the JIT form of the entry for each combination. It takes as long to compile as a small case, so it would
double a build and the size of a wheel, and adding a value would compile more than its cases and the entry. Where it
is missing, a load of one combination, or of some of the values, is served by the entry of the whole set
(`resolve.serving`); that costs a call under 100 ns, and the cases are the very same files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dimorph.aot.discover import load_kernels
from dimorph.errors import DimorphError
from dimorph.kernel import InstantiationSet, Kernel
from dimorph.logs import logger
from dimorph.plan.key import FFI_ABI, digest
from dimorph.plan.unit import Unit, case_units, declared_archs, device_unit, entry_unit
from dimorph.resolve import build as builder
from dimorph.resolve.build import Job, Progress
from dimorph.resolve.resolver import compiler, target_levels
from dimorph.runtime import library
from dimorph.settings import Settings, current
from dimorph.store import manifest
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED, memo_dir, user_store
from dimorph.store.manifest import Built, Manifest, Row
from dimorph.store.store import Broken, Store
from dimorph.toolchain import elf, targets
from dimorph.toolchain.archs import admitted, by_name
from dimorph.toolchain.cuda import CudaToolchain
from dimorph.toolchain.host import HostToolchain

__all__ = ["Coverage", "Report", "build", "load_kernels", "verify"]

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


@dataclass(frozen=True)
class Coverage:
    """What a directory holds, and what is wrong with it.

    Attributes:
        out: the directory.
        covered: a line for each set of specializations whose keys are those of the sources that are there now.
        problems: a line for everything else.
    """

    out: Path
    covered: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that the manifest promises is there, whole and up to date, and nothing else."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join([*self.covered, *(f"problem: {line}" for line in self.problems)])


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
    jobs = _jobs(instantiations, names, asked, config)
    made_by = {key: compiler(job.unit, config) for key, job in jobs.items()}
    memo = memo_dir(user_store(config))
    compilers = {found: found.identity(memo) for found in set(made_by.values())}
    identities = {key: compilers[found].id for key, found in made_by.items()}
    try:
        with store.lock(_LOCK):
            before = manifest.read(store.root)
            artifacts = {key: found for key in jobs if (found := store.find(key, identities[key]))}
            lacking = {key: job for key, job in jobs.items() if key not in artifacts}
            fresh, compiled = _provide(lacking, identities, compilers, config, progress)
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


def verify(kernels: Iterable[Kernel], out: Path) -> Coverage:
    """Checks a directory against its manifest, and the manifest against the sources and declarations there are now.

    Recomputes every key, which takes no compiler, and every checksum.

    Raises:
        ArtifactCorrupt: the manifest cannot be read.
        OSError: the directory cannot be read.
    """
    store = Store(out, writable=False, private=False)
    recorded = manifest.read(store.root)
    known = {manifest.identity(kernel): kernel for kernel in kernels}
    problems = [*_check_artifacts(store, recorded), *_check_unlisted(store, recorded)]
    covered = []
    for name in sorted({*known, *recorded.kernels}):
        if name not in known:
            problems.append(f"{name}: it is in the manifest, but no such kernel is declared")
            continue
        if name not in recorded.kernels:
            problems.append(f"{name}: nothing was built of it")
            continue
        for built in recorded.kernels[name].built:
            if reason := _outdated(known[name], built):
                problems.append(f"{name}{_brackets(built.given)}: {reason}")
            else:
                covered.append(_line(name, known[name], built))
    return Coverage(store.root, tuple(covered), tuple(problems))


def _units(instantiations: InstantiationSet) -> list[Unit]:
    units = [entry_unit(instantiations), *case_units(instantiations)]
    if any(unit.parallel for unit in units):
        units.append(entry_unit(library.POOL.instantiations()))
    return units


def _jobs(
    instantiations: InstantiationSet, names: Sequence[str], archs: Sequence[str], settings: Settings
) -> dict[str, Job]:
    """Everything there is to compile, by its key, for levels and architectures (none: those declared) by name."""
    levels = [targets.by_name(name) for name in names]
    units = _units(instantiations)
    jobs = [Job(unit, level) for level in levels for unit in units]
    named = [by_name(name) for name in archs]
    for specialization in instantiations if instantiations.kernel.device else ():
        declared = declared_archs(specialization)
        what = f"kernel {instantiations.kernel.name} ({specialization})"
        unit = device_unit(specialization, admitted(named, declared, what) if named else declared)
        jobs += [Job(unit, arch) for arch in unit.archs]
    return {job.unit.key(job.target, settings): job for job in jobs}


def _provide(
    lacking: dict[str, Job],
    identities: Mapping[str, str],
    compilers: Iterable[HostToolchain | CudaToolchain],
    settings: Settings,
    progress: Progress | None,
) -> tuple[dict[str, Artifact], int]:
    """The artifacts, from the user's store or compiled into it; and how many were compiled.

    There, because it remembers the compiler and zig its library, and because a build that fails half-way then
    goes on where it stopped.
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
        compiled = builder.build(list(missing.values()), compilers, settings, own, progress)
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
        values=manifest.values(instantiations),
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
        if reason := _outdated(kernel, other):
            _log.warning("%s%s is removed: %s", kernel.name, _brackets(other.given), reason)
        else:
            others.append(other)
    return manifest.with_built(before, kernel, others, built)


def _remove_stale(store: Store, kernel: Kernel, before: Manifest, after: Manifest) -> int:
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


def _outdated(kernel: Kernel, built: Built) -> str | None:
    """Why a set as it was built is not what the declaration and the sources make now; None: it is, or none can say."""
    if _undeclared(kernel, built):
        return None
    config = replace(current(), debug=built.debug, cxxflags=tuple(built.cxxflags))
    try:
        now = kernel.instantiations(**built.given)
        if manifest.values(now) != built.values:
            return f"the declaration now has {_texts(manifest.values(now))}; built was {_texts(built.values)}"
        keys = _jobs(now, built.targets, built.archs, config).keys()
    except DimorphError as error:
        return str(error)
    other = [row for row in built.artifacts if row.key not in keys]
    if other or len(built.artifacts) != len(keys):
        return f"{len(other)} of its {len(built.artifacts)} artifacts are of other sources than those there are now"
    return None


def _undeclared(kernel: Kernel, built: Built) -> list[str]:
    """The variants of a set that the kernel does not declare: from their names alone they cannot be found again."""
    slots = [axis for axis in kernel.axes if axis.kind == "variant"]
    declared = {axis.text(value) for axis in slots for value in axis.values}
    return [text for axis in slots for text in built.values.get(axis.name, ()) if text not in declared]


def _check_artifacts(store: Store, recorded: Manifest) -> Iterator[str]:
    for (key, toolchain_id), row in recorded.rows().items():
        label = f"{row.kernel} {row.kind}{_brackets(row.values)} for {row.target} ({key[:12]})"
        try:
            artifact = store.find(key, toolchain_id)
        except OSError as error:
            yield f"{label}: {error}"
            continue
        if artifact is None:
            yield f"{label}: it is missing or corrupt"
        elif Row.of(artifact) != row:
            yield f"{label}: its description is not what the manifest says"
        elif row.ffi_abi != FFI_ABI:
            yield f"{label}: it was made for {row.ffi_abi}, this is {FFI_ABI}"


def _check_unlisted(store: Store, recorded: Manifest) -> Iterator[str]:
    listed = recorded.rows()
    for item in store.entries():
        if (item.path.parent.name, item.path.name) not in listed:
            yield str(item.error) if isinstance(item, Broken) else f"{item.path}: it is not in the manifest"


def _line(name: str, kernel: Kernel, built: Built) -> str:
    size = sum(row.bytes for row in built.artifacts)
    floor = elf.text(elf.newest([elf.parse(row.glibc) for row in built.artifacts]))
    variants = ", ".join(_undeclared(kernel, built))
    unsure = f" (not compared with the sources: variant {variants} is not declared)" if variants else ""
    return (
        f"{name}{_brackets(built.given)}: {len(built.specializations)} specializations for "
        f"{', '.join(built.targets)}: {len(built.artifacts)} artifacts, {size / 1000:.0f} kB, "
        f"glibc {floor or 'any'}{unsure}"
    )


def _brackets(values: Mapping[str, str | list[str]]) -> str:
    return f" ({_texts(values)})" if values else ""


def _texts(values: Mapping[str, str | list[str]]) -> str:
    return ", ".join(f"{name}={v if isinstance(v, str) else '|'.join(v) or 'chosen'}" for name, v in values.items())
