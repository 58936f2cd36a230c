"""Every family of transformers at toy size, with Dimorph's attention against "eager".

A family is a model type and a task, made from its default configuration with small numbers in place of the large ones.
Each is run on one batch: without padding, with padding on the left, on the right and in the middle, and generates with
a dynamic, a static and no cache. Prints a row for each: `equal`, `unused` (equal, but no layer came to Dimorph),
`refused` with the reason, or `WRONG`.

    python benchmarks/attention/transformers_sweep.py [family ...]

Exits with 1 if a result is wrong. Takes some minutes.
"""

from __future__ import annotations

import argparse
import collections
import copy
import inspect
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.models.auto import configuration_auto, modeling_auto

import dimorph.attention.transformers

BATCH, LENGTH, VOCABULARY, NEW_TOKENS = 2, 24, 256, 4
# Relative to the largest output. Two orders of summation differ by 1e-6, wrong attention by 1e-2 and more.
BOUND = 1e-4
SECONDS = 60  # for one family

TASKS = {
    "model": modeling_auto.MODEL_MAPPING_NAMES,
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
# The first pattern that a number's name contains decides; others stay as they are.
SMALL: tuple[tuple[str, int | None], ...] = (
    (r"_token_id$|_token_index$|^pad_|^bos_|^eos_|_id$", None),
    (r"per_layer_input", None),
    (r"vocab", VOCABULARY),
    (r"heads?$|num_attention_heads|n_head|attention_heads", 4),
    (r"(^|_)(head_dim|kv_channels|d_kv|v_head_dim|qk_nope_head_dim|qk_head_dim)$|head_size", 16),
    (r"qk_rope_head_dim|rotary_dim$", 16),
    (r"lora_rank|q_lora|kv_lora|time_step_rank", 16),
    (r"expert.*per_tok|top_k|topk_group|n_group$|num_selected|moe_k$|moe_top", 1),
    (r"num_.*experts|n_.*experts|moe_num|num_local", 4),
    (r"intermediate|ffn_dim|d_ff|n_inner|ffn_hidden|feed_forward|mlp_dim|encoder_ffn|decoder_ffn", 64),
    (r"hidden_size|d_model|^dim$|n_embd|embed_dim|embedding_size|emb_dim|projection_dim|n_embed|hidden_dim", 64),
    (r"(num|n)_.*layers?$|(num|n)_layers?$|^layers$|encoder_layers|decoder_layers|depth$|num_blocks|n_layer", 2),
    (r"sliding_window|attention_window|window_size|local_attention|index_topk|attention_chunk_size", 8),
    (r"max_position|n_positions|max_seq|n_ctx|max_source|max_target", 128),
    (r"image_size|img_size", 32),
    (r"patch_size", 8),
)


def shrink(config: PreTrainedConfig, kv_heads: int = 2) -> None:
    """Make a configuration small, and with it the ones inside."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            shrink(value, kv_heads)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
            small = next((small for pattern, small in SMALL if re.search(pattern, name)), None)
            if re.search(r"(num|n)_(key_value|kv)_heads|num_query_groups|multi_query_group_num", name):
                setattr(config, name, kv_heads)
            elif small is not None and (value > small or "head" in name):
                setattr(config, name, small)
    layers = getattr(config, "num_hidden_layers", None)
    for name, value in list(vars(config).items()):
        if name.endswith("layer_types") and isinstance(value, list) and isinstance(layers, int):
            kinds = list(dict.fromkeys(value))[:layers]
            setattr(config, name, (kinds * layers)[:layers])
        elif name in ("initializer_range", "init_std", "initializer_factor", "init_range") and isinstance(value, float):
            setattr(config, name, max(value, 0.15))  # such large weights that attention is far from uniform
        elif name.endswith("_token_id") and isinstance(value, int) and value >= VOCABULARY:
            setattr(config, name, 3)
        elif name.endswith("_token_id") and isinstance(value, list):
            setattr(config, name, [min(item, VOCABULARY - 1) for item in value])
    # Some decoders take a first token that is padding for a query that sees nothing.
    for name, token in (("pad_token_id", 0), ("decoder_start_token_id", 2)):
        if not getattr(config, name, None):
            setattr(config, name, token)


def make(model_class: Any, config: PreTrainedConfig, implementation: str) -> Any:
    torch.manual_seed(0)
    model = model_class._from_config(copy.deepcopy(config), attn_implementation=implementation)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # sinks and biases start as zeros
        if parameter.is_floating_point():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model.eval()


def cases(model: Any) -> Iterator[tuple[str, dict[str, Any], Tensor]]:
    """Yield names of cases, arguments of `forward`, and which positions count."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(10, VOCABULARY - 1, (BATCH, LENGTH), generator=generator)
    # CLIP and its kin pool at the first end of text, or at the largest number; padding never covers position 14.
    end = getattr(getattr(model.config, "text_config", model.config), "eos_token_id", None)
    ids[:, 14] = end if isinstance(end, int) and end != 2 else VOCABULARY - 1
    parameters = inspect.signature(model.forward).parameters
    inputs = {name: value for name, value in other_inputs(model, generator).items() if name in parameters}
    if "input_ids" in parameters:
        inputs["input_ids"] = ids
    if "decoder_input_ids" in parameters:
        inputs["decoder_input_ids"] = ids[:, :9].flip(1)
    everything = torch.ones((BATCH, LENGTH), dtype=torch.bool)
    yield "plain", inputs, everything
    if "input_ids" not in parameters or "attention_mask" not in parameters:
        return
    for side, first, behind in (("left", 0, 9), ("right", LENGTH - 9, LENGTH), ("middle", 6, 13)):
        keep = everything.clone()
        keep[0, first:behind] = False
        padded = dict(inputs, input_ids=torch.where(keep, ids, getattr(model.config, "pad_token_id", 0) or 0))
        yield side, padded | {"attention_mask": keep.long()}, keep


def other_inputs(model: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """Return images and sounds of the sizes that a configuration, or the one inside of its kind, asks for."""
    images = getattr(model.config, "vision_config", model.config)
    size = getattr(images, "image_size", 32)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = getattr(images, "num_channels", 3)
    channels = channels if isinstance(channels, int) else 3
    sounds = getattr(model.config, "audio_config", model.config)
    bins = getattr(sounds, "num_mel_bins", getattr(sounds, "feature_size", 80))
    frames = 2 * getattr(sounds, "max_source_positions", 100)
    return {
        "pixel_values": torch.randn((BATCH, channels, height, width), generator=generator),
        "input_values": torch.randn((BATCH, 4000), generator=generator),
        "input_features": torch.randn((BATCH, bins, frames), generator=generator),
    }


def run(model: Any, inputs: dict[str, Any]) -> Any:
    torch.manual_seed(4)  # some models draw the patches that they mask
    return model(**inputs)


def outputs(result: Any) -> list[Tensor]:
    """Return the tensors of a result that hold what the layers computed."""
    names = ("logits", "last_hidden_state", "encoder_last_hidden_state", "text_embeds", "image_embeds", "pooler_output")
    found = [result[name] for name in names if isinstance(result.get(name), Tensor)]
    if not found:
        raise TypeError(f"no known output in {list(result)}")
    return [tensor.float() for tensor in found if tensor.is_floating_point()]


def difference(expected: list[Tensor], actual: list[Tensor], keep: Tensor) -> float:
    """Return the largest difference where sequences are not padded, relative to the largest output."""
    worst = 0.0
    for pair in zip(expected, actual, strict=True):
        a, b = (x[keep] if x.shape[:2] == keep.shape else x for x in pair)
        if not torch.equal(a.isnan(), b.isnan()):
            return float("inf")
        a, b = a.nan_to_num(), b.nan_to_num()
        worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)))
    return worst


def refusal(error: Exception) -> str | None:
    """Return the reason that an error gives, if it is a refusal of Dimorph's."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    ours = isinstance(error, (ValueError, TypeError, NotImplementedError, dimorph.errors.DimorphError))
    if ours and any(word in text for word in ("dimorph", "attention:", "attention_forward:", "attention mask:")):
        return f"{type(error).__name__}: {text}"
    return None


def compare(eager: Any, ours: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the outcome of each case that "eager" can run."""
    for name, inputs, keep in cases(eager):
        try:
            expected = outputs(run(eager, inputs))
        except Exception as error:
            yield name, f"skipped, eager: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        yield name, outcome(lambda: difference(expected, outputs(run(ours, inputs)), keep))  # noqa: B023
    if not eager.can_generate():
        return
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(10, VOCABULARY, (BATCH, LENGTH), generator=generator)
    keep = torch.ones_like(ids)
    keep[0, :5] = 0
    for name, cache in (
        ("dynamic", {}),
        ("static", {"cache_implementation": "static"}),
        ("none", {"use_cache": False}),
    ):

        def generated(model: Any, cache: dict[str, Any] = cache) -> list[Tensor]:
            result = model.generate(
                input_ids=ids,
                attention_mask=keep,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                disable_compile=True,
                **cache,
            )
            return [torch.stack(result.logits, 1).float()]

        try:
            expected = generated(eager)
        except Exception as error:
            yield f"generate, {name}", f"skipped, eager: {type(error).__name__}: {str(error)[:60]}"
            continue
        everything = torch.ones((BATCH, NEW_TOKENS), dtype=torch.bool)
        yield f"generate, {name}", outcome(lambda: difference(expected, generated(ours), everything))  # noqa: B023


calls: collections.Counter[str] = collections.Counter()


def counted(*args: Any, **kwargs: Any) -> Any:
    calls["attention"] += 1
    return dimorph.attention.transformers.attention_forward(*args, **kwargs)


def outcome(measure: Callable[[], float]) -> str:
    calls.clear()
    try:
        found = measure()
    except Exception as error:
        reason = refusal(error)
        return f"refused: {reason}" if reason else f"ERROR {type(error).__name__}: {str(error)[:200]}"
    return f"WRONG by {found:.1e}" if found > BOUND else "equal" if calls else "unused"


def family(model_type: str, class_name: str) -> dict[str, str]:
    """Return the outcomes of one family, by case."""
    found = family_of(model_type, class_name, kv_heads=2)
    # Some layers have as many heads of keys as of queries, whatever their configuration says.
    return family_of(model_type, class_name, kv_heads=4) if kind(found) == "skipped" else found


def family_of(model_type: str, class_name: str, kv_heads: int) -> dict[str, str]:
    try:
        model_class: Any = getattr(transformers, class_name)
        config = configuration_auto.CONFIG_MAPPING[model_type]()
        shrink(config, kv_heads)
        eager = make(model_class, config, "eager")
    except Exception as error:
        return {"make": f"skipped, eager: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"}
    if sum(parameter.numel() for parameter in eager.parameters()) > 50_000_000:
        return {"make": "skipped, eager: too large"}
    try:
        ours = make(model_class, config, "dimorph")
    except Exception as error:
        reason = refusal(error)
        return {"make": f"refused: {reason}" if reason else f"ERROR {type(error).__name__}: {str(error)[:100]}"}
    try:
        ours.load_state_dict(eager.state_dict())
    except Exception as error:
        return {"make": f"skipped, eager: {error}"[:100]}
    return dict(compare(eager, ours))


def kind(outcomes: dict[str, str]) -> str:
    """Return the kind of the worst outcome."""
    kinds = [text.split()[0].rstrip(":,") for text in outcomes.values()]
    return min(kinds, key=["WRONG", "ERROR", "refused", "equal", "unused", "skipped"].index)


def late(*_: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="model types; default: all")
    chosen = parser.parse_args().families
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    dimorph.attention.transformers.register()
    transformers.AttentionInterface.register("dimorph", counted)
    signal.signal(signal.SIGALRM, late)
    totals: collections.Counter[str] = collections.Counter()
    for task, names in TASKS.items():
        for model_type, class_names in names.items():
            if chosen and model_type not in chosen:
                continue
            class_name = class_names if isinstance(class_names, str) else class_names[0]
            signal.alarm(SECONDS)
            try:
                outcomes = family(model_type, class_name)
            except TimeoutError as error:
                outcomes = {"make": f"skipped, {error}"}
            finally:
                signal.alarm(0)
            worst = kind(outcomes)
            totals[worst] += 1
            if all(text == "equal" for text in outcomes.values()):
                print(f"{task:8} {class_name:45} equal ({', '.join(outcomes)})", flush=True)
            else:
                for case, text in outcomes.items():
                    print(f"{task:8} {class_name:45} {case:18} {text}", flush=True)
    print(dict(totals))
    return 1 if totals["WRONG"] or totals["ERROR"] else 0


if __name__ == "__main__":
    sys.exit(main())
