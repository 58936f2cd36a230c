"""Variants by name, for where only a name can be passed on, as to the operator of `dimorph.attention.torch`."""

from __future__ import annotations

import dimorph as dm

# Name -> the variants that were registered under it; one that is used must be the only one.
known: dict[str, list[dm.Variant]] = {}


def register_variant(variant: dm.Variant) -> str:
    """Register a variant under its name, and return the name."""
    meanings = known.setdefault(variant.name, [])
    if variant not in meanings:
        meanings.append(variant)
    return variant.name


# As torch.compiler.assume_constant_result does it, but without importing torch: the function runs while it is traced.
register_variant._dynamo_marked_constant = True  # type: ignore[attr-defined]
