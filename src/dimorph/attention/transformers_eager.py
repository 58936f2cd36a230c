"""The way back to the attention of a transformers model itself, for users who ask for it by "dimorph_or_eager"."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from dimorph.attention.transformers_mask import Mask

OR_EAGER = "dimorph_or_eager"

_warned: set[tuple[type, str]] = set()


def warn_once(where: type, reason: str) -> None:
    """Warn that a class of layers or models computes its own attention, once for each reason.

    Messages that differ in what came, such as the shape of a mask, give the same reason.
    """
    key = where, reason.partition(", got ")[0]
    if key not in _warned:
        _warned.add(key)
        warnings.warn(f"{where.__name__}: computes its own attention under {OR_EAGER!r}: {reason}", stacklevel=3)


def own_mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a mask as a layer adds it to its logits: whole, and floating point."""
    if isinstance(mask, Mask):
        return mask.whole()
    if mask is not None and mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    return mask
