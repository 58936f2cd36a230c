"""Sizes of a variant's tensors: the declared ones against those of a call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import dimorph as dm

# Name -> the sizes that it stands for. Arguments: the shapes of q and k, and the batch if they are ragged, else None.
# A size of None stands for any size.
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
    """Check that tensors have the sizes that `dm.tensor(..., shape=...)` names.

    The names are batch, heads, kv_heads, queries and keys, and *queries and *keys for the dimensions of q and k before
    their heads: batch and length, or tokens if they are ragged. The length of a ragged sequence matches any size, and q
    and k may have more tokens after the last sequence. `|1` after a name also allows the size 1. One dimension in place
    of several is a flat, row-major array: with the same number of elements, or with any number if another parameter,
    `..._starts`, gives the start of each sequence.

    Args:
        variant: a variant with `sized` parameters.
        args: the values of its parameters.
        q, k, cu_seqlens_q: the arguments of `attention`.

    Raises:
        ValueError: a tensor has another size; the message names it, with what was expected and what came.
    """
    batch = None if cu_seqlens_q is None else cu_seqlens_q.shape[0] - 1
    q_shape, k_shape = getattr(q, "shape", ()), getattr(k, "shape", ())
    if not len(q_shape) == len(k_shape) == (4 if batch is None else 3) or len(args) != len(variant.params):
        return  # the kernel's entry says what is wrong
    for index, name in variant.sized:
        given = getattr(args[index], "shape", None)
        if given is None:
            continue
        if name in _NAMED and given == _NAMED[name](q_shape, k_shape, batch):
            continue  # the usual case, in a third of the time
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
    """Return the sizes that each dimension may have; an empty list allows any."""
    found: list[Sequence[int]] = []
    for name in names.split(", "):
        base, or_one, _ = name.partition("|1")
        if base not in _NAMED:
            raise ValueError(f"attention: a tensor's shape: expected names of {', '.join(_NAMED)}, got {name!r}")
        for size in _NAMED[base](q_shape, k_shape, batch):
            found.append(() if size is None else (size, 1) if or_one else (size,))
    return found
