"""Compile units side by side and publish their artifacts."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from dimorph._lazy import logger, show_log
from dimorph.errors import BuildError, ToolchainError, no_descriptors
from dimorph.plan.key import FFI_ABI
from dimorph.plan.key_record import NAME as KEY_RECORD
from dimorph.plan.key_record import KeyRecord
from dimorph.plan.unit import Unit, system_include_dirs
from dimorph.resolve import sealed, warned
from dimorph.resolve.before import check
from dimorph.resolve.digests import Digests, kept_in
from dimorph.resolve.environment import warn_of_unknown
from dimorph.resolve.link_list import made as links_of
from dimorph.resolve.missing import advice, missing_unit
from dimorph.resolve.notice import Notice
from dimorph.resolve.read_list import Recorder, prepare, stamps_of, stamps_of_named
from dimorph.resolve.reads import NAME as READS
from dimorph.resolve.reads import find_current, remember
from dimorph.resolve.slots import slot
from dimorph.settings import Settings
from dimorph.source.config_header import header_name
from dimorph.source.include_scan import Files
from dimorph.store import links
from dimorph.store.artifact import Artifact, DeviceRecord, Meta, timestamp
from dimorph.store.layers import fallback_stores, memo_dir, private_store
from dimorph.store.store import Store
from dimorph.store.upkeep import sweep_daily
from dimorph.store.waiting import Waiting, locked_if_possible
from dimorph.toolchain import listing, process, products
from dimorph.toolchain.compiler import Compiler, Level
from dimorph.toolchain.identity import Identity
from dimorph.toolchain.jobs import parallel_jobs
from dimorph.toolchain.variables import variables
from dimorph.toolchain.workers import Later, side_by_side

_log = logger("dimorph")

# Called from several threads with the number of finished jobs, the number of jobs, and the label of the job that has
# just begun or ended.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One unit to compile for one target level or architecture.

    Attributes:
        unit: the unit.
        target: the target level or architecture.
        compiler: the compiler.
        why: why no store serves, for a message about a long build; empty: the build was asked for.
    """

    unit: Unit
    target: Level
    compiler: Compiler
    why: str = ""


class Run(NamedTuple):
    """One run of a compiler.

    Attributes:
        worker: the process that it ran for, as host and number.
        began: the time of its begin, in seconds since the epoch, by the clock of that host.
        seconds: its wall-clock time, without waits for another build and for a free processor.
    """

    worker: str
    began: float
    seconds: float


# Called from several threads with each job that was compiled.
Ran = Callable[[Job, Run], None]


def build(
    jobs: Sequence[Job],
    settings: Settings,
    store: Store,
    progress: Progress | None = None,
    ran: Ran = lambda job, run: None,
    group: process.Group | None = None,
) -> list[Artifact]:
    """Compile jobs in parallel, as CPUs and memory allow, and publish their artifacts in `store`.

    If the store is full or cannot be written, a warning says so, and the artifacts are kept in a private temporary
    directory until the process ends. Without `progress`, a build that takes more than a second logs what it compiles.

    Args:
        jobs: the jobs.
        settings: the settings.
        store: the store.
        progress: see `Progress`.
        ran: see `Ran`.
        group: the group of the compilers, by which another thread can end them; default: one of this build.

    Returns:
        The artifacts, in the order of `jobs`.

    Raises:
        BuildError: a job failed. Jobs that have begun end first; the others are cancelled.
        MissingSpecialization: this process is sealed.
    """
    if sealed.raises():
        raise missing_unit(jobs[0].unit, sealed.REASON, [])
    show_log(settings.log)
    warn_of_unknown()
    # Device code takes longest, so it begins first, which matters where there are few CPUs.
    ordered = sorted(jobs, key=lambda job: job.unit.kind != "device")
    hints = dict.fromkeys(job.compiler.hint(memo_dir(store)) for job in ordered)
    labels, cure = [job.unit.label for job in ordered], cache(partial(advice, ordered[0].unit))
    notice = Notice(labels, ordered[0].why, " ".join(filter(None, hints)), cure, silent=progress is not None)
    running = group or process.Group(notice.tick)
    notice.tick()
    # The first identification of a compiler hashes all its files, so it runs while the compiles do.
    identities = {used: Later(partial(used.identity, memo_dir(store))) for used in {job.compiler for job in ordered}}
    for used in identities:
        Later(partial(prepare, used))
    checksums = kept_in(memo_dir(store))
    lock, done = threading.Lock(), 0

    def one(job: Job) -> Artifact:
        nonlocal done
        if progress:
            progress(done, len(jobs), job.unit.label)
        shared = _Shared(job.compiler, settings, identities[job.compiler], running, checksums, partial(ran, job))
        artifact = _build_one(job, shared, store)
        with lock:
            done += 1
            if progress:
                progress(done, len(jobs), job.unit.label)
        notice.finished()
        return artifact

    try:
        built = side_by_side([partial(one, job) for job in ordered], parallel_jobs(settings), running.end)
    except BuildError:
        # The caller may want to know which compilers failed.
        for identity in identities.values():
            with suppress(ToolchainError):
                identity.result()
        raise
    finally:
        notice.end()
    checksums.save()
    warned.show((job.unit, artifact) for job, artifact in zip(ordered, built, strict=True))
    try:
        store.sweep()  # what killed builds left behind
    except OSError as error:
        _log.info("%s is not swept: %s", store.root, error)
    sweep_daily(store, settings)
    artifacts = {id(job): artifact for job, artifact in zip(ordered, built, strict=True)}
    return [artifacts[id(job)] for job in jobs]


@dataclass(frozen=True)
class _Shared:
    """The state that the jobs of one build and one compiler share, and the function that each run is reported to."""

    compiler: Compiler
    settings: Settings
    identity: Later[Identity]
    running: process.Group
    checksums: Digests
    ran: Callable[[Run], None]

    def tick(self) -> None:
        """Write messages that are due; raise BuildError if the build was interrupted."""
        self.running.tick()
        if self.running.ended:
            raise BuildError("the build was interrupted")


def _build_one(job: Job, shared: _Shared, store: Store) -> Artifact:
    key = job.unit.key(job.target, shared.settings)
    # A build ends within the time limit of a compile, unless its process hangs or was stopped.
    waiting = Waiting(job.unit.label, shared.settings.compile_timeout, shared.tick)
    with locked_if_possible(lambda: store.lock(key, waiting), store.root):  # another process may build the same key
        # Another process may have built it while this one waited.
        if _find(store, key, None, job) and (found := _find(store, key, shared.identity.result().id, job)):
            return found
        try:
            return _build_in(store, job, key, shared)
        except OSError as error:
            if no_descriptors(error):
                raise
            reason: Exception = error
        except BuildError as error:
            if "No space left on device" not in error.output:
                raise
            reason = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.root))
        private = private_store(store, reason)
        return _build_in(private, job, key, shared)


def _build_in(store: Store, job: Job, key: str, shared: _Shared) -> Artifact:
    with store.work_dir() as work:
        files, output, recorder = _compile(job, key, shared, work, store)
        identity = shared.identity.result()
        report = shared.compiler.report(job.target, output)
        meta = Meta(
            key=key,
            toolchain_id=identity.id,
            kind=job.unit.kind,
            kernel=job.unit.kernel.name,
            specialization=dict(job.unit.values),
            target=job.target.name,
            toolchain=identity.description,
            ffi_abi=FFI_ABI,
            created=timestamp(),
            device=DeviceRecord(*report) if report else None,
            warnings=warned.warnings(output, job.unit),
        )
        artifact = store.publish(key, identity.id, files, meta)
        if artifact.meta.created == meta.created:  # otherwise another process was first, whose compile read its own
            remember(artifact, recorder.places, recorder.stamps, memo_dir(store))
        return artifact


def _compile(job: Job, key: str, shared: _Shared, work: Path, store: Store) -> tuple[dict[str, Path], str, Recorder]:
    """Compile in `work`; return the artifact's files by name, the compiler's output, and what it read."""
    unit, compiler, settings, memo = job.unit, shared.compiler, shared.settings, store.toolchain_dir()
    check(unit)
    generated, output = work / "generated", work / f"{unit.kind}{compiler.suffix(job.target)}"
    generated.mkdir()
    header = generated / header_name(unit.kernel)
    header.write_text(unit.header, "utf-8", "surrogateescape")
    source = generated / f"{unit.kind}_unit{'.cu' if unit.kind == 'device' else '.cc'}"
    source.write_text(unit.text, "utf-8", "surrogateescape")
    command = compiler.compile_command(
        source,
        output,
        target=job.target,
        include_dirs=(generated, *unit.include_dirs),
        system_include_dirs=system_include_dirs(),
        prefix_map={generated: ".", **{path: f"/dimorph/{i}" for i, path in enumerate(unit.include_dirs)}},
        debug=settings.debug,
        extra_flags=unit.flags(settings),
        memo_dir=memo,
        listing=True,
        first_tier=unit.first_tier,
    )
    before, began, named = stamps_of(unit), source.stat().st_ctime_ns, stamps_of_named(compiler)
    _log.debug("compiling %s: %s", unit.label, " ".join(command))
    try:
        with slot(store, settings, shared.tick):
            limit, start = settings.compile_timeout, time.time()
            done = compiler.run(command, timeout=limit, work_dir=work, memo_dir=memo, group=shared.running)
    except BuildError as error:
        raise _with_context(error, unit) from error
    shared.ran(Run(f"{os.uname().nodename} {os.getpid()}", start, time.time() - start))
    listed, rest = listing.read(work, done.output)
    done = replace(done, output=rest)
    if done.exit_code != 0:
        from dimorph.resolve.refused import refusal  # here, because few builds need it and what it imports

        raise refusal(done, unit, compiler)
    if fault := products.fault(output, job.target):
        raise BuildError(
            f"{unit.label}: {fault}\n  with {command[0]}, which reported success\n{done.output.rstrip()}",
            command=command,
            exit_code=done.exit_code,
            output=done.output,
            context=unit.label,
        )
    _check_variables(unit, output, source.name)
    files = Files()
    if unit.rescanned(files).key(job.target, settings) != key or stamps_of(unit) != before:
        raise BuildError(
            f"{unit.label}: its sources changed while it was compiled; nothing was kept", context=unit.label
        )
    recorder = Recorder(unit, compiler, listed, work_dir=work, began=began, named=named, checksums=shared.checksums)
    texts = {
        KEY_RECORD: KeyRecord.of(unit, job.target, settings).to_json(),
        READS: recorder.record(files).to_json(),
    }
    installs = {one.name: one.install for one in unit.kernel.dependencies}
    if needed := links_of(output, compiler, listed.linked, installs):
        texts[links.NAME] = links.to_json(needed)
    for name, text in texts.items():
        (generated / name).write_text(text, "utf-8", "surrogateescape")
    copies = {link.file: Path(path) for link, path in needed.items() if link.how == "bundled"}
    made = {**copies, output.name: output, header.name: header, **{name: generated / name for name in texts}}
    return made, done.output, recorder


def _check_variables(unit: Unit, output: Path, source: str) -> None:
    """Refuse an entry with variables if a late build may replace it, with which they would begin anew.

    Raises:
        BuildError: the entry has variables; the message names them.
    """
    open_axes = [axis.name for axis in unit.kernel.axes if axis.is_open]
    if unit.kind == "entry" and open_axes and (names := variables(output, source)):
        raise BuildError(
            f"{unit.label}: expected an entry without variables, got {', '.join(names)} in {unit.kernel.entry} or a "
            f"header of it\n  a value of axis {' or '.join(open_axes)} that is built late brings a new entry, in which "
            "they begin anew\n  keep them in the case, whose variables last as long as the process; make constants "
            "constexpr",
            context=unit.label,
        )


def _with_context(error: BuildError, unit: Unit) -> BuildError:
    return type(error)(
        f"{unit.label}: {error}",
        command=error.command,
        exit_code=error.exit_code,
        output=error.output,
        context=unit.label,
    )


def _find(store: Store, key: str, toolchain_id: str | None, job: Job) -> Artifact | None:
    for one in (store, *fallback_stores()):
        try:
            if toolchain_id is None:
                found = one.find(key)
            else:
                found = find_current(one, key, toolchain_id, job.unit, job.compiler, memo_dir(one))
            if found:
                return found
        except OSError as error:  # a store that cannot be read counts as empty, so the artifact is built
            if no_descriptors(error):
                raise
            _log.debug("%s: %s", one.root, error)
    return None
