"""Compile units side by side and publish their artifacts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dimorph._lazy import logger
from dimorph.errors import BuildError
from dimorph.plan.key import FFI_ABI
from dimorph.plan.key_record import NAME as KEY_RECORD
from dimorph.plan.key_record import KeyRecord
from dimorph.plan.unit import Unit, system_include_dirs
from dimorph.resolve.digests import Digests
from dimorph.resolve.read_list import Recorder, stamps_of
from dimorph.resolve.reads import NAME as READS
from dimorph.resolve.reads import find_current, remember
from dimorph.settings import Settings
from dimorph.source.config_header import header_name
from dimorph.source.include_scan import Files
from dimorph.store.artifact import Artifact, DeviceRecord, Meta, timestamp
from dimorph.store.layers import fallback_stores, memo_dir, private_store
from dimorph.store.store import Store
from dimorph.store.upkeep import sweep_daily
from dimorph.toolchain import listing, process
from dimorph.toolchain.compiler import Compiler, Level
from dimorph.toolchain.diagnostics import Diagnostic, parse_diagnostics
from dimorph.toolchain.identity import Identity
from dimorph.toolchain.jobs import parallel_jobs

_log = logger("dimorph")

# Called from several threads with the number of finished jobs, the number of jobs, and the label of the job that has
# just begun or ended.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One unit to compile for one target level or architecture."""

    unit: Unit
    target: Level
    compiler: Compiler


def build(jobs: Sequence[Job], settings: Settings, store: Store, progress: Progress | None = None) -> list[Artifact]:
    """Compile jobs in parallel, as CPUs and memory allow, and publish their artifacts in `store`.

    If the store is full or cannot be written, a warning says so, and the artifacts are kept in a private temporary
    directory until the process ends.

    Returns:
        The artifacts, in the order of `jobs`.

    Raises:
        BuildError: a job failed. Jobs that have begun end first; the others are cancelled.
    """
    done = 0
    workers = max(1, min(len(jobs), parallel_jobs(settings)))
    with ThreadPoolExecutor(workers, "dimorph-build") as pool, ThreadPoolExecutor(2, "dimorph-identity") as beside:
        # The first identification of a compiler hashes all its files, so it runs while the compiles do.
        running, checksums = process.Group(), Digests(memo_dir(store))
        shared = {
            compiler: _Shared(compiler, settings, beside.submit(compiler.identity, memo_dir(store)), running, checksums)
            for compiler in {job.compiler for job in jobs}
        }

        def start(job: Job) -> Artifact:
            if progress:
                progress(done, len(jobs), job.unit.label)
            return _build_one(job, shared[job.compiler], store)

        # Device code takes longest, so it begins first, which matters where there are few CPUs.
        ordered = sorted(jobs, key=lambda job: job.unit.kind != "device")
        futures = {id(job): pool.submit(start, job) for job in ordered}
        try:
            for job in ordered:
                futures[id(job)].result()
                done += 1
                if progress:
                    progress(done, len(jobs), job.unit.label)
        except BaseException as error:
            if not isinstance(error, Exception):
                running.end()  # interrupted, e.g. by Ctrl-C: stop the compilers that still run
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    checksums.save()
    sweep_daily(store, settings)
    return [futures[id(job)].result() for job in jobs]


@dataclass(frozen=True)
class _Shared:
    """State shared by all jobs of one compiler in one build."""

    compiler: Compiler
    settings: Settings
    identity: Future[Identity]
    running: process.Group
    checksums: Digests


def _build_one(job: Job, shared: _Shared, store: Store) -> Artifact:
    key = job.unit.key(job.target, shared.settings)
    with _lock(store, key):
        # Another process may have built it while this one waited.
        if _find(store, key, None, job) and (found := _find(store, key, shared.identity.result().id, job)):
            return found
        try:
            return _build_in(store, job, key, shared)
        except OSError as error:
            reason: Exception = error
        except BuildError as error:
            if "No space left on device" not in error.output:
                raise
            reason = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.root))
        private = private_store(store, reason)
        return _build_in(private, job, key, shared)


def _build_in(store: Store, job: Job, key: str, shared: _Shared) -> Artifact:
    with store.work_dir() as work:
        files, output, recorder = _compile(job, key, shared, work, memo_dir(store))
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
        )
        artifact = store.publish(key, identity.id, files, meta)
        if artifact.meta.created == meta.created:  # otherwise another process was first, whose compile read its own
            remember(artifact, recorder.places, recorder.stamps, memo_dir(store))
        return artifact


def _compile(job: Job, key: str, shared: _Shared, work: Path, memo: Path) -> tuple[dict[str, Path], str, Recorder]:
    """Compile in `work`; return the artifact's files by name, the compiler's output, and what it read."""
    unit, compiler, settings = job.unit, shared.compiler, shared.settings
    generated, output = work / "generated", work / f"{unit.kind}{compiler.suffix(job.target)}"
    generated.mkdir()
    header = generated / header_name(unit.kernel)
    header.write_text(unit.header, "utf-8")
    source = generated / f"{unit.kind}_unit{'.cu' if unit.kind == 'device' else '.cc'}"
    source.write_text(unit.text, "utf-8")
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
    )
    before, began = stamps_of(unit), source.stat().st_ctime_ns
    _log.debug("compiling %s: %s", unit.label, " ".join(command))
    try:
        done = process.run(
            command,
            timeout=settings.compile_timeout,
            cwd=work,
            env=compiler.environment(work, memo),
            group=shared.running,
        )
    except BuildError as error:
        raise _with_context(error, unit) from error
    listed, rest = listing.read(work, done.output)
    done = replace(done, output=rest)
    if done.exit_code != 0:
        raise _refused(done, unit)
    files = Files()
    if unit.rescanned(files).key(job.target, settings) != key or stamps_of(unit) != before:
        raise BuildError(
            f"{unit.label}: its sources changed while it was compiled; nothing was kept", context=unit.label
        )
    recorder = Recorder(unit, compiler, listed, work_dir=work, began=began, checksums=shared.checksums)
    texts = {
        KEY_RECORD: KeyRecord.of(unit, job.target, settings).to_json(),
        READS: recorder.record(files).to_json(),
    }
    for name, text in texts.items():
        (generated / name).write_text(text, "utf-8", "surrogateescape")
    made = {output.name: output, header.name: header, **{name: generated / name for name in texts}}
    return made, done.output, recorder


def _refused(done: process.Completed, unit: Unit) -> BuildError:
    """Return the error for a source that the compiler rejected: its first error first, then the whole output."""
    found = parse_diagnostics(done.output)
    errors = [d for d in found if "error" in d.severity]
    first = _located(errors[0]) if errors else "the compiler printed no error"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    message = f"{first}{more}\n  while compiling {unit.label}\n  with {done.command[0]}, exit code {done.exit_code}"
    return BuildError(
        f"{message}\n{done.output.rstrip()}",
        command=done.command,
        exit_code=done.exit_code,
        output=done.output,
        context=unit.label,
    )


def _located(error: Diagnostic) -> str:
    location = f"{error.file}:{error.line}: " if error.line else ""
    return f"{location}{error.severity}: {error.message}"


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
            _log.debug("%s: %s", one.root, error)
    return None


@contextmanager
def _lock(store: Store, key: str) -> Iterator[None]:
    """Wait while another process builds the same key; go on without a lock in a store that cannot be locked."""
    try:
        manager = store.lock(key)
        manager.__enter__()
    except OSError as error:
        _log.debug("%s: no lock: %s", store.root, error)
        yield
        return
    try:
        yield
    finally:
        manager.__exit__(None, None, None)
