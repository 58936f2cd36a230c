"""Verify a tree of speculated tokens over a cache in pages, and compare a node with a call of its own."""

import numpy as np

from dimorph.attention import KVCache, TreeMask, append, attention, tree_bits


def main(batch: int = 2, context: int = 100) -> None:
    rng = np.random.default_rng(0)
    table = np.arange(batch * 8, dtype=np.int32).reshape(batch, 8)
    k, v = rng.standard_normal((2, batch * 8, 16, 4, 64), dtype=np.float32)
    lengths = np.full(batch, context + 6, np.int32)
    cache = KVCache(k, v, block_table=table, seqlens=lengths)
    new_k, new_v = rng.standard_normal((2, batch, 6, 4, 64), dtype=np.float32)
    append(cache, new_k, new_v, np.array([range(context, context + 6)] * batch, np.int32))
    q = rng.standard_normal((batch, 6, 8, 64), dtype=np.float32)
    parents = [-1, -1, 0, 0, 3, 1]  # two first tokens; -1 is the last token before the tree
    tree = TreeMask(np.array([tree_bits(parents)] * batch))
    out = attention(q, cache, variant=tree)

    branch = [*range(context), context, context + 3, context + 4]  # the context, and the nodes 0, 3 and 4
    rows = [pool[table[0]].reshape(1, -1, 4, 64)[:, branch] for pool in (k, v)]
    alone = attention(q[:1, 4:5], *rows)
    print("node 4 beside the other nodes, and alone, differ by", float(np.abs(out[0, 4] - alone[0, 0]).max()))


if __name__ == "__main__":
    main()
