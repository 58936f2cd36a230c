"""The number of threads that kernels use."""

from __future__ import annotations

import sys
from typing import Any

from dimorph.settings import Settings
from dimorph.toolchain.jobs import processors


def number(settings: Settings) -> int:
    """Return the number of threads of the pool, the caller's included: `settings.num_threads` or its default."""
    if settings.num_threads is not None:
        return settings.num_threads
    torch: Any = sys.modules.get("torch")
    # While another thread imports torch, it lacks functions.
    wanted = torch.get_num_threads() if hasattr(torch, "get_num_threads") else settings.omp_num_threads
    return min(processors(), wanted or processors())
