"""From units to artifacts: found, else built, else an error that names what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from dimorph._lazy import logger
from dimorph.errors import ToolchainError
from dimorph.plan.unit import Unit
from dimorph.resolve.levels import compiler, levels
from dimorph.resolve.missing import missing_unit
from dimorph.resolve.search import Resolution, held_for_other_archs, search
from dimorph.settings import Settings
from dimorph.store.layers import user_store

_log = logger("dimorph")


def resolve(units: Sequence[Unit], settings: Settings, policy: str, refusal: str | None = None) -> list[Resolution]:
    """Find or build artifacts for units; those that have to be built are built side by side.

    Args:
        refusal: why nothing may be compiled just now; None: it may.

    Returns:
        The artifacts, in the order of `units`. Device code that is there for one kind of GPU is left out for another.

    Raises:
        MissingSpecialization: one is nowhere and the policy is `aot`, or there is no compiler.
        BuildError: one could not be compiled.
    """
    if policy == "aot":
        refusal = "the policy is aot, which never compiles"
    # The thread pool is packaged with the kernel that needs it, which comes first.
    beside = [unit.kernel.root for unit in units[:1]]
    found = [search(unit, settings, policy, beside) for unit in units]
    missing = [(unit, why) for unit, why in zip(units, found, strict=True) if isinstance(why, list)]
    if missing and refusal:
        served = any(isinstance(r, Resolution) and r.unit.kind == "device" for r in found)
        needed = [(unit, why) for unit, why in missing if not (served and unit.kind == "device")]
        if needed:
            unit, why = needed[0]
            raise missing_unit(unit, refusal, [*why, *held_for_other_archs(unit, settings)])
        missing = []
    built = iter(_built(missing, settings) if missing else ())
    if missing:
        results = [one if isinstance(one, Resolution) else next(built) for one in found]
    else:
        results = [one for one in found if isinstance(one, Resolution)]
    for result in results:
        _log.info("%s", result)
    return results


def _built(missing: Sequence[tuple[Unit, list[str]]], settings: Settings) -> list[Resolution]:
    """Compile missing units; return their resolutions in the same order."""
    # Only a build needs what builds: without it a store hit in a new process is several milliseconds faster.
    from dimorph.resolve.build import Job, build

    jobs = []
    for unit, passed in missing:
        level = levels(unit, settings)[0]
        try:
            used = compiler(unit, settings)
            used.check(level)
        except ToolchainError as error:
            raise missing_unit(unit, str(error), passed) from error
        jobs.append(Job(unit, level, used))
    artifacts = build(jobs, settings, user_store(settings))
    return [
        Resolution(unit, artifact, f"built ({artifact.path})", tuple(passed))
        for (unit, passed), artifact in zip(missing, artifacts, strict=True)
    ]
