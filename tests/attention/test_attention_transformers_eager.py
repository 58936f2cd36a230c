"""The implementation "dimorph_or_eager": layers that Dimorph refuses compute their own attention, and say so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from dimorph.attention import transformers as interface
from dimorph.attention import transformers_eager

SIZES = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(autouse=True)
def registered(warm_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(transformers_eager, "_warned", set())
    interface.register()
    torch.manual_seed(1)
    with torch.no_grad():
        yield


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 200, (2, 12))
    return {"input_ids": ids, "attention_mask": (torch.arange(12) >= torch.tensor([[0], [4]])).long()}


def outcome(model: Any, implementation: str, **given: Any) -> tuple[Any, list[str]]:
    model.set_attn_implementation(implementation)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = model(**given)
    return result, [str(one.message) for one in caught if "dimorph" in str(one.message)]


def test_a_head_dim_that_no_kernel_has() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=1040)).eval()
    given = inputs()
    expected, _ = outcome(model, "eager", **given)
    actual, told = outcome(model, "dimorph_or_eager", **given)
    assert torch.equal(actual.logits, expected.logits)
    assert len(told) == 1 and told[0].startswith("LlamaAttention: computes its own attention under 'dimorph_or_eager'")
    assert "argument 'q': expected a head dim" in told[0]
    assert outcome(model, "dimorph_or_eager", **given)[1] == []
    with pytest.raises(ValueError, match="argument 'q': expected a head dim"):
        outcome(model, "dimorph", **given)


def gemma() -> Any:
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=32, sliding_window=4)).eval()


@pytest.mark.parametrize("make", [lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=32)).eval(), gemma])
def test_weights_are_those_of_the_layer(make: Any) -> None:
    model, given = make(), inputs()
    expected, _ = outcome(model, "eager", output_attentions=True, **given)
    actual, told = outcome(model, "dimorph_or_eager", output_attentions=True, **given)
    assert len(told) == 1 and "weights: not supported" in told[0]
    assert len(actual.attentions) == 2
    for ours, theirs in zip(actual.attentions, expected.attentions, strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(NotImplementedError, match="weights: not supported"):
        outcome(model, "dimorph", output_attentions=True, **given)


def test_what_is_served_is_not_given_up() -> None:
    model, given = LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=32)).eval(), inputs()
    expected, _ = outcome(model, "dimorph", **given)
    actual, told = outcome(model, "dimorph_or_eager", **given)
    assert told == [] and torch.equal(actual.logits, expected.logits)


def test_a_model_that_does_not_ask_for_an_implementation() -> None:
    config = BloomConfig(vocab_size=200, hidden_size=64, n_layer=1, n_head=2)
    with pytest.warns(UserWarning, match="BloomForCausalLM: computes its own attention under 'dimorph_or_eager': its"):
        model: Any = BloomForCausalLM._from_config(config, attn_implementation="dimorph_or_eager").eval()
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="its layers compute attention themselves"):
        BloomForCausalLM._from_config(config, attn_implementation="dimorph")


def test_a_bool_mask_of_the_users_is_added_as_numbers() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=1040)).eval()
    keep = (torch.rand(2, 1, 12, 12) < 0.7) | torch.eye(12, dtype=torch.bool)
    given = inputs() | {"attention_mask": keep}
    expected, _ = outcome(model, "sdpa", **given)
    actual, _ = outcome(model, "dimorph_or_eager", **given)
    assert (actual.logits - expected.logits).abs().max() <= 2e-5 * expected.logits.abs().max()


def eager_attention_forward(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **others: Any) -> Any:
    """Stand for the function of a modelling file, which `Layer` belongs to with this file."""
    return query, None


class Layer(torch.nn.Module):
    pass


def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros((1, 2, 8, 32))
    with pytest.raises(NotImplementedError, match="cache: not supported"):
        interface.attention_or_eager(Layer(), q, q, q, None, cache=object())
    with torch.enable_grad(), pytest.raises(RuntimeError, match="no backward pass"):
        interface.attention_or_eager(Layer(), q.requires_grad_(), q, q, None)
    with pytest.raises(NotImplementedError, match="has an argument 'indices'"):  # in place of a mask
        interface.attention_or_eager(Layer(), q, q, q, None, indices=torch.zeros(8))
    with pytest.raises(NotImplementedError, match="dropout: not supported"):  # a layer whose own function is unknown
        interface.attention_or_eager(torch.nn.Module(), q, q, q, None, dropout=0.5)
