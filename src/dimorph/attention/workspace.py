"""The workspace of a call on a GPU, in which thread blocks leave partial results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dimorph.attention.arrays import Library
from dimorph.attention.request import shape_of

# How GPU kernels split keys (csrc/gpu/plan.h): parts of at least 128 keys, at most 64 of them, and no more than fit on
# the multiprocessors at once. On a GPU with more multiprocessors than these, a split may not fit into the workspace.
_KEYS_A_PART, _MOST_PARTS, _MOST_MULTIPROCESSORS = 128, 64, 160


def workspace_size(shape: Sequence[int], head_dim_vo: int, keys: int | None = None) -> int:
    """Return how many float32 elements of workspace a call on a GPU can use.

    A GPU splits keys where its multiprocessors have room for more thread blocks than there are blocks of queries. Each
    part of the keys leaves a row of output with its maximum and its sum, for every query and head.

    Args:
        shape: the shape of q.
        head_dim_vo: the size of the last dimension of v.
        keys: the length of the longest sequence of keys, or more. Default: as long as can be.

    Returns:
        The number of elements; 0: the keys are not split.
    """
    rows = math.prod(shape[:-1])
    room = _MOST_MULTIPROCESSORS * 2 * 128  # two blocks on each, of 128 rows
    if 2 * rows > room:
        return 0
    if keys is not None:
        parts = min(keys // _KEYS_A_PART, _MOST_PARTS)
        room = min(room, rows * parts) if parts > 1 else 0
    return room * (head_dim_vo + 2)


# An array for each call: one that is kept for a stream would be shared with CUDA graphs, which replay on any stream,
# with a stream that gets a destroyed one's handle, and with pools of memory that torch.compile expects to find empty.
def new_workspace(library: Library, q: Any, head_dim_vo: int, keys: int) -> Any:
    """Make a workspace, unless it is clear that keys will not be split. `keys`: as for `workspace_size`."""
    if keys < 2 * _KEYS_A_PART:
        return None
    size = workspace_size(shape_of(q, "q"), head_dim_vo, keys)
    return library.empty_float32(q, size) if size else None
