"""`TreeMask` and `tree_bits`: the trees of speculated tokens that one call over a cache verifies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dimorph as dm
from dimorph import attention as at
from support.paths import SUPPORT

pytestmark = pytest.mark.usefixtures("warm_store")

COUNT_MASKS = dm.Variant(
    "CountMasks", header="count_masks.h", params=(dm.tensor("asked", "int32"),), root=SUPPORT / "variants"
)
# Two first tokens; of the first, two continuations, one of which goes on.
PARENTS = [-1, -1, 0, 0, 3, 1]
ANCESTORS = [{0}, {1}, {0, 2}, {0, 3}, {0, 3, 4}, {1, 5}]


def random(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def test_bits_name_a_node_and_those_above_it() -> None:
    assert [{j for j in range(64) if bits >> j & 1} for bits in at.tree_bits(PARENTS)] == ANCESTORS
    assert at.tree_bits(np.array(PARENTS)) == at.tree_bits(torch.tensor(PARENTS)) == at.tree_bits(PARENTS)
    chain = at.tree_bits(range(-1, 63))
    assert np.array_equal(np.array(chain, np.int64).view(np.uint64), [2**n - 1 for n in range(1, 65)])
    assert at.tree_bits([]) == []


def test_bits_of_a_boolean_matrix() -> None:
    seen = torch.tensor([[j in row for j in range(6)] for row in ANCESTORS])
    assert (seen.long() << torch.arange(6)).sum(-1).tolist() == at.tree_bits(PARENTS)


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ([-1, 1], "expected -1 or a node before 1 as its parent, got 1"),
        ([-1, 0, -2], "expected -1 or a node before 2 as its parent, got -2"),
        ([-1] * 65, "expected at most 64 nodes, got more"),
    ],
)
def test_what_is_no_tree_is_refused(parents: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=f"tree_bits: argument 'parents': {said}"):
        at.tree_bits(parents)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_node_is_what_its_branch_would_be(attend: at.Attention, dtype: Any) -> None:
    """Over pages: each node has the result of a causal call over the context and the node's branch alone."""
    size, contexts, n = 16, (21, 300), len(PARENTS)
    lengths = np.array(contexts, np.int32) + n
    table = np.random.default_rng(2).permutation(40).astype(np.int32).reshape(2, 20)
    k, v = (random(40, size, 2, 32).astype(dtype) + np.float16(i) for i in range(2))
    q = random(2, n, 4, 32).astype(dtype)
    tree = at.TreeMask(np.array([at.tree_bits(PARENTS)] * 2))
    out, lse = attend(q, at.KVCache(k, v, block_table=table, seqlens=lengths), variant=tree, return_lse=True)
    for b, context in enumerate(contexts):
        for node, branch in enumerate(ANCESTORS):
            seen = [*range(context), *(context + j for j in sorted(branch))]
            rows = [pool[table[b]].reshape(1, -1, 2, 32)[:, seen] for pool in (k, v)]
            alone = attend(q[b : b + 1, node : node + 1], *rows, return_lse=True)
            assert np.allclose(out[b, node], alone[0][0, 0], atol=2e-3 if dtype == np.float16 else 2e-6)
            assert np.allclose(lse[b, node], alone[1][0, 0], atol=4e-6)


def test_sequences_that_are_prefilled_are_chains(attend: at.Attention) -> None:
    """Beside trees in one ragged call: bits are only read of a sequence's last 64 queries."""
    k = random(2, 300, 2, 32)
    q = random(200 + len(PARENTS), 4, 32)
    bits = [7] * (200 - 64) + at.tree_bits(range(-1, 63)) + at.tree_bits(PARENTS)
    cache, ends = at.KVCache(k, k, seqlens=np.array([250, 300], np.int32)), np.array([0, 200, len(q)], np.int32)
    out = attend(q, cache, variant=at.TreeMask(np.array(bits)), cu_seqlens_q=ends)
    expected = attend(q[None, :200], k[:1, :250], k[:1, :250], variant=at.Causal)
    assert np.allclose(out[:200], expected[0], atol=2e-6)


@pytest.mark.parametrize("nodes", [1, 6, 64])
def test_only_the_last_keys_are_asked_about(attend: at.Attention, nodes: int) -> None:
    keys = 1000
    q, k, asked = random(1, nodes, 1, 32), random(1, keys, 1, 32), np.zeros((nodes, keys), np.int32)
    tree = at.TreeMask(np.array([at.tree_bits(range(-1, nodes - 1))]))
    attend(q, k, k, variant=at.compose(tree, COUNT_MASKS(asked)))
    context = (keys - nodes) // 128 * 128  # whole tiles of any target level
    assert not asked[:, :context].any()
    assert asked[:, keys - nodes :].any(-1).all()
