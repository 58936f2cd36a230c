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


def plan_size(
    shape: Sequence[int],
    kv_heads: int,
    head_dim_vo: int,
    *,
    sequences: int | None = None,
    max_seqlen_q: int | None = None,
    batch_invariant: bool = False,
) -> int:
    """Return how many float32 elements of workspace a call with a `KVCache` on a GPU can use.

    They hold the schedule and the partial results of queries whose keys are split, whatever the lengths of sequences.

    Args:
        shape: the shape of q.
        kv_heads: heads of k and v.
        head_dim_vo: the size of the last dimension of v.
        sequences: for ragged queries, how many sequences there are.
        max_seqlen_q: for ragged queries, the length of the longest sequence, or more. Default: all of them.
        batch_invariant: as in the call.

    Raises:
        ValueError: ragged queries without `sequences`, or no heads.
    """
    if kv_heads < 1:
        raise ValueError(f"plan_size: argument 'kv_heads': expected 1 or more, got {kv_heads}")
    if len(shape) == 4:
        sequences, most = shape[:2]
    elif sequences is None:
        raise ValueError("plan_size: argument 'sequences': expected their number, as queries are ragged, got None")
    else:
        most = shape[0] if max_seqlen_q is None else min(max_seqlen_q, shape[0])
    group = shape[-2] // kv_heads
    tokens = math.prod(shape[:-2])
    # csrc/gpu/schedule_size.h, for tiles of 64 to 192 rows.
    units = min(sequences * -(-most * group // 64), sequences + tokens * group // 64)
    waves = 1 if fits_small_tile(most, group) and head_dim_vo <= 128 else 32
    rows = 2 * min(most * group, 192)
    if batch_invariant:  # more parts of the keys have a result at once, and each is a unit
        rows = min(8 * rows, 2 * 192)
        units += 16 * _MOST_MULTIPROCESSORS
    schedule = 12 * waves * (_MOST_MULTIPROCESSORS + 1) + 4 * units + 2 * (units + 1) + _MOST_MULTIPROCESSORS + 4
    if batch_invariant:
        schedule += 2 * units + 2 * 16 * _MOST_MULTIPROCESSORS + 4
    partial = _MOST_MULTIPROCESSORS * rows * (head_dim_vo + 2)
    return max(schedule + partial, workspace_size(shape, head_dim_vo))


def fits_small_tile(queries: int, group: int) -> bool:
    """Tell whether the sm90 family computes so many queries, of the `group` heads with one KV head, in one small tile.

    The small tile of csrc/sm90/config.h has 64 rows and the others 192. Heads share one if it holds a whole number of
    queries of all of them; if not, each reads the keys by itself.
    """
    group = max(group, 1)  # fewer heads of queries than of keys are refused later
    return queries * group <= 64 and (64 % group == 0 or 192 % group != 0)


# An array for each call: one that is kept for a stream would be shared with CUDA graphs, which replay on any stream,
# with a stream that gets a destroyed one's handle, and with pools of memory that torch.compile expects to find empty.
def new_workspace(library: Library, q: Any, head_dim_vo: int, keys: int) -> Any:
    """Make a workspace, unless it is clear that keys will not be split. `keys`: as for `workspace_size`."""
    if keys < 2 * _KEYS_A_PART:
        return None
    size = workspace_size(shape_of(q, "q"), head_dim_vo, keys)
    return library.empty_float32(q, size) if size else None
