"""A transformers model whose attention is Dimorph's. Its weights are random, so that nothing is downloaded."""

import torch
from transformers import AutoModel, LlamaConfig

import dimorph.attention.transformers

dimorph.attention.transformers.register()

config = LlamaConfig(
    hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
)
config.vocab_size = 100
torch.manual_seed(0)
model = AutoModel.from_config(config, attn_implementation="dimorph").eval()
theirs = AutoModel.from_config(config, attn_implementation="eager").eval()
theirs.load_state_dict(model.state_dict())

with torch.inference_mode():
    tokens = torch.arange(12).reshape(2, 6)
    ours, expected = model(tokens).last_hidden_state, theirs(tokens).last_hidden_state
print("as the eager implementation:", torch.allclose(ours, expected, atol=1e-4))
