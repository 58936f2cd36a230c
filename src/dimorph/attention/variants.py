"""The built-in variants. A user's own is declared the same way: a struct in a header, and one `dimorph.Variant`."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm

_INCLUDE = Path(__file__).parent / "include"


def _variant(struct: str, header: str, *params: dm.Param) -> dm.Variant:
    name = f"dimorph/attention/variants/{header}"
    return dm.Variant(struct, header=name, struct=f"dm::{struct}", params=params, root=_INCLUDE)


Plain = _variant("Plain", "plain.h")
"""softmax(scale q k^T) v (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762). No parameters."""

Causal = _variant("Causal", "causal.h")
"""Plain, where query i sees the keys j <= i + (keys - queries): aligned bottom-right. No parameters."""

FlashSigmoid = _variant("FlashSigmoid", "flash_sigmoid.h", dm.scalar("scale"), dm.scalar("bias"))
"""sigmoid(scale q k^T + bias) v, not normalised (Ramapuram et al. 2024, https://arxiv.org/abs/2409.04431).

Parameters: scale, bias (the paper advises -ln(number of keys)). `attention`'s own scale does not count here.
"""
