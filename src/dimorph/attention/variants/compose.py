"""Several variants as one."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm
from dimorph.attention.variants.registry import register_variant

_INCLUDE = Path(__file__).parents[1] / "include"
COMPOSE = "dimorph/attention/compose.h"


def compose(*variants: dm.Variant | dm.BoundVariant) -> dm.BoundVariant:
    """Several variants as one: `compose(Causal, Window(1024, 0), SoftCap(50.0))`.

    Transforms run in the order given, each on what the one before it left; a key counts where every mask lets it
    count; a tile that one of them rules out is skipped. There is no softmax as soon as one of them is without.

    Raises:
        ValueError: no variants, or two of them have a parameter of the same name.
    """
    bound = [variant if isinstance(variant, dm.BoundVariant) else variant() for variant in variants]
    parts = tuple(inner for one in bound for inner in (one.variant.parts or (one.variant,)))
    return dm.BoundVariant(composition(*parts), tuple(arg for one in bound for arg in one.args))


def composition(*parts: dm.Variant) -> dm.Variant:
    """The variant that `compose` binds; made once, because making one takes as long as computing a small problem."""
    if not parts:
        raise ValueError("compose: expected at least one variant, got none")
    if parts not in _compositions:
        for part in parts:
            register_variant(part)
        _compositions[parts] = dm.Variant(
            "_".join(part.name for part in parts), header=COMPOSE, struct="dm::Compose", root=_INCLUDE, parts=parts
        )
    return _compositions[parts]


_compositions: dict[tuple[dm.Variant, ...], dm.Variant] = {}
# What torch.compiler.assume_constant_result does, without torch: while a caller is traced, this runs as it is.
composition._dynamo_marked_constant = True  # type: ignore[attr-defined]
