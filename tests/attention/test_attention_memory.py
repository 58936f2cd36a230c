"""Arguments that index memory: what would be read or written outside an array is refused by name.

Each call runs with memory that ends where its arrays end, in a process of its own, because what is not refused may end
the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import as_strided

import dimorph as dm
from dimorph import attention as at
from dimorph.attention.kernels import attention_cpu
from support.arrays import OnlyDLPack
from support.store import result_of, start_child

_far = 2**40
_mask, _bias = np.ones(3200, bool), np.zeros((1, 1, 40, 40), np.float32)
_i32, _slopes = np.ones(2, np.int32), np.ones(2, np.float32)

# A variant's arguments -> the argument that the message names. Sequences are 2 x 40 queries and keys, of 2 heads.
DENSE: dict[str, tuple[dm.BoundVariant, str]] = {
    "start behind": (at.CustomMask(_mask, np.array([0, _far])), "maybe_mask_starts"),
    "start before": (at.CustomMask(_mask, np.array([0, -_far])), "maybe_mask_starts"),
    "start at the last": (at.CustomMask(_mask, np.array([0, 1601])), "maybe_mask_starts"),
    "short mask": (at.CustomMask(np.ones(5, bool), np.array([0, 0])), "maybe_mask_starts"),
    "few bits": (at.PackedMask(np.ones(399, np.uint8), None), "mask"),
    "bits behind": (at.PackedMask(np.ones(400, np.uint8), np.array([0, 1601])), "maybe_mask_starts"),
    "batch stride": (at.Bias(_bias, _far, 0), "bias_batch_stride"),
    "strides whose sum wraps": (at.Bias(_bias, 2**62, 2**62), "bias_head_stride"),
    "negative stride": (at.Bias(_bias, 0, -1), "bias_head_stride"),
    "mask's stride": (at.BroadcastMask(np.ones((1, 1, 40, 40), bool), 0, 1), "mask_head_stride"),
    "few slopes": (at.ALiBi(_slopes[:1]), "alibi_slopes"),
    "slopes of one sequence": (at.SequenceALiBi(_slopes[None]), "alibi_slopes"),
    "few lengths": (at.KeyPadding(_i32[:1]), "kv_valid"),
    "in a composition": (at.compose(at.Causal, at.KeyMask(np.ones((2, 39), bool)), at.Sinks(_slopes)), "key_mask"),
}
# The same for ragged sequences of 30 and 40 queries and keys.
RAGGED: dict[str, tuple[dm.BoundVariant, str]] = {
    "one byte": (at.KeyMask(np.ones(1, bool)), "key_mask"),
    "one document": (at.DocumentMask(_i32[:1], _i32[:1]), "qo_documents"),
    "one key's document": (at.DocumentMask(np.ones(70, np.int32), _i32[:1]), "kv_documents"),
    "short mask": (at.CustomMask(np.ones(30 * 30 + 40 * 40 - 1, bool), None), "mask"),
    "start behind": (at.CustomMask(np.ones(2500, bool), np.array([0, 901])), "maybe_mask_starts"),
    "flat bias": (at.Bias(np.zeros(1600 * 2 - 1, np.float32), 1600, 0), "bias_batch_stride"),
    "rows of another length": (at.additive_bias(np.zeros((2, 2, 40, 40), np.float32)), "bias"),
    "few sinks": (at.Sinks(_slopes[:1]), "sinks"),
}


def _refusal(call: Any) -> str:
    """Return the message with which a call is refused, or what happened instead."""

    def body() -> str:
        try:
            call()
        except (ValueError, TypeError) as error:
            return str(error)
        return "accepted"

    return str(result_of(start_child(body)))


def _arrays(*rows: int) -> list[Any]:
    return [np.random.default_rng(0).standard_normal((*rows, 2, 32), dtype=np.float32) for _ in range(3)]


@pytest.mark.parametrize("native", [False, True])  # through the public function; the C interface of a kernel
@pytest.mark.parametrize("name", [*DENSE, *(f"ragged, {name}" for name in RAGGED)])
def test_reads_outside_an_array_are_refused(warm_store: object, name: str, native: bool) -> None:
    ragged = name.startswith("ragged, ")
    bound, argument = (RAGGED if ragged else DENSE)[name.removeprefix("ragged, ")]
    q, k, v = _arrays(70) if ragged else _arrays(2, 40)
    offsets = np.array([0, 30, 70], np.int32) if ragged else None
    out = np.empty_like(q)
    if native:
        module = attention_cpu.load(dtype="float32", head_dims=(32, 32), few_queries=False, variant=bound.variant)
        call = lambda: module.attention(  # noqa: E731
            q, k, v, out, 1.0, bound.variant.name, None, offsets, offsets, False, True, *bound.args
        )
    else:
        call = lambda: at.attention(q, k, v, variant=bound, cu_seqlens_q=offsets, cu_seqlens_k=offsets)  # noqa: E731
    assert f"attention: argument '{argument}': expected" in _refusal(call)


def test_an_array_without_a_shape_is_checked_too(warm_store: object) -> None:
    q, k, v = _arrays(2, 40)
    short = at.KeyMask(OnlyDLPack(np.ones((1, 1), bool)))
    assert "argument 'key_mask': expected shape" in _refusal(lambda: at.attention(q, k, v, variant=short))
    whole = at.KeyMask(OnlyDLPack(np.ones((2, 40), bool)))
    np.testing.assert_array_equal(at.attention(q, k, v, variant=whole), at.attention(q, k, v))
    assert "argument 'k': expected size 2" in _refusal(lambda: at.attention(q, OnlyDLPack(k[:1]), v))


@pytest.mark.parametrize("offset", [0, 5])
@pytest.mark.parametrize("name", ["q", "k", "v", "out", "alibi_slopes"])
def test_freed_memory_is_refused(warm_store: object, name: str, offset: int) -> None:
    shapes = {**dict.fromkeys(("q", "k", "v", "out"), (1, 40, 2, 32)), "alibi_slopes": (2,)}
    arrays = {key: torch.ones(offset + int(np.prod(shape)))[offset:].view(shape) for key, shape in shapes.items()}
    arrays[name].untyped_storage().resize_(0)
    variant = at.ALiBi(arrays.pop("alibi_slopes"))
    message = _refusal(lambda: at.attention(**arrays, variant=variant))
    assert f"argument '{name}': expected a tensor with memory, got one whose memory was freed" in message


@pytest.mark.parametrize("queries", [4, 40])  # single rows, blocks of queries
@pytest.mark.parametrize("size", [2**30 + 2, 2**31, 2**31 + 2, 2**32, 2**32 + 2, 2**40])
@pytest.mark.parametrize(("dim", "argument"), [(0, "q"), (2, "q"), (1, "q")])
def test_sizes_beyond_32_bits_are_refused(warm_store: object, dim: int, argument: str, size: int, queries: int) -> None:
    """Views with strides of 0: of all arrays for the batch, of the queries' for the others."""

    def stretched(array: Any) -> Any:
        shape, strides = list(array.shape), list(array.strides)
        shape[dim], strides[dim] = size, 0
        return as_strided(array, shape, strides)

    q, k, v = _arrays(1, queries)
    out = np.full_like(q, 7)
    moved = [stretched(x) for x in (q, k, v)] if dim == 0 else [stretched(q), k, v]
    message = _refusal(lambda: at.attention(*moved, out=stretched(out)))
    assert f"argument '{argument}': expected size" in message


@pytest.mark.parametrize("sizes", [(70000, 1, 70000), (65536, 4, 65536)])
def test_products_beyond_32_bits_are_refused(warm_store: object, sizes: tuple[int, int, int]) -> None:
    batch, queries, heads = sizes
    q = as_strided(np.ones((1, queries, 1, 32), np.float32), (batch, queries, heads, 32), (0, 128, 0, 4))
    out = as_strided(np.ones((1, queries, 1, 32), np.float32), q.shape, q.strides)
    assert "argument 'q': expected at most 1073741824 rows" in _refusal(lambda: at.attention(q, q, q, out=out))


@pytest.mark.parametrize("name", ["out", "lse"])
def test_elements_to_write_that_share_memory_are_refused(warm_store: object, name: str) -> None:
    q, k, v = _arrays(2, 40)
    made = {"out": np.empty_like(q), "lse": np.empty(q.shape[:-1], np.float32)}
    array = made[name]
    for dim in range(3):
        strides = list(array.strides)
        strides[dim] = 0
        made[name] = as_strided(array, array.shape, strides)
        with pytest.raises(ValueError, match=f"argument '{name}': expected elements that share no memory, got stride"):
            at.attention(q, k, v, **made)
    halfway = list(array.strides)
    halfway[0] = halfway[0] // 2
    made[name] = as_strided(array, array.shape, halfway)
    with pytest.raises(ValueError, match=f"argument '{name}': expected elements that share no memory"):
        at.attention(q, k, v, **made)


def test_layouts_that_share_no_memory_are_written(warm_store: object) -> None:
    q, k, v = _arrays(2, 40)
    expected = at.attention(q, k, v)
    base = np.zeros((2, 4, 50, 64), np.float32)
    for out in (base[:, ::2, :40, :32].swapaxes(1, 2), base[::-1, 3:1:-1, 40:0:-1, 32:].swapaxes(1, 2)):
        np.testing.assert_array_equal(at.attention(q, k, v, out=out), expected)


@pytest.mark.parametrize("cap", [0.0, -0.0, float("nan"), float("inf"), 1e-39])
def test_a_soft_cap_without_a_reciprocal_is_refused(warm_store: object, cap: float) -> None:
    q, k, v = _arrays(2, 40)
    for variant in (at.SoftCap(cap), at.compose(at.Causal, at.SoftCap(cap))):
        with pytest.raises(ValueError, match="argument 'soft_cap': expected a finite number with a finite reciprocal"):
            at.attention(q, k, v, variant=variant)
