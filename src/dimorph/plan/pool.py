"""The unit of the thread pool, which all cases in a process share: an entry without cases, built like any other."""

from __future__ import annotations

from pathlib import Path

from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.plan.unit import Unit, entry_unit

POOL = Declaration(
    name="dimorph_pool", entry="pool.cc", case=(), root=Path(__file__).parent.parent / "csrc", origin=Path(__file__)
)


def pool_unit() -> Unit:
    """Plan the thread pool."""
    return entry_unit(instantiate(POOL))
