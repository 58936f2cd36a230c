"""The variants of attention: built in, composed, and known by name."""

from dimorph.attention.variants.builtin import *  # noqa: F403 (the list stands beside the declarations)
from dimorph.attention.variants.compose import compose as compose
from dimorph.attention.variants.registry import register_variant as register_variant
