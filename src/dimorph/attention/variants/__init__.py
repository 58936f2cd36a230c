"""The variants of attention: built in, composed, and known by name."""

from dimorph.attention.variants.builtin import (
    ALiBi,
    Bias,
    BroadcastMask,
    Causal,
    CustomMask,
    DocumentMask,
    FlashSigmoid,
    KeyMask,
    KeyPadding,
    PackedMask,
    Plain,
    PrefixLM,
    Sinks,
    SoftCap,
    Window,
    additive_bias,
    broadcast_mask,
)
from dimorph.attention.variants.compose import compose
from dimorph.attention.variants.registry import register_variant

__all__ = [
    "ALiBi",
    "Bias",
    "BroadcastMask",
    "Causal",
    "CustomMask",
    "DocumentMask",
    "FlashSigmoid",
    "KeyMask",
    "KeyPadding",
    "PackedMask",
    "Plain",
    "PrefixLM",
    "Sinks",
    "SoftCap",
    "Window",
    "additive_bias",
    "broadcast_mask",
    "compose",
    "register_variant",
]
