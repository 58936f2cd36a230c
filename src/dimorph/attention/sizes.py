"""Sizes of a variant's own tensors: what was declared, against the arrays of a call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import dimorph as dm


def check_sizes(variant: dm.Variant, args: Sequence[Any], q: Any, k: Any, cu_seqlens_q: Any) -> None:
    """Refuses tensors whose sizes are not those that `dm.tensor(..., shape=...)` names.

    Names: batch, heads, kv_heads; queries, keys; *queries, *keys (what q and k have before their heads: batch and
    length, or tokens where they are ragged). Lengths of ragged sequences may be any, and behind the last of them q and
    k may have more tokens. Behind a name, `|1` admits a size of 1, too. An array of one dimension in place of several
    is flat, row-major: of as many elements, or of any number where another parameter, `..._starts`, says where each
    sequence's begin.

    Raises:
        ValueError: names the argument, with what was expected and what came.
    """
    if not 3 <= len(getattr(q, "shape", ())) == len(getattr(k, "shape", ())):
        return  # what is wrong with them is said later
    starts = any(
        param.name.endswith("_starts") and arg is not None for param, arg in zip(variant.params, args, strict=False)
    )
    for param, arg in zip(variant.params, args, strict=False):
        given = getattr(arg, "shape", None)
        if param.shape is None or given is None:
            continue
        expected = _expected(param.shape, q.shape, k.shape, cu_seqlens_q)
        flat = len(given) == 1 < len(expected) and (starts or _may_hold(expected, given[0]))
        fits = len(given) == len(expected) and all(
            size in allowed or not allowed for size, allowed in zip(given, expected, strict=True)
        )
        if not (fits or flat):
            sizes = ", ".join(" or ".join(map(str, allowed)) or "any" for allowed in expected)
            names = ", ".join(param.shape)
            raise ValueError(
                f"attention: argument '{param.name}': expected shape [{names}], here ({sizes}), got {tuple(given)}"
            )


def _may_hold(expected: Sequence[tuple[int, ...]], count: int) -> bool:
    """Whether so many elements may be a tensor's."""
    return not all(expected) or any(count == math.prod(sizes) for sizes in itertools.product(*expected))


def _expected(
    names: Sequence[str], q_shape: Sequence[int], k_shape: Sequence[int], cu_seqlens_q: Any
) -> list[tuple[int, ...]]:
    """The sizes that each dimension may have; none: any."""
    ragged = cu_seqlens_q is not None
    known: dict[str, list[tuple[int, ...]]] = {
        "batch": [(cu_seqlens_q.shape[0] - 1 if ragged else q_shape[0],)],
        "heads": [(q_shape[-2],)],
        "kv_heads": [(k_shape[-2],)],
        "queries": [() if ragged else (q_shape[1],)],
        "keys": [() if ragged else (k_shape[1],)],
        "*queries": [()] if ragged else [(size,) for size in q_shape[:-2]],
        "*keys": [()] if ragged else [(size,) for size in k_shape[:-2]],
    }
    found: list[tuple[int, ...]] = []
    for name in names:
        base, or_one, _ = name.partition("|1")
        if base not in known:
            raise ValueError(f"attention: a tensor's shape: expected names of {', '.join(known)}, got {name!r}")
        found += [(*allowed, 1) if or_one and allowed else allowed for allowed in known[base]]
    return found
