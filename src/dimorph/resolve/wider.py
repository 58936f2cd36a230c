"""A wider set whose entry, built ahead of time, serves a load of some of its values."""

from __future__ import annotations

from collections.abc import Iterator

from dimorph._lazy import logger
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import ArtifactCorrupt
from dimorph.plan.unit import Unit, case_unit, entry_unit
from dimorph.resolve.search import Resolution, search
from dimorph.settings import Settings
from dimorph.store.layers import PACKAGED

_log = logger("dimorph")


def serving_set(instantiations: InstantiationSet, settings: Settings, policy: str) -> InstantiationSet:
    """Return the set whose entry serves a load: `instantiations`, or one around it that was built ahead of time.

    A build ahead of time makes one entry for a whole set, because an entry takes as long to compile as a small
    case. The entry for all values then serves a load of some or one of them.
    """
    kernel = instantiations.kernel
    if policy == "jit" or not (policy == "aot" or settings.shared_stores or (kernel.root / PACKAGED).is_dir()):
        return instantiations

    def there(unit: Unit) -> bool:
        return isinstance(search(unit, settings, policy), Resolution)

    if there(entry_unit(instantiations)):
        return instantiations
    if instantiations.specialized and not all(there(case_unit(one)) for one in instantiations if kernel.case):
        return instantiations  # its error then names what was asked for
    for around in _around(instantiations, settings):
        beyond_list = around.only is not None and instantiations.only is None
        if around.values != instantiations.values and not beyond_list and there(entry_unit(around)):
            _log.info("%s: no entry has just the values asked for; one that has others too serves", kernel.name)
            return around
    return instantiations


def _around(instantiations: InstantiationSet, settings: Settings) -> Iterator[InstantiationSet]:
    """Yield sets that hold another: that of the declared values, then those that manifests tell of."""
    from dimorph.store import manifest  # few loads read one, and an import of this package none

    kernel = instantiations.kernel
    declared = instantiate(kernel).values
    yield instantiate(
        kernel,
        {
            axis.name: [*now]
            for (axis, now), values in zip(instantiations.pairs(), declared, strict=True)
            if not set(now) <= set(values)
        },
    )
    for root in (kernel.root / PACKAGED, *settings.shared_stores):
        try:
            record = manifest.read(root).kernels.get(manifest.identity(kernel))
        except (OSError, ArtifactCorrupt) as error:
            _log.info("%s: its manifest is not used: %s", root, error)
            continue
        for built in record.built if record else ():
            if around := manifest.holding(built, instantiations):
                yield around
