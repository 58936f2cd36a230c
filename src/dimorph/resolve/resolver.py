"""Resolve units to artifacts: search, else build, else raise an error that names what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dimorph._lazy import logger, show_log
from dimorph.errors import BuildError, ToolchainError
from dimorph.plan.unit import Unit
from dimorph.resolve import sealed
from dimorph.resolve.digests import recent
from dimorph.resolve.environment import warn_of_unknown
from dimorph.resolve.levels import compiler, levels
from dimorph.resolve.missing import missing_unit
from dimorph.resolve.search import Resolution, held_for_other_archs, search
from dimorph.settings import Settings
from dimorph.store.artifact import Artifact
from dimorph.store.layers import layers, user_store

if TYPE_CHECKING:
    from dimorph.resolve.build import Job

_log = logger("dimorph")


def resolve(units: Sequence[Unit], settings: Settings, policy: str, refusal: str | None = None) -> list[Resolution]:
    """Find or build the artifacts of units; missing ones are built in parallel.

    Args:
        units: the units of one load, in the order of its plan.
        settings: the stores to search and the compilers to use.
        policy: `auto`, `aot` or `jit`.
        refusal: why nothing may be compiled now; None: compiling is allowed, unless the policy is `aot`.

    Returns:
        The resolutions, in the order of `units`. If nothing may be compiled and device code was found for some of the
        GPUs, the missing device code for the others is left out.

    Raises:
        MissingSpecialization: an artifact is in no store, and may not be compiled or there is no compiler.
        BuildError: an artifact could not be compiled.
    """
    show_log(settings.log)
    warn_of_unknown()
    policy = sealed.policy(policy)
    if policy == "aot":
        refusal = sealed.REASON if sealed.raises() else "the policy is aot, which never compiles"
    recent.forget()
    # The thread pool is packaged beside the kernel that needs it, whose units come first.
    beside = [unit.kernel.root for unit in units[:1]]
    found = [search(unit, settings, policy, beside) for unit in units]
    missing = [(unit, why) for unit, why in zip(units, found, strict=True) if isinstance(why, list)]
    if missing and refusal:
        served = any(isinstance(r, Resolution) and r.unit.kind == "device" for r in found)
        needed = [(unit, why) for unit, why in missing if not (served and unit.kind == "device")]
        if needed:
            sealed.missed([unit.label for unit, _ in needed], compiled=False)
            unit, why = needed[0]
            why = [*why, *held_for_other_archs(unit, settings)]
            raise missing_unit(unit, refusal, [*why, *_near_packaged(unit, settings, beside)])
        missing = []
    if missing:
        sealed.missed([unit.label for unit, _ in missing], compiled=True)
    built = iter(_built(missing, settings, beside) if missing else ())
    if missing:
        results = [one if isinstance(one, Resolution) else next(built) for one in found]
    else:
        results = [one for one in found if isinstance(one, Resolution)]
    for result in results:
        _log.info("%s", result)
    return results


def _near_packaged(unit: Unit, settings: Settings, beside: Sequence[Path]) -> list[str]:
    """Describe packaged and shared artifacts of a unit whose keys differ, e.g. by a source that was edited."""
    from dimorph.resolve.near import near  # here, because only an error needs it and what it imports

    held: dict[Path, list[Artifact]] = {}
    there = [layer for layer in layers(unit.kernel.root, settings, beside, read_only=True) if layer.any_compiler]
    return [line for layer in there for line in near(layer, unit, settings, held)]


def _built(missing: Sequence[tuple[Unit, list[str]]], settings: Settings, beside: Sequence[Path]) -> list[Resolution]:
    """Compile missing units; return their resolutions in the same order."""
    # Imported late: without the modules of a build, a store hit in a new process is several milliseconds faster.
    from dimorph.resolve.build import Job, build

    artifacts = None
    while artifacts is None:
        jobs = []
        for unit, passed in missing:
            level = levels(unit, settings)[0]
            try:
                used = compiler(unit, settings)
                used.check(level)
            except ToolchainError as error:
                lines = [*passed, *_near_packaged(unit, settings, beside)]
                raise missing_unit(unit, str(error), lines, no_compiler=True) from error
            jobs.append(Job(unit, level, used, "; ".join(passed)))
        try:
            artifacts = build(jobs, settings, user_store(settings))
        except BuildError:
            # The build identified its compilers. One that is too old is passed over from now on.
            if all(_is_used(job, settings) for job in jobs):
                raise
    return [
        Resolution(unit, artifact, f"built ({artifact.path})", tuple(passed))
        for (unit, passed), artifact in zip(missing, artifacts, strict=True)
    ]


def _is_used(job: Job, settings: Settings) -> bool:
    """Return True if another attempt would use the same compiler."""
    try:
        return compiler(job.unit, settings) == job.compiler
    except ToolchainError:
        return False
