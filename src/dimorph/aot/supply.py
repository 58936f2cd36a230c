"""Get the artifacts of a build ahead of time: from its directory, from the user's store, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dimorph._lazy import logger
from dimorph.aot.changes import Earlier
from dimorph.aot.needs import Need
from dimorph.aot.workers import Workers
from dimorph.errors import ToolchainError, no_descriptors
from dimorph.resolve.build import Job, Progress, Run
from dimorph.resolve.build import build as build_jobs
from dimorph.resolve.levels import compiler
from dimorph.resolve.reads import find_current
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.store.layers import memo_dir, user_store
from dimorph.store.store import Store
from dimorph.toolchain.compiler import Compiler

_log = logger("dimorph")


@dataclass(frozen=True)
class Step:
    """How a build got one artifact.

    Attributes:
        artifact: the artifact, in the directory.
        origin: `compiled`; or where it was found: `directory`, `store` (the user's), `worker` (a worker's store), or
            `other` (another process compiled it meanwhile).
        run: the run of its compiler; None: it was not compiled.
        why: lines that say why what the directory and the user's store held did not serve; none where they served.
    """

    artifact: Artifact
    origin: str
    run: Run | None
    why: tuple[str, ...]


class Wanted(NamedTuple):
    """A unit to build.

    Attributes:
        need: the unit with its target.
        toolchain_id: the identity of the compiler that is to make it.
        compiler: that compiler on this machine; None: only workers have it.
    """

    need: Need
    toolchain_id: str
    compiler: Compiler | None


def wanted(needed: dict[str, Need], farm: Workers | None, settings: Settings) -> dict[str, Wanted]:
    """Find the compiler of each unit: of this machine, or of the workers.

    Raises:
        ToolchainError: there is none.
    """
    memo = memo_dir(user_store(settings))
    if farm is None:
        compilers = {key: compiler(need.unit, settings, identify=True) for key, need in needed.items()}
        known = {used: used.identity(memo).id for used in set(compilers.values())}
        return {key: Wanted(need, known[compilers[key]], compilers[key]) for key, need in needed.items()}
    theirs = farm.identities(list(needed.values()), settings)
    found = {}
    for (key, need), identity in zip(needed.items(), theirs, strict=True):
        try:
            own: Compiler | None = compiler(need.unit, settings, identify=True)
        except ToolchainError:  # workers have one
            own = None
        found[key] = Wanted(need, identity, own if own and own.identity(memo).id == identity else None)
    return found


@dataclass
class Supply:
    """The artifacts of a build as they are found or compiled, and how.

    Attributes:
        jobs: key -> the unit.
        settings: the settings.
        farm: the workers; None: this process compiles.
        progress: see `Progress`.
        found: key -> the artifact, in whatever store it is.
        compiled: the number of units that were in no store.
    """

    jobs: Mapping[str, Wanted]
    settings: Settings
    farm: Workers | None
    progress: Progress | None
    found: dict[str, Artifact] = field(default_factory=dict)
    compiled: int = 0
    _origins: dict[str, str] = field(default_factory=dict)
    _runs: dict[str, Run | None] = field(default_factory=dict)
    _why: dict[str, list[str]] = field(default_factory=dict)

    def search(self, store: Store, origin: str, memo: Path | None) -> None:
        """Search a store for everything that was not found yet."""
        for key in [key for key in self.jobs if key not in self.found]:
            told: list[str] = []
            if artifact := _current(store, key, self.jobs[key], memo, told.append):
                self.found[key], self._origins[key] = artifact, origin
            self._why.setdefault(key, []).extend(f"{store.root}: {why}" for why in told)

    def provide(self, earlier: Earlier) -> None:
        """Find the rest in the user's store, or compile it into that.

        Compiles go through the user's store because it caches the identity of the compiler and the C++ library of zig,
        and because the next build after a failed one finds there what was already compiled.
        """
        own = user_store(self.settings)
        try:
            self.search(own, "store", memo_dir(own))
        except OSError as error:  # a store that cannot be read counts as empty
            if no_descriptors(error):
                raise
            _log.info("%s is not used: %s", own.root, error)
        missing = {key: job for key, job in self.jobs.items() if key not in self.found}
        if not missing:
            return
        for key, job in missing.items():
            self._why[key] = self._why.get(key) or earlier.why(*job.need, key, self.settings)
        self.compiled = len(missing)
        self.found |= dict(zip(missing, self._compile(list(missing.values()), own), strict=True))
        for key, job in missing.items():
            self._origins[key] = "compiled" if self._runs.get(key) else "worker" if self.farm else "other"
            if self.found[key].meta.toolchain_id != job.toolchain_id:
                message = "dimorph: %s: workers have several compilers, this one %s; the next build compiles it again"
                _log.warning(message, job.need.unit.label, self.found[key].meta.toolchain)

    def _compile(self, jobs: Sequence[Wanted], store: Store) -> list[Artifact]:
        if self.farm:
            needed = [job.need for job in jobs]
            return self.farm.build(needed, self.settings, store, self.progress, self._ran)
        here = [Job(*job.need, job.compiler) for job in jobs if job.compiler]
        return build_jobs(here, self.settings, store, self.progress, self._ran)

    def _ran(self, job: Job | Need, run: Run | None) -> None:
        self._runs[job.unit.key(job.target, self.settings)] = run

    def step(self, key: str, artifact: Artifact) -> Step:
        """Return how an artifact was got, with the artifact as it is in the directory."""
        why = () if self._origins[key] in ("directory", "store") else self._why[key]
        return Step(artifact, self._origins[key], self._runs.get(key), tuple(why))


def _current(store: Store, key: str, job: Wanted, memo: Path | None, tell: Callable[[str], None]) -> Artifact | None:
    unit = job.need.unit
    if job.compiler is None:  # the files that its compile read are on another machine
        artifact = store.find(key, job.toolchain_id)
    else:
        # The directory is packaged, so it holds nothing that differs between machines.
        artifact = find_current(store, key, job.toolchain_id, unit, job.compiler, memo, keep=False, tell=tell)
    if artifact:
        _log.info("%s: from %s, %s", unit.label, store.root, artifact.meta.target)
    return artifact
