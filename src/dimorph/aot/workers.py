"""Build units on any `concurrent.futures.Executor`: threads, processes, Dask, Ray, MPI.

A worker gets the sources by content and builds as this process would: with its own compiler and settings, by way of its
own store. The result comes back by content too and is published in the store of this process at once, so an
interrupted build loses nothing that was finished.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TypeVar

from dimorph._lazy import logger
from dimorph.aot.needs import Need
from dimorph.errors import ArtifactCorrupt, BuildError, DimorphError, ToolchainError, no_descriptors
from dimorph.resolve import warned
from dimorph.resolve.build import Job, Progress, Run
from dimorph.resolve.build import build as build_here
from dimorph.resolve.levels import compiler
from dimorph.resolve.parcel import Packer, Parcel
from dimorph.settings import Settings, current
from dimorph.store.artifact import Artifact, Meta
from dimorph.store.layers import memo_dir, private_store, user_store
from dimorph.store.store import Store
from dimorph.toolchain.process import Group

_log = logger("dimorph")
# The number of times that a job is given to an executor which loses it, and that an executor is made anew without a
# result between.
_TRIES = 3

_Result = TypeVar("_Result")
# Key -> the compilers that run for an executor in this process, which end with the build.
_groups: dict[str, Group] = {}


@dataclass(frozen=True)
class Made:
    """An artifact as a worker returns it: `meta.json`, the files by name, and the run; None: it was in its store."""

    meta: str
    files: Mapping[str, bytes]
    run: Run | None


def make(parcel: Parcel) -> Made:
    """Build a parcel; called in a worker.

    Raises:
        BuildError, ToolchainError, DeclarationError: as for a build here; paths are those of the sender.
    """
    runs: list[Run] = []
    group = _groups[parcel.key] = Group()
    with tempfile.TemporaryDirectory(prefix="dimorph-") as scratch:
        tree = os.path.realpath(scratch)
        try:
            settings = parcel.settings(current())
            unit = parcel.unpack(tree, settings)
            job = Job(unit, parcel.target, compiler(unit, settings, identify=True))
            store = user_store(settings)
            (built,) = build_here([job], settings, store, _silent, lambda _, run: runs.append(run), group)
            files = {name: (built.path / name).read_bytes() for name in built.meta.files}
        except DimorphError as error:
            raise _of_sender(error, tree) from None
        finally:
            _groups.pop(parcel.key, None)
    meta = replace(built.meta, warnings=tuple(text.replace(tree, "") for text in built.meta.warnings))
    return Made(meta.to_json(), files, runs[0] if runs else None)


def identify(parcel: Parcel) -> str:
    """Return the identity of the compiler that a worker uses for a kind of unit; called in a worker."""
    settings = parcel.settings(current())
    unit = parcel.unit_in("/nonexistent")
    return compiler(unit, settings, identify=True).identity(memo_dir(user_store(settings))).id


def _silent(done: int, total: int, label: str) -> None:
    """Show no progress: the process that waits for the result does."""


def _of_sender(error: DimorphError, tree: str) -> DimorphError:
    """Return an error with the paths that the sender knows."""
    error.args = tuple(text.replace(tree, "") if isinstance(text, str) else text for text in error.args)
    if isinstance(error, BuildError):
        error.command = [word.replace(tree, "") for word in error.command]
        error.output = error.output.replace(tree, "")
    return error


class Workers:
    """An executor, and how to make it anew when it breaks.

    Args:
        given: an executor, which stays as it is; or a function without arguments that makes one, which is shut down at
            the end and made anew when a worker's death breaks it.
    """

    def __init__(self, given: Executor | Callable[[], Executor]) -> None:
        self._again = None if isinstance(given, Executor) else given
        self._executor = given if isinstance(given, Executor) else _made_by(given)

    def identities(self, needs: Sequence[Need], settings: Settings) -> list[str]:
        """Return the identities of the compilers that a worker uses for units, in their order.

        Raises:
            ToolchainError: a worker has no compiler.
        """
        packer = Packer(settings)
        kinds = [(need.unit.kind == "device", need.unit.kernel.dependencies) for need in needs]
        examples = dict(zip(kinds, needs, strict=True))
        with closing(self._run(identify, packer, list(examples.values()))) as results:
            found = {list(examples)[number]: identity for number, identity in results}
        return [found[kind] for kind in kinds]

    def build(
        self,
        needs: Sequence[Need],
        settings: Settings,
        store: Store,
        progress: Progress | None = None,
        ran: Callable[[Need, Run | None], None] = lambda need, run: None,
    ) -> list[Artifact]:
        """Build units on the workers and publish their artifacts in `store` as they arrive.

        Jobs that an executor loses, because a worker died, are given to it again.

        Args:
            needs: the units, with their targets.
            settings: the settings.
            store: the store.
            progress: see `Progress`.
            ran: called with each unit that arrived, and the run of its compiler; None: the worker's store had it.

        Returns:
            The artifacts, in the order of `needs`.

        Raises:
            BuildError: a unit could not be compiled, or the executor lost it several times. Those that are compiled
                then are waited for and kept; the others are cancelled.
        """
        # Device code takes longest, so it begins first.
        order = sorted(range(len(needs)), key=lambda index: needs[index].unit.kind != "device")
        found: dict[int, Artifact] = {}
        if progress:
            progress(0, len(needs), needs[order[0]].unit.label)
        with closing(self._run(make, Packer(settings), [needs[index] for index in order])) as results:
            for number, made in results:
                need = needs[order[number]]
                found[order[number]] = _kept(made, need.unit.key(need.target, settings), store)
                ran(need, made.run)
                if progress:
                    progress(len(found), len(needs), need.unit.label)
        built = [found[index] for index in range(len(needs))]
        warned.show((need.unit, artifact) for need, artifact in zip(needs, built, strict=True))
        return built

    def close(self) -> None:
        """Shut down an executor that was made here, without waiting for jobs that were given up."""
        if self._again is not None:
            self._executor.shutdown(wait=False)

    def _run(
        self, function: Callable[[Parcel], _Result], packer: Packer, needs: Sequence[Need]
    ) -> Generator[tuple[int, _Result], None, None]:
        """Yield the position of each unit and the function's result for its parcel, as they arrive.

        Raises:
            Exception: the first error of a unit, after the results of those that had begun.
        """
        waiting = deque(range(len(needs)))
        running: dict[Future[_Result], tuple[int, str]] = {}
        arrived: SimpleQueue[Future[_Result]] = SimpleQueue()
        cancelled: Counter[int] = Counter()
        error: Exception | None = None
        broken = 0
        try:
            while waiting or running:
                while waiting:
                    parcel = packer.pack(*needs[waiting[0]])
                    try:
                        future = self._executor.submit(function, parcel)
                    except BrokenExecutor as failure:
                        broken += 1
                        self._renew(failure, broken)
                        continue
                    running[future] = waiting.popleft(), parcel.key
                    future.add_done_callback(arrived.put)
                future = arrived.get()
                position, _ = running.pop(future)
                try:
                    result = future.result()
                except (BrokenExecutor, CancelledError) as failure:
                    if error is not None:
                        continue
                    cancelled[position] += isinstance(failure, CancelledError)
                    if cancelled[position] < _TRIES:
                        waiting.append(position)
                        continue
                    error = BuildError(f"{needs[position].unit.label}: the executor cancelled it {_TRIES} times")
                except Exception as failure:
                    if error is not None:
                        continue
                    error = _told(failure, needs[position].unit.label)
                else:
                    broken = 0
                    yield position, result
                    continue
                waiting.clear()
                _cancel(running)
        except BaseException:
            # Interrupted, or the caller cannot keep a result: what has begun is given up, too.
            _cancel(running)
            for group in [_groups[key] for _, key in running.values() if key in _groups]:
                group.end()
            raise
        if error is not None:
            raise error

    def _renew(self, failure: BrokenExecutor, times: int) -> None:
        name = type(self._executor).__name__
        if self._again is None:
            raise BuildError(
                f"{name} is broken, as a worker died: {failure}\n  name a function that makes the executor, and it is "
                "made anew; what was compiled is kept"
            ) from failure
        if times > _TRIES:
            raise BuildError(f"{name} broke {times} times in a row, as a worker died: {failure}") from failure
        _log.warning("dimorph: %s is made anew, as a worker died: %s", name, failure)
        self._executor.shutdown(wait=False)
        self._executor = _made_by(self._again)


@contextmanager
def workers(given: Workers | Executor | Callable[[], Executor]) -> Iterator[Workers]:
    """Yield workers, and close those that were not given as such."""
    if isinstance(given, Workers):
        yield given
        return
    made = Workers(given)
    try:
        yield made
    finally:
        made.close()


def _cancel(futures: Iterable[Future[_Result]]) -> None:
    for future in list(futures):
        future.cancel()


def _made_by(factory: Callable[[], Executor]) -> Executor:
    made = factory() if callable(factory) else factory
    if not isinstance(made, Executor):
        raise ToolchainError(
            "executor: expected a concurrent.futures.Executor, or a function without arguments that returns one, got "
            f"{made!r}"
        )
    return made


def _told(error: Exception, label: str) -> Exception:
    """Return the error of a job; one that is none of Dimorph's does not say which job it was."""
    if isinstance(error, DimorphError):
        return error
    told = BuildError(f"{label}: its worker failed: {type(error).__name__}: {error}", context=label)
    told.__cause__ = error
    return told


def _kept(made: Made, key: str, store: Store) -> Artifact:
    """Publish what a worker made; return the artifact.

    Raises:
        ToolchainError: the worker returned something else.
    """
    try:
        meta = Meta.from_json(made.meta, "the worker's meta.json")
        if meta.key != key or made.files.keys() != meta.files.keys():
            raise ArtifactCorrupt(f"expected the artifact {key}, got {meta.key} with {', '.join(made.files)}")
        try:
            # A worker on this machine may have the same store.
            if found := store.find(key, meta.toolchain_id):
                return found
            return _published(made, meta, store)
        except OSError as error:
            if no_descriptors(error):
                raise
            return _published(made, meta, private_store(store, error))
    except ArtifactCorrupt as error:
        raise ToolchainError(f"a worker returned a wrong result: {error}") from error


def _published(made: Made, meta: Meta, store: Store) -> Artifact:
    with store.work_dir() as work:
        for name, content in made.files.items():
            (work / name).write_bytes(content)
        return store.publish(meta.key, meta.toolchain_id, {name: work / name for name in made.files}, meta)
