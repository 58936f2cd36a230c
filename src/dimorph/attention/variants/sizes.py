"""Sizes of a variant's own tensors: what was declared, against the arrays of a call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import dimorph as dm

# Name -> the sizes that it stands for, from the shapes of q and k and, where they are ragged, the batch; None: any.
_NAMED: dict[str, Callable[[Sequence[int], Sequence[int], int | None], tuple[int | None, ...]]] = {
    "batch": lambda q, k, batch: (q[0] if batch is None else batch,),
    "heads": lambda q, k, batch: (q[-2],),
    "kv_heads": lambda q, k, batch: (k[-2],),
    "queries": lambda q, k, batch: (q[1] if batch is None else None,),
    "keys": lambda q, k, batch: (k[1] if batch is None else None,),
    "*queries": lambda q, k, batch: (q[0], q[1]) if batch is None else (None,),
    "*keys": lambda q, k, batch: (k[0], k[1]) if batch is None else (None,),
}


def check_sizes(variant: dm.Variant, args: Sequence[Any], q: Any, k: Any, cu_seqlens_q: Any) -> None:
    """Refuses tensors whose sizes are not those that `dm.tensor(..., shape=...)` names.

    Names: batch, heads, kv_heads; queries, keys; *queries, *keys (what q and k have before their heads: batch and
    length, or tokens where they are ragged). Lengths of ragged sequences may be any, and behind the last of them q and
    k may have more tokens. Behind a name, `|1` admits a size of 1, too. An array of one dimension in place of several
    is flat, row-major: of as many elements, or of any number where another parameter, `..._starts`, says where each
    sequence's begin.

    Args:
        variant: one with parameters that are `sized`.

    Raises:
        ValueError: names the argument, with what was expected and what came.
    """
    batch = None if cu_seqlens_q is None else cu_seqlens_q.shape[0] - 1
    q_shape, k_shape = getattr(q, "shape", ()), getattr(k, "shape", ())
    if not len(q_shape) == len(k_shape) == (4 if batch is None else 3) or len(args) != len(variant.params):
        return  # what is wrong with them is said later
    for index, name in variant.sized:
        given = getattr(args[index], "shape", None)
        if given is None:
            continue
        if name in _NAMED and given == _NAMED[name](q_shape, k_shape, batch):
            continue  # as nearly always, and in a third of the time
        _check(variant, args, index, tuple(given), _expected(name, q_shape, k_shape, batch))


def _check(
    variant: dm.Variant, args: Sequence[Any], index: int, given: tuple[int, ...], expected: Sequence[Sequence[int]]
) -> None:
    param = variant.params[index]
    if len(given) == len(expected):
        fits = all(not allowed or size in allowed for size, allowed in zip(given, expected, strict=True))
    elif len(given) == 1:
        starts = (arg for other, arg in zip(variant.params, args, strict=True) if other.name.endswith("_starts"))
        unknown = not all(expected) or any(arg is not None for arg in starts)
        fits = unknown or any(given[0] == math.prod(sizes) for sizes in itertools.product(*expected))
    else:
        fits = False
    if not fits:
        sizes = ", ".join(" or ".join(map(str, allowed)) or "any" for allowed in expected)
        raise ValueError(
            f"attention: argument '{param.name}': expected shape [{param.shape}], here ({sizes}), got {given}"
        )


def _expected(names: str, q_shape: Sequence[int], k_shape: Sequence[int], batch: int | None) -> list[Sequence[int]]:
    """The sizes that each dimension may have; none: any."""
    found: list[Sequence[int]] = []
    for name in names.split(", "):
        base, or_one, _ = name.partition("|1")
        if base not in _NAMED:
            raise ValueError(f"attention: a tensor's shape: expected names of {', '.join(_NAMED)}, got {name!r}")
        for size in _NAMED[base](q_shape, k_shape, batch):
            found.append(() if size is None else (size, 1) if or_one else (size,))
    return found
