"""Decoding over a cache in pages, on the CPU: what one layer of an inference engine does for each new token."""

import ml_dtypes
import numpy as np

from dimorph.attention import (
    Causal,
    KVCache,
    append,
    attend_blocks,
    attend_shared,
    attention,
    merge_states,
    plan,
    run,
)

rng = np.random.default_rng(0)
batch, heads, kv_heads, head_dim, page_size = 2, 8, 2, 64, 16


def dense() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one query, and dense keys and values, [batch, room, kv_heads, head_dim]."""
    q = rng.standard_normal((batch, 1, heads, head_dim), dtype=np.float32)
    k, v = rng.standard_normal((2, batch, 96, kv_heads, head_dim), dtype=np.float32)
    return q, k, v


def main() -> None:
    q, k, v = dense()
    lengths = np.array([70, 21], np.int32)  # keys of each sequence so far
    out = attention(q, KVCache(k, v, seqlens=lengths), variant=Causal)  # what lies behind seqlens is not read

    pool = np.zeros((32, page_size, 2, kv_heads, head_dim), np.float32)  # keys and values side by side
    table = np.array([[7, 3, 12, 9, 21], [4, 30, 0, 0, 0]], np.int32)  # pages of each sequence
    for b in range(batch):
        for i in range(lengths[b]):
            pool[table[b, i // page_size], i % page_size] = k[b, i], v[b, i]
    cache = KVCache(pool[:, :, 0], pool[:, :, 1], block_table=table, seqlens=lengths)
    print("pages equal dense:", np.array_equal(attention(q, cache, variant=Causal), out))

    for _ in range(3):  # a token for each sequence
        q, k, v = (rng.standard_normal((batch, 1, h, head_dim), dtype=np.float32) for h in (heads, kv_heads, kv_heads))
        append(cache, k, v, lengths[:, None].copy())  # behind the last key
        lengths += 1
        out = attention(q, cache, variant=Causal)
    step = plan(q, cache, variant=Causal)  # of q only the shape and the dtype count
    print("a plan gives the same:", np.array_equal(run(step, q, cache), out))
    print("decoded to lengths", lengths, out.shape)
    step = plan(q, KVCache(cache.k, cache.v, block_table=table.tolist(), seqlens=[73, 24]), variant=Causal)
    print("a plan from lists gives the same:", np.array_equal(run(step, q, step.cache), out))

    scales = np.full(kv_heads, 4 / 448, np.float32)  # for keys of up to 4: 448 is the largest number of the dtype
    small = np.zeros((2, *pool[:, :, 0].shape), ml_dtypes.float8_e4m3fn)
    cache = KVCache(small[0], small[1], block_table=table, seqlens=lengths, k_scale=scales, v_scale=0.01)
    append(cache, k, v, lengths[:, None] - 1)  # rows of float32, or of 16 bits
    out = attention(q, cache, variant=Causal)

    q, k, v = dense()
    first, second = KVCache(k[:, :16], v[:, :16]), KVCache(k[:, 16:], v[:, 16:])
    states = [attention(q, part, return_lse=True) for part in (first, second)]
    out, whole_lse = merge_states([out for out, _ in states], [lse for _, lse in states])
    print("parts joined:", np.allclose(out, attention(q, k, v), atol=1e-6), whole_lse.shape)

    q = rng.standard_normal((batch, 96, heads, head_dim), dtype=np.float32)
    whole = attention(q, KVCache(k, v), variant=Causal, batch_invariant=True)
    tokens = q[:, 50:51], KVCache(k[:, :51], v[:, :51])
    alike = np.array_equal(attention(*tokens, variant=Causal, batch_invariant=True), whole[:, 50:51])
    print("a token has the bits of the whole:", alike)

    q = q[:, :1]
    prefix = KVCache(*rng.standard_normal((2, 1, 100, kv_heads, head_dim), dtype=np.float32))  # one sequence
    out = attend_shared(q, prefix, KVCache(k, v), variant=Causal)
    k, v = (np.concatenate([shared.repeat(batch, 0), own], 1) for shared, own in ((prefix.k, k), (prefix.v, v)))
    print("prefix shared:", np.allclose(out, attention(q, k, v), atol=1e-6))

    long_q = rng.standard_normal((64, heads, head_dim), dtype=np.float32)
    long_k, long_v = rng.standard_normal((2, 96, kv_heads, head_dim), dtype=np.float32)
    indptr, indices = np.array([0, 2, 3], np.int32), np.array([0, 3, 5], np.int32)  # of blocks of 16 keys
    out = attend_blocks(long_q, long_k, long_v, indptr, indices, (32, 16))
    print("blocks of keys:", out.shape)


if __name__ == "__main__":
    main()
