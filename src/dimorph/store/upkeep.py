"""Keep the user's store within its limits of size and age: one sweep a day."""

from __future__ import annotations

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.errors import counted
from dimorph.settings import Settings
from dimorph.store.mark import SWEPT
from dimorph.store.store import Store

_log = logger("dimorph")

_DAY = 86400.0  # seconds


def sweep_daily(store: Store, settings: Settings) -> None:
    """Remove files of killed builds, and artifacts that cannot be used, are too old, or exceed the size limit.

    The first build of a day sweeps, after its own work. The least recently used go first; those used within a day stay,
    whatever their size: other builds and loads may be about to open them. If the store cannot be swept, a line is
    logged.
    """
    try:
        if not store.is_due(SWEPT, _DAY):
            return
        from dimorph.store.fetched import kept_stores  # here, because only one build a day needs it

        stores = [store, *kept_stores(store)]
        swept, corrupt = sum(one.sweep() for one in stores), sum(one.remove_corrupt() for one in stores)
        days = _lazy.datetime.timedelta
        size, oldest = int(settings.store_size), days(seconds=settings.store_age)
        # A use is recorded at most once a day: if the record is two days old, the last use may be one day old.
        removed = [usage for one in stores for usage in one.prune(size, oldest, days(seconds=2 * _DAY))]
    except OSError as error:
        _log.info("%s is not swept: %s", store.root, error)
        return
    freed = sum(usage.size for usage in removed) / 1e6
    _log.info(
        "%s: swept, as once a day: %s (%.1f MB), %d that could not be used and %s of killed builds removed",
        store.root,
        counted(len(removed), "artifact"),
        freed,
        corrupt,
        counted(swept, "directory", "directories"),
    )
