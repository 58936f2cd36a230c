"""Several variants as one."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm
from dimorph.attention.variants.registry import register_variant

_INCLUDE = Path(__file__).parents[1] / "include"
COMPOSE = "dimorph/attention/compose.h"


def compose(*variants: dm.Variant | dm.BoundVariant) -> dm.BoundVariant:
    """Make one variant of several: `compose(Causal, Window(1024, 0), SoftCap(50.0))`.

    Transforms run in the given order, each on the result of the one before. A query sees a key if every mask allows it;
    a tile of keys is skipped if one variant skips it. The composition has no softmax if one of the variants has none.

    A parameter of a name that several variants use gets the name of its variant: the `bias` of `FlashSigmoid` beside
    that of `additive_bias` is `FlashSigmoid_bias`, and in a second `SoftCap` soft_cap is `SoftCap2_soft_cap`.

    Raises:
        ValueError: there are no variants.
    """
    bound = [variant if isinstance(variant, dm.BoundVariant) else variant() for variant in variants]
    parts = tuple(inner for one in bound for inner in (one.variant.parts or (one.variant,)))
    return dm.BoundVariant(composition(*parts), tuple(arg for one in bound for arg in one.args))


def composition(*parts: dm.Variant) -> dm.Variant:
    """Return the variant that `compose` binds.

    It is kept, because making one takes as long as computing a small problem.
    """
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
# As torch.compiler.assume_constant_result does it, but without importing torch: the function runs while it is traced.
composition._dynamo_marked_constant = True  # type: ignore[attr-defined]
