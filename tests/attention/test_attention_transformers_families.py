"""A sample of benchmarks/attention/transformers_sweep.py: families of transformers at toy size against "eager"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from benchmarks.attention import transformers_sweep as sweep

from dimorph.attention.transformers import register


@pytest.fixture(autouse=True)
def registered(warm_store: Path) -> None:
    register()
    transformers.AttentionInterface.register("dimorph", sweep.counted)


def outcomes(task: str, model_type: str) -> dict[str, str]:
    with torch.no_grad():
        return sweep.family(model_type, sweep.TASKS[task][model_type])


@pytest.mark.parametrize(
    ("task", "model_type"),
    [
        ("model", "albert"),
        ("model", "layoutlm"),  # makes its masks itself
        ("model", "splinter"),
        ("model", "vit"),
        ("causal", "biogpt"),
        ("causal", "deepseek_v4"),  # joins a mask with another one
        ("causal", "gpt2"),
        ("causal", "qwen3"),
        ("seq2seq", "bigbird_pegasus"),  # the encoder adds masks itself
        ("seq2seq", "nllb-moe"),  # the decoder adds masks itself
        ("seq2seq", "t5"),  # position biases
    ],
)
def test_a_family_is_equal_to_eager(task: str, model_type: str) -> None:
    found = outcomes(task, model_type)
    assert sweep.kind(found) == "equal", found


@pytest.mark.parametrize(
    ("task", "model_type", "reason"),
    [
        ("causal", "bloom", "BloomForCausalLM: not supported .*: its layers compute attention themselves"),
        ("causal", "falcon", "FalconForCausalLM: not supported .*: its layers compute attention themselves"),
        ("causal", "git", "GitForCausalLM: not supported .*: it chooses its layers from a table"),
        ("causal", "gpt_neo", "GPTNeoForCausalLM: not supported .*: its layers compute attention themselves"),
        ("causal", "xglm", "XGLMForCausalLM: not supported .*: its layers compute attention themselves"),
        ("model", "mpnet", "MPNetModel: not supported .*: its layers compute attention themselves"),
        ("model", "sam", "SamModel: not supported .*: it chooses its layers from a table"),
    ],
)
def test_a_family_is_refused_when_it_is_made(task: str, model_type: str, reason: str) -> None:
    name = sweep.TASKS[task][model_type]
    model_class = getattr(transformers, name)
    small = transformers.AutoConfig.for_model(model_type)
    sweep.shrink(small)
    with pytest.raises(ValueError, match=reason):
        model_class._from_config(small, attn_implementation="dimorph")


def test_a_layer_with_another_argument_is_refused() -> None:
    found = outcomes("model", "inkling2_text")
    assert all("refused: NotImplementedError: " in text and "argument 'sinks'" in text for text in found.values()), (
        found
    )


def test_the_sweep_finds_wrong_attention() -> None:
    def wrong(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **others: Any) -> Any:
        return sweep.counted(module, query, key, value, None, **others | {"is_causal": False})

    transformers.AttentionInterface.register("dimorph", wrong)
    assert sweep.kind(outcomes("model", "gpt2")) == "WRONG"
