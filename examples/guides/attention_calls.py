"""Calls of attention on the CPU: dense, ragged, with masks and parameters."""

import numpy as np

from dimorph.attention import Causal, FlashSigmoid, SoftCap, Window, attention, compose

rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((2, 64, 4, 64), dtype=np.float32) for _ in range(3))
offsets = np.array([0, 64, 128], np.int32)


def main() -> None:
    dense = attention(q, k, v, variant=Causal)  # [batch, queries, heads, head_dim]

    tokens = [a.reshape(128, 4, 64) for a in (q, k, v)]  # [tokens, heads, head_dim]
    out, lse = attention(*tokens, variant=Causal, cu_seqlens_q=offsets, cu_seqlens_k=offsets, return_lse=True)
    print("ragged equals dense:", np.allclose(out.reshape(dense.shape), dense, atol=1e-6), lse.shape)

    local = attention(q, k, v, variant=compose(Causal, Window(16, 0), SoftCap(30.0)))
    sigmoid = attention(q, k, v, variant=FlashSigmoid(scale=0.125, bias=-np.log(64)))
    print(local.shape, sigmoid.shape)


if __name__ == "__main__":
    main()
