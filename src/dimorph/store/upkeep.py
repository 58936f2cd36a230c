"""Keep the user's store within its bounds: one sweep a day, by size and by age."""

from __future__ import annotations

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.settings import Settings
from dimorph.store.store import Store

_log = logger("dimorph")

_DAY = 86400.0  # seconds
# Its time says when the store was swept last.
_MARK = "swept"


def sweep_daily(store: Store, settings: Settings) -> None:
    """Remove what killed builds left, artifacts that are too old, and the least recently used beyond the size.

    The first build of a day does it, after its own work. Artifacts that were used within a day stay, whatever the size:
    other builds and loads may be about to open them. A store that cannot be swept costs a line in the log.
    """
    try:
        if not store.is_due(_MARK, _DAY):
            return
        swept = store.sweep()
        days = _lazy.datetime.timedelta
        # The use of an artifact is recorded to the day, so within two days it may be in use.
        removed = store.prune(int(settings.store_size), days(seconds=settings.store_age), days(seconds=2 * _DAY))
    except OSError as error:
        _log.info("%s is not swept: %s", store.root, error)
        return
    freed = sum(usage.size for usage in removed) / 1e6
    _log.info(
        "%s: swept, as once a day: %d artifacts (%.1f MB) and %d directories of killed builds removed",
        store.root,
        len(removed),
        freed,
        swept,
    )
