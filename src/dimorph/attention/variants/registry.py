"""Variants known by name."""

from __future__ import annotations

import dimorph as dm

# What a name may mean where only a name can be passed on, as to the operator in `dimorph.attention.torch`.
known: dict[str, list[dm.Variant]] = {}


def register_variant(variant: dm.Variant) -> str:
    """Makes a variant known by its name, which is returned."""
    meanings = known.setdefault(variant.name, [])
    if variant not in meanings:
        meanings.append(variant)
    return variant.name


# What torch.compiler.assume_constant_result does, without torch: while a caller is traced, this runs as it is.
register_variant._dynamo_marked_constant = True  # type: ignore[attr-defined]
