"""Attention on the CPU, with variants: any user's struct, at full speed, in either form."""

from dimorph.attention.ops import Attention, attention
from dimorph.attention.variants import (
    ALiBi,
    Bias,
    Causal,
    CustomMask,
    DocumentMask,
    FlashSigmoid,
    KeyPadding,
    PackedMask,
    Plain,
    PrefixLM,
    Sinks,
    SoftCap,
    Window,
    additive_bias,
    compose,
)

__all__ = [
    "ALiBi",
    "Attention",
    "Bias",
    "Causal",
    "CustomMask",
    "DocumentMask",
    "FlashSigmoid",
    "KeyPadding",
    "PackedMask",
    "Plain",
    "PrefixLM",
    "Sinks",
    "SoftCap",
    "Window",
    "additive_bias",
    "attention",
    "compose",
]
