"""Attention on the CPU, with variants: any user's struct, at full speed, in either form."""

from dimorph.attention.ops import Attention, attention
from dimorph.attention.variants import Causal, FlashSigmoid, Plain

__all__ = ["Attention", "Causal", "FlashSigmoid", "Plain", "attention"]
