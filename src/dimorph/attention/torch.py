"""Attention for torch: a function with the arguments of torch's own, and the operator `dimorph::attention`.

Under `torch.compile` and `torch.export`, a call of `dimorph.attention.attention` becomes the operator. Importing this
module also defines it, and the operators over caches, for direct calls and for exported programs that are loaded in
another process; they find the built-in variants by name, and your own after `register_variant`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import dimorph as dm
from dimorph import attention as library
from dimorph.attention import appending, merging, operation
from dimorph.attention.arrays import describe
from dimorph.attention.variants import register_variant

__all__ = ["register_variant", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute `torch.nn.functional.scaled_dot_product_attention` with `dimorph.attention.attention`.

    Tensors have 2 dimensions or more, of which those before the last two are broadcast: heads, and before them batches.
    Under autocast, tensors are cast as torch casts them. Nested tensors of the jagged layout, [batch, heads, seq,
    head_dim] with a seq for each sequence, are taken as they are, and the result is one.

    Copies only tensors whose last dimension is not contiguous, several batch dimensions that no view can join, and
    masks that are not row-major in float32 or bool. Tensors and masks that sequences or heads share are not expanded,
    nor is a bool mask that queries share.

    Args:
        query: [..., heads, queries, head_dim_qk]; dtypes and head dims as for `attention`.
        key: [..., heads, keys, head_dim_qk].
        value: [..., heads, keys, head_dim_vo].
        attn_mask: broadcastable to [..., heads, queries, keys]; bool, True where the query sees the key, or floating
            point, added to the logits in float32.
        dropout_p: must be 0.
        is_causal: query i sees the keys j <= i. This mask is aligned top-left, as torch defines it; `Causal` is aligned
            bottom-right.
        scale: factor of the logits; default: 1/sqrt(head_dim_qk).
        enable_gqa: allow key and value to have fewer heads than query, whose number is a multiple of theirs.

    Returns:
        [..., heads, queries, head_dim_vo], a view of a contiguous [batch, queries, heads, head_dim_vo]. A query that
        sees no key has output 0.

    Raises:
        TypeError, ValueError: an argument does not fit; see `attention` too.
        NotImplementedError: dropout_p is not 0, or nested tensors have a mask or are causal with other lengths.
    """
    function = "scaled_dot_product_attention"
    if dropout_p != 0.0:
        raise NotImplementedError(f"{function}: argument 'dropout_p': expected 0, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise ValueError(f"{function}: arguments 'attn_mask' and 'is_causal': expected one of them, got both")
    _check_kinds(function, {"query": query, "key": key, "value": value, "attn_mask": attn_mask}, is_causal)
    if query.is_nested or key.is_nested or value.is_nested:
        return _nested(function, (query, key, value), attn_mask, is_causal, scale, enable_gqa)
    outer: Sequence[int] | None = None  # the result's dimensions before its last two, if they are not those of `query`
    q, k, v = query.shape, key.shape, value.shape
    if not (
        len(q) == len(k) == len(v) == 4
        and q[0] == k[0] == v[0]
        and k[1] == v[1]
        and (q[1] == k[1] or (enable_gqa and k[1] < q[1]))  # the kernel checks that groups of heads have one size
    ):
        query, key, value, outer = _four_dimensions(function, (query, key, value), enable_gqa)
        q, k, v = query.shape, key.shape, value.shape
    variant: dm.Variant | dm.BoundVariant = library.Plain
    if attn_mask is not None:
        variant = mask_variant(_autocast(attn_mask)[0], (*(q[:2] if outer is None else outer), q[2], k[2]))
    elif is_causal and q[2] > k[2]:
        variant = library.Window(-1, q[2] - k[2])
    elif is_causal:
        # No query sees the keys after the last query; without them, both alignments are the same.
        key, value, variant = key[:, :, : q[2]], value[:, :, : q[2]], library.Causal
    if q[1] == 0 or v[3] == 0:  # no kernel has such a loop
        out = query.new_empty((*q[:3], v[3]))
    else:
        out = attend(query, key, value, variant, scale).transpose(1, 2)
    return out if outer is None else out.reshape(*outer, q[2], v[3])


def _check_kinds(function: str, tensors: Mapping[str, Any], is_causal: Any) -> None:
    """Refuse arguments of another kind than torch takes.

    Raises:
        TypeError: names the argument.
    """
    for name, x in tensors.items():
        if not isinstance(x, Tensor) and not (name == "attn_mask" and x is None):
            raise TypeError(f"{function}: argument '{name}': expected a tensor, got {describe(x)}")
    if type(is_causal) is not bool:
        raise TypeError(f"{function}: argument 'is_causal': expected True or False, got {is_causal!r}")


def attend(
    query: Tensor, key: Tensor, value: Tensor, variant: dm.Variant | dm.BoundVariant, scale: float | None
) -> Tensor:
    """Compute `attention` of tensors [batch, heads, seq, head_dim], which are cast under autocast.

    Returns:
        [batch, queries, heads, head_dim_vo], contiguous.
    """
    q, k, v = (
        x.transpose(1, 2) if x.stride(-1) == 1 else x.transpose(1, 2).contiguous() for x in _autocast(query, key, value)
    )
    result: Tensor = library.attention(q, k, v, variant=variant, scale=scale)
    return result


def _nested(
    function: str,
    tensors: Sequence[Tensor],
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """Compute `scaled_dot_product_attention` of nested tensors, as ragged ones."""
    if attn_mask is not None:
        raise NotImplementedError(f"{function}: argument 'attn_mask': expected none, as the tensors are nested")
    for name, x in zip(("query", "key", "value"), tensors, strict=True):
        jagged: Any = x  # torch declares none of a nested tensor's methods
        if not x.is_nested or x.layout != torch.jagged or x.dim() != 4 or not isinstance(x.shape[2], torch.SymInt):
            raise ValueError(
                f"{function}: argument '{name}': expected a nested tensor [batch, heads, seq, head_dim] of the jagged "
                f"layout, with a seq for each sequence, as another argument is one"
            )
        if jagged.lengths() is not None:
            raise ValueError(f"{function}: argument '{name}': expected a nested tensor without holes; copy it")
    query, key, value = tensors
    for name, x, dim, fits in (
        ("key", key, 0, key.shape[0] == query.shape[0]),
        ("key", key, 1, enable_gqa or key.shape[1] == query.shape[1]),
        ("value", value, 2, value.shape[2] == key.shape[2]),
    ):
        if not fits:
            other = query if dim < 2 else key
            raise ValueError(
                f"{function}: argument '{name}': expected size {other.shape[dim]} in dimension {dim}, "
                f"got {x.shape[dim]}"
            )
    if is_causal and query.shape[2] != key.shape[2]:
        raise NotImplementedError(f"{function}: argument 'is_causal': expected False, as 'key' has other lengths")
    rows: list[Any] = [x.transpose(1, 2) for x in (query, key)]
    q, k, v = _autocast(*(x.transpose(1, 2).values() for x in (query, key, value)))
    cu_seqlens_q, cu_seqlens_k = (x.offsets().to(torch.int32) for x in rows)
    out = library.attention(
        *(x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v)),
        variant=library.Causal if is_causal else library.Plain,
        scale=scale,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
    )
    # The same offsets, so that the result has the lengths of `query` to torch.
    return torch.nested.nested_tensor_from_jagged(out, rows[0].offsets()).transpose(1, 2)


def _autocast(*tensors: Tensor) -> Sequence[Tensor]:
    """Cast the arguments of an operation that autocast runs in its dtype, as torch does: not float64, not bool."""
    if not torch._C._is_any_autocast_enabled():
        return tensors
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return [x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors]


def _four_dimensions(
    function: str, tensors: Sequence[Tensor], enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, Sequence[int]]:
    """Return query, key and value as [batch, heads, seq, head_dim], and the result's dimensions before its last two.

    Raises:
        ValueError: a tensor has less than 2 dimensions, or others that are not broadcastable.
    """
    names = ("query", "key", "value")
    for name, x in zip(names, tensors, strict=True):
        if x.dim() < 2:
            raise ValueError(
                f"{function}: argument '{name}': expected [..., seq, head_dim], got shape {tuple(x.shape)}"
            )
    dims = max(x.dim() for x in tensors)
    most = max(3, dims)
    query, key, value = tensors = [x[(None,) * (most - x.dim())] for x in tensors]
    # A single head of key and value stays one where it can: the kernels share it.
    if enable_gqa:
        heads = query.shape[-3]
        for name, x in (("key", key), ("value", value)):
            given = x.shape[-3]
            if given != heads and (given == 0 or heads % given):
                raise ValueError(
                    f"{function}: argument '{name}': expected a number of heads that divides the {heads} of 'query', "
                    f"got {given}"
                )
        if key.shape[-3] != value.shape[-3]:
            key, value = (x.repeat_interleave(heads // x.shape[-3], -3) for x in (key, value))
    else:
        heads = next((x.shape[-3] for x in tensors if x.shape[-3] != 1), 1)
        for name, x in zip(names, tensors, strict=True):
            if x.shape[-3] not in (1, heads):
                raise ValueError(
                    f"{function}: argument '{name}': expected {heads} heads or 1, as 'enable_gqa' is False, "
                    f"got {x.shape[-3]}"
                )
        query = query.expand(*query.shape[:-3], heads, -1, -1)
        if key.shape[-3] != value.shape[-3]:
            key, value = (x.expand(*x.shape[:-3], heads, -1, -1) for x in (key, value))
    try:
        batch: Sequence[int] = torch.broadcast_shapes(*(x.shape[:-3] for x in tensors))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(x.shape[:-3])) for x in tensors)
        raise ValueError(
            f"{function}: arguments 'query', 'key' and 'value': expected broadcastable batches, got {shapes}"
        ) from error
    query, key, value = (x.expand(*batch, -1, -1, -1).flatten(0, -4) if batch else x[None] for x in (query, key, value))
    return query, key, value, (*batch, query.shape[1]) if dims > 2 else ()


def mask_variant(mask: Tensor, shape: Sequence[int]) -> dm.BoundVariant:
    """Return the variant that applies a mask of torch's kind.

    Args:
        mask: broadcastable to `shape`; bool, True where the query sees the key, or floating point, added to the logits.
        shape: [queries, keys], [heads, queries, keys] or [..., heads, queries, keys].

    Raises:
        TypeError, ValueError: the mask has another dtype or does not fit the shape.
    """
    given = tuple(mask.shape)
    if mask.dim() > len(shape) or any(
        size not in (1, full) for size, full in zip(given[::-1], tuple(shape)[::-1], strict=False)
    ):
        raise ValueError(f"attention mask: expected a shape broadcastable to {tuple(shape)}, got {given}")
    *batch, queries, keys = *shape[:-3], *shape[-2:]
    mask = mask[(None,) * (max(4, len(shape)) - mask.dim())]
    for dim in range(mask.dim() - 1):
        if mask.stride(dim) == 0 and mask.shape[dim] > 1:
            mask = mask.narrow(dim, 0, 1)
    if mask.dim() > 4:
        if any(size != 1 for size in mask.shape[:-3]):
            mask = mask.expand(*batch, -1, -1, -1)
        mask = mask.flatten(0, -4)
    if mask.dtype == torch.bool:
        if mask.shape[1] == mask.shape[2] == 1:
            return library.KeyMask(mask[:, 0, 0].expand(math.prod(batch), keys).contiguous())
        return library.broadcast_mask(mask.expand(-1, -1, queries, keys).contiguous())
    if not mask.dtype.is_floating_point:
        raise TypeError(f"attention mask: expected dtype bool or a floating one, got {mask.dtype}")
    return library.additive_bias(mask.expand(-1, -1, queries, keys).float().contiguous().resolve_neg())


for _module in (operation, appending, merging):
    _module.define_operator()
