"""A decoding step over a cache in pages, compiled as one graph."""

import torch
from torch import Tensor

from dimorph.attention import KVCache, append, plan, run


def step(q: Tensor, k: Tensor, v: Tensor, layers: list[list[Tensor]], table: Tensor, lengths: Tensor) -> Tensor:
    caches = [KVCache(*pools, block_table=table, seqlens=lengths) for pools in layers]
    schedule = plan(q, caches[0])
    for cache in caches:
        append(cache, k, v, lengths[:, None] - 1)
        q = run(schedule, q, cache)
    return q


fast = torch.compile(step, fullgraph=True)


def main() -> None:
    """Decode one token of two sequences, in one graph and by the calls themselves."""
    pages, page_size, heads, head_dim = 8, 16, 2, 32
    layers = [list(torch.randn(2, pages, page_size, heads, head_dim)) for _ in range(2)]
    copies = [[pool.clone() for pool in pools] for pools in layers]
    q, k, v = torch.randn(3, 2, 1, heads, head_dim)
    table = torch.arange(pages, dtype=torch.int32).view(2, 4)
    lengths = torch.tensor([40, 7], dtype=torch.int32)
    out = fast(q, k, v, layers, table, lengths)
    print("in one graph:", torch.equal(out, step(q, k, v, copies, table, lengths)))


if __name__ == "__main__":
    main()
