"""Plan -> artifact: compiles units side by side and publishes what comes out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dimorph.errors import BuildError
from dimorph.logs import logger
from dimorph.plan.key import FFI_ABI
from dimorph.plan.key_record import NAME as INPUTS_NAME
from dimorph.plan.key_record import Inputs
from dimorph.plan.unit import Level, Unit, system_include_dirs
from dimorph.settings import Settings
from dimorph.source.config_header import header_name
from dimorph.source.include_scan import Scanner
from dimorph.store.artifact import Artifact, DeviceRecord, Meta, timestamp
from dimorph.store.layers import fallback_stores, memo_dir, private_store
from dimorph.store.store import Store
from dimorph.toolchain import cuda, process, ptxas
from dimorph.toolchain.archs import Arch
from dimorph.toolchain.cuda import CudaToolchain
from dimorph.toolchain.diagnostics import Diagnostic, parse_diagnostics
from dimorph.toolchain.host import HostToolchain
from dimorph.toolchain.identity import Identity
from dimorph.toolchain.jobs import parallel_jobs

_log = logger("dimorph")

# done, total, and what is being compiled or was just finished; called from several threads.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One unit to compile for one target level or architecture."""

    unit: Unit
    target: Level


def build(
    jobs: Sequence[Job],
    compilers: Iterable[HostToolchain | CudaToolchain],
    settings: Settings,
    store: Store,
    progress: Progress | None = None,
) -> list[Artifact]:
    """Compiles jobs and publishes them in `store`: host and device code side by side, as cores and memory allow.

    A store that is full or cannot be written costs a warning: the artifacts are then kept in a private temporary
    directory until the process ends.

    Args:
        compilers: one for host code, one for device code, whichever of them the jobs need.

    Returns:
        The artifacts, in the order of `jobs`.

    Raises:
        BuildError: the first failure, after the compiles that were under way have ended.
    """
    results: list[Artifact] = []
    workers = max(1, min(len(jobs), parallel_jobs(settings)))
    with ThreadPoolExecutor(workers, "dimorph-build") as pool, ThreadPoolExecutor(2, "dimorph-identity") as beside:
        # Telling a compiler's identity for the first time means reading all of it, so it goes on beside the compiles.
        running = process.Group()
        means = {
            isinstance(compiler, CudaToolchain): _Means(
                compiler, settings, beside.submit(compiler.identity, memo_dir(store)), running
            )
            for compiler in compilers
        }

        def start(job: Job) -> Artifact:
            if progress:
                progress(len(results), len(jobs), job.unit.label)
            return _build_one(job, means[isinstance(job.target, Arch)], store)

        futures = [pool.submit(start, job) for job in jobs]
        try:
            for job, future in zip(jobs, futures, strict=True):
                results.append(future.result())
                if progress:
                    progress(len(results), len(jobs), job.unit.label)
        except BaseException as error:
            if not isinstance(error, Exception):
                running.end()  # interrupted: nobody waits for what is under way
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


@dataclass(frozen=True)
class _Means:
    """What every job of one build works with that is for the same compiler."""

    toolchain: HostToolchain | CudaToolchain
    settings: Settings
    identity: Future[Identity]
    compilers: process.Group


def _build_one(job: Job, means: _Means, store: Store) -> Artifact:
    key = job.unit.key(job.target, means.settings)
    with _lock(store, key):
        # Another process may have built it while this one waited.
        if _find(store, key, None) and (found := _find(store, key, means.identity.result().id)):
            return found
        try:
            return _build_in(store, job, key, means)
        except OSError as error:
            reason: Exception = error
        except BuildError as error:
            if "No space left on device" not in error.output:
                raise
            reason = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.root))
        place = private_store(store, reason)
        return _build_in(place, job, key, means)


def _build_in(place: Store, job: Job, key: str, means: _Means) -> Artifact:
    with place.work_dir() as work:
        files, output = _compile(job, key, means, work, memo_dir(place))
        identity = means.identity.result()
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
            device=_device_record(job, means, output),
        )
        return place.publish(key, identity.id, files, meta)


def _compile(job: Job, key: str, means: _Means, work: Path, memo: Path) -> tuple[dict[str, Path], str]:
    """Compiles in `work`; the files of the artifact, and what the compiler printed."""
    unit, settings = job.unit, means.settings
    generated, output = work / "generated", work / f"{unit.kind}{_object_suffix(job.target)}"
    generated.mkdir()
    header = generated / header_name(unit.kernel)
    header.write_text(unit.header, "utf-8")
    source = generated / f"{unit.kind}_unit{'.cu' if unit.kind == 'device' else '.cc'}"
    source.write_text(unit.text, "utf-8")
    command, env = _command(job, means, source, output, memo)
    _log.debug("compiling %s: %s", unit.label, " ".join(command))
    try:
        done = process.run(command, timeout=settings.compile_timeout, cwd=work, env=env, group=means.compilers)
    except BuildError as error:
        raise _with_context(error, unit) from error
    if done.exit_code != 0:
        raise _refused(done, unit)
    again = replace(unit, sources=Scanner(unit.include_dirs, {header.name: unit.header}).scan(unit.names))
    if again.key(job.target, settings) != key:
        raise BuildError(
            f"{unit.label}: its sources changed while it was compiled; nothing was kept", context=unit.label
        )
    record = generated / INPUTS_NAME
    record.write_text(Inputs.of(unit, job.target, settings).to_json(), "utf-8")
    return {output.name: output, header.name: header, record.name: record}, done.output


def _command(job: Job, means: _Means, source: Path, output: Path, memo: Path) -> tuple[list[str], dict[str, str]]:
    """The command line of a job, and the environment that it runs in."""
    unit, settings, toolchain, generated = job.unit, means.settings, means.toolchain, source.parent
    include_dirs = (generated, *unit.include_dirs)
    if isinstance(job.target, Arch):
        assert isinstance(toolchain, CudaToolchain)
        command = toolchain.compile_command(
            source, output, arch=job.target, memo_dir=memo, include_dirs=include_dirs, debug=settings.debug
        )
        return command, toolchain.environment(output.parent)
    assert isinstance(toolchain, HostToolchain)
    command = toolchain.compile_command(
        source,
        output,
        target=job.target,
        include_dirs=include_dirs,
        system_include_dirs=system_include_dirs(),
        debug=settings.debug,
        extra_flags=unit.flags(settings),
        prefix_map={generated: ".", **{path: f"/dimorph/{i}" for i, path in enumerate(unit.include_dirs)}},
    )
    return command, toolchain.environment(output.parent, memo)


def _object_suffix(level: Level) -> str:
    return (".ptx" if level.ptx else ".cubin") if isinstance(level, Arch) else ".so"


def _device_record(job: Job, means: _Means, output: str) -> DeviceRecord | None:
    """What is kept of a compile of device code, for people and tests to look at."""
    if not isinstance(job.target, Arch):
        return None
    assert isinstance(means.toolchain, CudaToolchain)
    kernels, messages = ptxas.report(output)
    return DeviceRecord(cuda.describe(means.toolchain.oldest_driver(job.target)), kernels, messages)


def _refused(done: process.Completed, unit: Unit) -> BuildError:
    """The compiler's complaint, its first error in front, once, at its real place."""
    found = parse_diagnostics(done.output)
    errors = [d for d in found if "error" in d.severity]
    first = _place(errors[0]) if errors else "the compiler printed no error"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    message = f"{first}{more}\n  while compiling {unit.label}\n  with {done.command[0]}, exit code {done.exit_code}"
    return BuildError(
        f"{message}\n{done.output.rstrip()}",
        command=done.command,
        exit_code=done.exit_code,
        output=done.output,
        context=unit.label,
    )


def _place(error: Diagnostic) -> str:
    place = f"{error.file}:{error.line}: " if error.line else ""
    return f"{place}{error.severity}: {error.message}"


def _with_context(error: BuildError, unit: Unit) -> BuildError:
    return type(error)(
        f"{unit.label}: {error}",
        command=error.command,
        exit_code=error.exit_code,
        output=error.output,
        context=unit.label,
    )


def _find(store: Store, key: str, toolchain_id: str | None) -> Artifact | None:
    for place in (store, *fallback_stores()):
        try:
            if found := place.find(key, toolchain_id):
                return found
        except OSError as error:  # a place that cannot be read serves nothing; what it would have held is built
            _log.debug("%s: %s", place.root, error)
    return None


@contextmanager
def _lock(store: Store, key: str) -> Iterator[None]:
    """Waits for whoever builds the same; a store where that cannot be arranged builds it twice."""
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
