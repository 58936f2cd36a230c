"""`attend_shared`: attention of sequences that share a prefix of keys, which is read once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries
from dimorph.attention.cache import KVCache
from dimorph.attention.merging import merge_states
from dimorph.attention.operation import attention
from dimorph.attention.request import bind, shape_of
from dimorph.attention.variants import Causal, Plain, Sinks, SoftCap, TreeMask, compose

# Over the keys of a prefix, a variant is the same; or it is left out, because it acts on the keys of a sequence's own
# alone: all queries see the prefix, and the logit of a sink counts once.
_SAME = (Plain, SoftCap)
_LEFT_OUT = (Causal, TreeMask, Sinks)
_MOST_NODES = 64  # of a tree: variants/tree_mask.h


def attend_shared(
    q: Any,
    prefix: KVCache | Sequence[KVCache],
    cache: KVCache,
    *,
    variant: dm.Variant | dm.BoundVariant = Plain,
    scale: float | None = None,
    cu_seqlens_q: Any = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    out: Any = None,
    return_lse: bool = False,
    lse: Any = None,
) -> Any:
    """Compute attention of sequences whose first keys are the same, and read these once for all.

    The keys of a sequence are those of the prefix and then those of `cache`. The queries of all sequences become one
    sequence over the prefix, then each has its own keys, and `merge_states` joins the two (cascade inference, Ye et al.
    2024, https://flashinfer.ai/2024/02/02/cascade-inference.html). The result is that of `attention` over all keys, up
    to rounding: each part is rounded to the dtype of q before they are joined.

    Args:
        q: queries, [batch, queries, heads, head_dim_qk], or ragged [tokens, heads, head_dim_qk].
        prefix: the shared keys and values, a `KVCache` of one sequence, of any kind; or of as many sequences as there
            are groups of equal size, one after the other in the batch. Several are levels, in the order of their keys:
            `[for all, for each half of the batch]`.
        cache: the keys and values of each sequence's own.
        variant: `Plain`, `Causal`, `TreeMask`, `SoftCap`, `Sinks` or a composition of these. Under `Causal`, every
            query sees the whole prefix: a sequence has as many keys of its own as queries, or one less; under
            `TreeMask`, also as many as nodes. The CPU refuses others; on a GPU, and where torch has to see the call,
            the caller guarantees it.
        scale, cu_seqlens_q, max_seqlen_q: as for `attention`.
        max_seqlen_k: as for `attention`, for the keys in `cache`.
        out: array to write to, as for `attention`. Rows that belong to no sequence become 0. Default: a new array.
        return_lse: also return the log-sum-exp of the logits, with that of all keys.
        lse: array to write the log-sum-exp to, float32. Default: a new array.

    Returns:
        out, or (out, lse).

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it. Other variants look at positions, which
            the split changes, or have no softmax.
        all others: see `attention`.
    """
    bound = bind(variant)
    over_prefix = _over_prefix(bound)
    levels = [prefix] if isinstance(prefix, KVCache) else list(prefix) if isinstance(prefix, Sequence) else [prefix]
    for name, given in [("cache", cache), *(("prefix", level) for level in levels)]:
        if not isinstance(given, KVCache):
            raise TypeError(f"attend_shared: argument {name!r}: expected a KVCache, got {describe(given)}")
    options: dict[str, Any] = {"scale": scale, "return_lse": True}
    own = {"cu_seqlens_q": cu_seqlens_q, "max_seqlen_q": max_seqlen_q, "max_seqlen_k": max_seqlen_k}
    states = [attention(q, cache, variant=bound, **options | own)]
    batch = _sequences(cache)
    library = libraries[type(q)]
    values = library.gpu(q) is None and not library.is_indirect(q, q, q, out)  # the lengths can be read
    parts = bound.variant.parts or (bound.variant,)
    if values and (Causal in parts or TreeMask in parts):
        _check_lengths(q, cache, cu_seqlens_q, _MOST_NODES if TreeMask in parts else 0)
    for level in levels:
        _check_level(level, cache, batch)
        groups = _sequences(level)
        each = batch // groups
        if cu_seqlens_q is None:
            rows, heads, dim = q.shape[1:]
            part, part_lse = attention(
                q.reshape(groups, each * rows, heads, dim), level, variant=over_prefix, **options
            )
            states.append((part.reshape(batch, rows, heads, part.shape[-1]), part_lse.reshape(batch, rows, heads)))
        else:
            starts = cu_seqlens_q[::each] + 0  # offsets are contiguous, and a sum is, in any library
            most = None if max_seqlen_q is None else each * max_seqlen_q
            grouped = {"cu_seqlens_q": starts, "max_seqlen_q": most}
            states.append(attention(q, level, variant=over_prefix, **options | grouped))
    results = merge_states([state[0] for state in states], [state[1] for state in states], out=out, lse=lse)
    return results if return_lse else results[0]


def _over_prefix(bound: dm.BoundVariant) -> dm.BoundVariant:
    """Return what a variant is over the keys of a prefix.

    Raises:
        ValueError: attention over parts of the keys does not give that over all of them.
    """
    kept, args = [], list(bound.args)
    for part in bound.variant.parts or (bound.variant,):
        own, args = args[: len(part.params)], args[len(part.params) :]
        if part in _SAME:
            kept.append(dm.BoundVariant(part, tuple(own)))
        elif part not in _LEFT_OUT:
            known = ", ".join(one.name for one in (*_SAME, *_LEFT_OUT))
            raise ValueError(
                f"attend_shared: argument 'variant': expected some of {known}, which can be computed over the prefix "
                f"and the other keys apart, got {part.name}"
            )
    return kept[0] if len(kept) == 1 else compose(*kept) if kept else Plain()


def _sequences(cache: KVCache) -> int:
    """Return the number of sequences of a cache."""
    offsets = cache.cu_seqlens if cache.cu_seqlens is not None else cache.indptr
    if offsets is not None:
        return int(offsets.shape[0]) - 1
    return int((cache.k if cache.block_table is None else cache.block_table).shape[0])


def _check_level(level: KVCache, cache: KVCache, batch: int) -> None:
    """Check a level of the prefix against the keys of the sequences.

    Raises:
        ValueError: the batch does not fall into as many groups, or heads or head dims differ.
    """
    groups = _sequences(level)
    if groups < 1 or batch < groups or batch % groups:
        raise ValueError(
            f"attend_shared: argument 'prefix': expected a cache of one sequence, or of a number that divides the "
            f"batch, {batch}, got {groups} sequences"
        )
    for name in "kv":
        wanted, given = (_heads_and_dim(getattr(one, name), one.layout) for one in (cache, level))
        if wanted != given:
            raise ValueError(
                f"attend_shared: argument 'prefix.{name}': expected heads and head dim of 'cache.{name}', {wanted}, "
                f"got {given}"
            )


def _heads_and_dim(array: Any, layout: str) -> tuple[int, int]:
    shape = shape_of(array, "k")
    return shape[-3 if layout == "HND" else -2], shape[-1]


def _check_lengths(q: Any, cache: KVCache, cu_seqlens_q: Any, most_nodes: int) -> None:
    """Refuse a sequence whose queries do not all see the whole prefix under a causal mask, or a tree of its last ones.

    Raises:
        ValueError: names the sequence.
    """
    queries = [q.shape[1]] * q.shape[0] if cu_seqlens_q is None else _differences(cu_seqlens_q)
    for b, (count, keys) in enumerate(zip(queries, _lengths(cache), strict=True)):
        least = max(count - 1, min(count, most_nodes))
        if keys < least:
            mask = "TreeMask" if most_nodes else "a causal mask"
            raise ValueError(
                f"attend_shared: argument 'cache': expected {least} or more keys of sequence {b}, as it has "
                f"{count} queries under {mask}, got {keys}"
            )


def _lengths(cache: KVCache) -> list[int]:
    """Return how many keys of each sequence are in use, of arrays on the CPU."""
    if cache.seqlens is not None:
        return [int(length) for length in cache.seqlens]
    if cache.cu_seqlens is not None:
        return _differences(cache.cu_seqlens)
    rows = int(cache.k.shape[-2 if cache.layout == "HND" else -3])
    if cache.indptr is None:
        return [rows] * _sequences(cache)
    used = zip(_differences(cache.indptr), cache.last_page_len, strict=True)
    return [(pages - 1) * rows + int(last) if pages else 0 for pages, last in used]


def _differences(offsets: Any) -> list[int]:
    numbers = [int(offset) for offset in offsets]
    return [end - start for start, end in pairwise(numbers)]
