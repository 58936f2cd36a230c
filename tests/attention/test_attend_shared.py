"""`attend_shared` on the CPU: attention over shared and own keys, against its definition over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dimorph import attention as at
from support.prefixes import check, shared_problem

pytestmark = pytest.mark.usefixtures("warm_store")


@pytest.mark.parametrize("chunk", range(4))
def test_50_random_problems(chunk: int) -> None:
    problems = map(shared_problem, range(chunk * 50, (chunk + 1) * 50))
    found = [check(problem, lambda x: x, lambda x: x) for problem in problems]
    assert not any(found), "\n".join(filter(None, found))


RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal((4, n, h, 32), dtype=np.float32) for n, h in ((2, 4), (9, 2), (9, 2)))
PREFIX_K, PREFIX_V = RNG.standard_normal((2, 1, 30, 2, 32), dtype=np.float32)
PREFIX, CACHE = at.KVCache(PREFIX_K, PREFIX_V), at.KVCache(K, V)


def test_it_is_attention_over_the_prefix_and_the_own_keys() -> None:
    k, v = (np.concatenate([x.repeat(4, 0), own], 1) for x, own in ((PREFIX_K, K), (PREFIX_V, V)))
    expected = at.attention(Q, k, v, variant=at.Causal, scale=0.3, return_lse=True)
    out, lse = np.zeros_like(Q), np.zeros_like(Q[..., 0])
    assert at.attend_shared(Q, PREFIX, CACHE, variant=at.Causal, scale=0.3, out=out, lse=lse) is out
    assert np.allclose(out, expected[0], atol=2e-6) and np.allclose(lse, expected[1], atol=2e-6)


def test_of_torch_come_tensors() -> None:
    with torch.no_grad():
        prefix, cache = (at.KVCache(*map(torch.from_numpy, (one.k, one.v))) for one in (PREFIX, CACHE))
        out = at.attend_shared(torch.from_numpy(Q), prefix, cache)
    assert isinstance(out, torch.Tensor) and np.array_equal(out.numpy(), at.attend_shared(Q, PREFIX, CACHE))


def test_no_prefix_is_attention() -> None:
    assert np.array_equal(at.attend_shared(Q, [], CACHE), at.attention(Q, K, V))


def test_no_queries() -> None:
    assert at.attend_shared(Q[:, :0], PREFIX, CACHE, variant=at.Causal).shape == (4, 0, 4, 32)
    assert at.attend_shared(Q[:, 0][:0], PREFIX, CACHE, cu_seqlens_q=np.zeros(5, np.int32)).shape == (0, 4, 32)


@pytest.mark.parametrize(("count", "composed"), [(3, False), (70, True)])
def test_trees_are_of_the_own_keys(count: int, composed: bool) -> None:
    """Among 70 queries, the first 6 are causal, and see the whole prefix where there are 69 keys or more."""
    rng = np.random.default_rng(count)
    lengths = [count, count + 20, max(count - 1, min(64, count))]
    nodes = np.zeros((3, count), np.int64)
    for row in nodes:
        row[-min(64, count) :] = at.tree_bits([int(rng.integers(-1, n)) for n in range(min(64, count))])
    q = rng.standard_normal((3 * count, 4, 32), dtype=np.float32)
    k, v = rng.standard_normal((2, 3, 30 + max(lengths), 2, 32), dtype=np.float32)
    k[:, :30], v[:, :30] = PREFIX_K, PREFIX_V
    tree: Any = at.TreeMask(nodes.reshape(-1))
    tree = at.compose(tree, at.SoftCap(3.0), at.Sinks(np.ones(4, np.float32))) if composed else tree
    own = at.KVCache(k[:, 30:], v[:, 30:], seqlens=np.array(lengths, np.int32))
    offsets = np.arange(4, dtype=np.int32) * count
    found = at.attend_shared(q, PREFIX, own, variant=tree, cu_seqlens_q=offsets, return_lse=True)
    whole = at.KVCache(k, v, seqlens=np.array(lengths, np.int32) + 30)
    expected = at.attention(q, whole, variant=tree, cu_seqlens_q=offsets, return_lse=True)
    for x, y in zip(found, expected, strict=True):
        assert np.allclose(x, y, atol=3e-6)
    short = at.KVCache(k[:, 30:], v[:, 30:], seqlens=np.array([*lengths[:2], lengths[2] - 1], np.int32))
    with pytest.raises(ValueError, match=f"'cache': expected {lengths[2]} or more keys of sequence 2, .*TreeMask, got"):
        at.attend_shared(q, PREFIX, short, variant=tree, cu_seqlens_q=offsets)


@pytest.mark.parametrize(
    "variant",
    [
        at.Window(5, 0),
        at.ALiBi(np.ones(4, np.float32)),
        at.FlashSigmoid(1.0, 0.0),
        at.KeyMask(np.ones((4, 39), bool)),
        at.compose(at.Causal, at.PrefixLM(np.ones(4, np.int32))),
    ],
    ids=lambda bound: bound.variant.name,
)
def test_variants_that_look_at_positions_are_refused(variant: Any) -> None:
    name = (variant.variant.parts or (variant.variant,))[-1].name
    said = (
        rf"attend_shared: argument 'variant': expected some of Plain, SoftCap, Causal, TreeMask, Sinks, .* got {name}$"
    )
    with pytest.raises(ValueError, match=said):
        at.attend_shared(Q, PREFIX, CACHE, variant=variant)


LENGTHS = np.array([2, 1, 0, 2], np.int32)
REFUSED: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "an array as prefix": (PREFIX_K, CACHE, TypeError, "'prefix': expected a KVCache, got ndarray of shape"),
    "an array among prefixes": ([PREFIX, PREFIX_K], CACHE, TypeError, "'prefix': expected a KVCache, got ndarray"),
    "keys as cache": (PREFIX, K, TypeError, "'cache': expected a KVCache, got ndarray of shape (4, 9, 2, 32)"),
    "three groups": (
        at.KVCache(K[:3], V[:3]),
        CACHE,
        ValueError,
        "'prefix': expected a cache of one sequence, or of a number that divides the batch, 4, got 3 sequences",
    ),
    "no group": (
        at.KVCache(K[:0], V[:0]),
        CACHE,
        ValueError,
        "'prefix': expected a cache of one sequence, or of a num",
    ),
    "other heads": (
        at.KVCache(PREFIX_K[:, :, :1], PREFIX_V[:, :, :1]),
        CACHE,
        ValueError,
        "'prefix.k': expected heads and head dim of 'cache.k', (2, 32), got (1, 32)",
    ),
    "another head dim": (
        at.KVCache(PREFIX_K, PREFIX_V[..., :16]),
        CACHE,
        ValueError,
        "'prefix.v': expected heads and head dim of 'cache.v', (2, 32), got (2, 16)",
    ),
    "fewer keys than queries": (
        PREFIX,
        at.KVCache(K, V, seqlens=LENGTHS),
        ValueError,
        "'cache': expected 1 or more keys of sequence 2, as it has 2 queries under a causal mask, got 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    prefix, cache, kind, said = REFUSED[case]
    with pytest.raises(kind) as caught:
        at.attend_shared(Q, prefix, cache, variant=at.Causal)
    assert str(caught.value).startswith(f"attend_shared: argument {said}")
