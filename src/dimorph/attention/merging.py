"""`merge_states`: attention over disjoint sets of keys, joined."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import dimorph as dm
from dimorph.attention.arrays import describe, libraries, requires_grad
from dimorph.attention.kernels import merge_states_cpu, merge_states_gpu

_MOST_PARTS = 8  # in arrays of their own: csrc/merge_states.h


def merge_states(
    outs: Sequence[Any] | Any, lses: Sequence[Any] | Any, *, out: Any = None, lse: Any = None
) -> tuple[Any, Any]:
    """Join the results of attention over disjoint sets of keys to that of attention over all of them.

    With m = max(lse_i) and w_i = exp(lse_i - m), out = sum(w_i out_i) / sum(w_i) and lse = m + log(sum(w_i)), in
    float32: the normalizers of softmax merge in this way (Milakov and Gimelshein 2018,
    https://arxiv.org/abs/1805.02867). So it serves every variant with a softmax whose weights of a key do not depend on
    the other keys; `Sinks` may be in one of the parts alone.

    A part whose log-sum-exp is -inf has no keys and adds nothing, whatever its output is. Where that is so of all
    parts, the output is 0 and the log-sum-exp -inf. A log-sum-exp of NaN makes both NaN.

    Args:
        outs: the output of each part, arrays [..., heads, head_dim] of one shape, float32, bfloat16 or float16: a
            sequence of arrays, or one array [parts, ..., heads, head_dim]. The last dimension is contiguous, and one
            stride leads through all dimensions before the heads. More than 8 arrays are copied into one first.
        lses: the natural log-sum-exp of each part, float32 [..., heads], as `attention(return_lse=True)` gives it: a
            sequence, or one array [parts, ..., heads], as `outs` is.
        out: array to write to, [..., heads, head_dim] of the dtype of `outs`. It shares no memory with the parts.
            Default: a new array of their library.
        lse: array to write to, float32 [..., heads]. Default: a new array.

    Returns:
        (out, lse). On a GPU a call launches one kernel on the current stream and returns before it has run; with `out`
        and `lse` given it allocates nothing.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it, with what was expected and what came.
        RuntimeError: a tensor requires grad while grad mode is on.
        dimorph.MissingSpecialization, dimorph.BuildError: there is no kernel for this dtype.
    """
    stacked = hasattr(outs, "__dlpack__")
    outs, lses = _listed(outs, "outs", stacked), _listed(lses, "lses", stacked)
    if len(lses) != len(outs):
        raise ValueError(f"merge_states: argument 'lses': expected {len(outs)} arrays, as in 'outs', got {len(lses)}")
    first = outs[0]
    given = [*outs, *lses, *(x for x in (out, lse) if x is not None)]
    library = libraries[type(first)]
    if library.is_indirect(first, first, first, out) or library.is_lazy(*given):
        define_operator()
        from dimorph.attention import torch_cache_operators

        return torch_cache_operators.merge_states(outs, lses, stacked, out, lse)
    if library.records_gradients() and any(map(requires_grad, given)):
        raise RuntimeError("merge_states: argument 'outs': expected tensors that require no grad, got some that do")
    return merge(outs, lses, stacked, out, lse)


def merge(outs: list[Any], lses: list[Any], stacked: bool, out: Any, lse: Any) -> tuple[Any, Any]:
    """Join states as `merge_states` does, from lists of arrays, which are one array each if they are `stacked`."""
    first = outs[0]
    library = libraries[type(first)]
    if len(outs) > _MOST_PARTS:
        outs, lses = [_stack(outs, "outs")], [_stack(lses, "lses")]
        first, stacked = outs[0], True
    if out is None or lse is None:
        like = first[0] if stacked else first
        out = library.empty_rows(like, like.shape[-1]) if out is None else out
        lse = library.empty_float32(like, *like.shape[:-1]) if lse is None else lse
    parts = (array for part in zip(outs, lses, strict=True) for array in part)
    _function(str(first.dtype), library.gpu(first) is not None)(out, lse, stacked, *parts)
    return out, lse


def _listed(given: Any, name: str, stacked: bool) -> list[Any]:
    """Return arrays as a list; of stacked parts, the one array.

    Raises:
        TypeError: they are no arrays, or not as `outs` is.
    """
    shape = "[parts, ..., heads, head_dim]" if name == "outs" else "[parts, ..., heads]"
    wanted = f"an array {shape}, as 'outs' is one" if stacked else f"a sequence of arrays, or one {shape}"
    if hasattr(given, "__dlpack__") != stacked or not (stacked or isinstance(given, Sequence)):
        wanted = wanted if name == "outs" or stacked else "a sequence of arrays, as 'outs' is one"
        raise TypeError(f"merge_states: argument {name!r}: expected {wanted}, got {describe(given)}")
    arrays = [given] if stacked else list(given)
    for index, array in enumerate(arrays):
        if not hasattr(array, "__dlpack__") or isinstance(array, type):
            raise TypeError(f"merge_states: argument '{name}[{index}]': expected an array, got {describe(array)}")
    if not arrays:
        raise ValueError(f"merge_states: argument {name!r}: expected at least one array, got none")
    return arrays


def _stack(arrays: list[Any], name: str) -> Any:
    """Return one array with all of some arrays, which must be alike.

    Raises:
        TypeError, ValueError: they are not.
    """
    first = arrays[0]
    for index, array in enumerate(arrays):
        for what, error in (("dtype", TypeError), ("shape", ValueError)):
            wanted, given = getattr(first, what), getattr(array, what)
            if wanted != given:
                raise error(f"merge_states: argument '{name}[{index}]': expected {what} {wanted}, got {given}")
    return libraries[type(first)].stack(arrays)


@functools.cache
def _function(dtype: str, on_gpu: bool) -> Any:
    try:
        return (merge_states_gpu if on_gpu else merge_states_cpu).load(dtype=dtype).merge_states
    except dm.DeclarationError as error:
        raise TypeError(
            f"merge_states: argument 'outs': expected dtype float32, bfloat16 or float16, got {dtype}"
        ) from error


def define_operator() -> None:
    """Make the torch operator that takes this operation's place in a traced graph."""
    from dimorph.attention.torch_cache_operators import define

    define("attention_merge_states", merge)


# As torch.compiler.assume_constant_result does it, but without importing torch: the function runs while it is traced.
define_operator._dynamo_marked_constant = True  # type: ignore[attr-defined]
