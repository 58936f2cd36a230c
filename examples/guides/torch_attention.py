"""Attention in torch: in place of torch's own function, and under torch.compile."""

import torch

from dimorph.attention import Causal, attention
from dimorph.attention.torch import scaled_dot_product_attention

torch.manual_seed(0)
query, key, value = (torch.randn(1, 4, 64, 64) for _ in range(3))
mask = torch.ones(1, 1, 1, 64, dtype=torch.bool)
mask[..., 60:] = False


@torch.inference_mode()
def in_place_of_torch() -> None:
    out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    print("as torch:", torch.allclose(out, expected, atol=1e-5))


@torch.inference_mode()
def compiled() -> None:
    def layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q, k, v, variant=Causal)

    fast = torch.compile(layer, fullgraph=True, backend="eager")
    q, k, v = (a.transpose(1, 2) for a in (query, key, value))  # [batch, queries, heads, head_dim]
    print("as in eager mode:", torch.equal(fast(q, k, v), layer(q, k, v)))


if __name__ == "__main__":
    in_place_of_torch()
    compiled()
