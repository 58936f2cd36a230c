"""Masks for transformers' models: to Dimorph a few lengths or bytes, to any other code the mask of "eager"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    eager_mask,
    prepare_padding_mask,
    sdpa_mask,
)

# What a mask answers without being made.
_METADATA = frozenset(
    [Tensor.dim, Tensor.is_floating_point, Tensor.size, Tensor.stride]
    + [getattr(Tensor, name).__get__ for name in ("device", "dtype", "ndim", "shape")]
)


class Mask(Tensor):
    """The mask that transformers makes for "eager", [batch, 1, queries, keys], not made until an operation needs it.

    A model hands a mask to all its layers, and may change it before. Some layers do not call the attention that the
    user chose, but add the mask to logits of their own. For them a mask is what they expect: every operation of torch
    first makes it whole. `attention_forward` reads the attributes instead.

    Attributes:
        causal: the mask is causal, aligned bottom-right, besides `keys`.
        keys: bool [batch, keys], False for padding, or None.
        lengths: if padding is on the right, int32 [batch], the number of keys in each sequence, or None.
        keep: any other mask, bool [batch, 1, queries, keys], True where the query sees the key, or None.
        made: the whole mask, in place of the other attributes, after an operation that may have changed it; or None.
    """

    causal: bool
    keys: Tensor | None
    lengths: Tensor | None
    keep: Tensor | None
    made: Tensor | None
    arguments: dict[str, Any]

    def whole(self) -> Tensor:
        """Return the whole mask, floating point, added to the logits."""
        if self.made is None:
            made = eager_mask(**self.arguments)
            assert made is not None  # `attention_mask` returns None where this does
            self.made = made
        return self.made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _METADATA:
            args, kwargs = _made(args), _made(kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def _made(value: Any) -> Any:
    """Return the arguments of an operation with whole masks."""
    if isinstance(value, Mask):
        return value.whole()
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mask, list, tuple)) for item in value):
        return type(value)([_made(item) for item in value])
    if isinstance(value, dict):
        return {name: _made(item) for name, item in value.items()}
    return value


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    allow_is_bidirectional_skip: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **others: Any,
) -> Mask | None:
    """Make the mask of a forward pass, for all layers, as small as possible.

    Args:
        attention_mask: bool [batch, keys or more], False for padding.
        others: further arguments of `transformers.masking_utils.eager_mask`.

    Returns:
        The mask, or None where `eager_mask` returns None: every query sees every key.
    """
    arguments = others | {
        "batch_size": batch_size,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "mask_function": mask_function,
        "attention_mask": attention_mask,
        "allow_is_bidirectional_skip": False,
        "allow_is_causal_skip": False,
        "dtype": dtype,
        "device": device,
    }
    causal = (
        mask_function is causal_mask_function
        and isinstance(q_offset, int)  # static caches give a tensor, and have keys after the last query
        and q_offset + q_length == kv_offset + kv_length
    )
    keep = keys = lengths = None
    if causal or mask_function is bidirectional_mask_function:
        keys = prepare_padding_mask(attention_mask, kv_length, kv_offset)
        if keys is not None:
            keys = keys[:, kv_offset : kv_offset + kv_length].contiguous()
        # A graph serves other padding than that of the traced call.
        if keys is not None and not torch.compiler.is_compiling():
            lengths = keys.sum(-1, dtype=torch.int32)
            if bool((lengths == kv_length).all()):
                keys = lengths = None
            elif not torch.equal(torch.arange(kv_length, device=keys.device) < lengths[:, None], keys):
                lengths = None
        if not causal and keys is None and allow_is_bidirectional_skip:
            return None
    else:
        keep = sdpa_mask(**arguments)
    shape = batch_size, 1, q_length, kv_length
    mask = torch.zeros((), dtype=dtype, device=device).expand(shape).as_subclass(Mask)
    mask.causal, mask.keys, mask.lengths, mask.keep = causal, keys, lengths, keep
    mask.made, mask.arguments = None, arguments
    return mask
