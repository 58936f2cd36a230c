"""Find an entry that was built ahead of time for more values than a load asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dimorph._lazy import logger
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import ArtifactCorrupt
from dimorph.plan.unit import Unit, case_unit, entry_unit
from dimorph.resolve.search import Resolution, search
from dimorph.settings import Settings
from dimorph.store.data_packages import data_packages
from dimorph.store.layers import PACKAGED, packaged_store, remote_layers, shared_store

_log = logger("dimorph")


def serving_set(
    instantiations: InstantiationSet, settings: Settings, policy: str, *, read_only: bool = False
) -> InstantiationSet:
    """Return the set whose entry serves a load: `instantiations`, or a superset that was built ahead of time.

    A build ahead of time makes one entry for a whole set, because an entry takes as long to compile as a small
    case. That entry also serves loads of one or some of its values.
    """
    kernel = instantiations.kernel
    elsewhere = settings.shared_stores or settings.remote_stores or os.path.lexists(kernel.root / PACKAGED)
    if policy == "jit" or not (policy == "aot" or elsewhere or data_packages(kernel.root)):
        return instantiations

    def there(unit: Unit) -> bool:
        return isinstance(search(unit, settings, policy, read_only=read_only), Resolution)

    if there(entry_unit(instantiations)):
        return instantiations
    if instantiations.specialized and not all(there(case_unit(one)) for one in instantiations if kernel.case):
        return instantiations  # so that the error names the requested values
    for around in _around(instantiations, settings, fetch=not read_only):
        beyond_list = around.only is not None and instantiations.only is None
        if around.values != instantiations.values and not beyond_list and there(entry_unit(around)):
            _log.info("%s: no entry for exactly the requested values; using one for more values", kernel.name)
            return around
    return instantiations


def _around(instantiations: InstantiationSet, settings: Settings, *, fetch: bool) -> Iterator[InstantiationSet]:
    """Yield supersets of a set: first one with the declared values, then those that manifests list.

    With `fetch`, the manifests of remote stores are fetched first.
    """
    from dimorph.store import manifest  # imported late, because few loads read a manifest

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
    packages = [packaged_store(root) for root in (kernel.root, *data_packages(kernel.root))]
    remotes = [layer.store for layer in remote_layers(settings, fetch)] if settings.remote_stores else []
    for store in (*packages, *map(shared_store, settings.shared_stores), *remotes):
        try:
            listed = manifest.sets(store, kernel)
        except (OSError, ArtifactCorrupt) as error:
            _log.info("%s: its manifest is not used: %s", store.root, error)
            continue
        for built in listed:
            if around := manifest.holding(built, instantiations):
                yield around
