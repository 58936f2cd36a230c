"""Every built-in variant, alone and composed, against its definition in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.paths import EXAMPLES

BATCH, QUERIES, KEYS, HEADS = 2, 70, 150, 4
_rng = np.random.default_rng(11)
_mask = _rng.random((BATCH, QUERIES, KEYS)) < 0.4
_mask[0, 3] = False  # a row without keys
_documents = [np.sort(_rng.integers(0, 4, (BATCH, length))).astype(np.int32) for length in (QUERIES, KEYS)]
_slopes = np.array([0.5, 0.25, 0.125, 0.0625], np.float32)

VARIANTS: dict[str, dm.BoundVariant] = {
    "window": at.Window(20, 5),
    "window, open to the left": at.Window(-1, 0),
    "chunks": at.ChunkedCausal(40),
    "chunks of tiles": at.ChunkedCausal(64),
    "chunks of one key": at.ChunkedCausal(1),
    "one chunk": at.ChunkedCausal(2**31 - 1),
    "prefix": at.PrefixLM(np.array([10, 120], np.int32)),
    "key padding": at.KeyPadding(np.array([0, 97], np.int32)),
    "causal, padded": at.CausalKeyPadding(np.array([80, 150], np.int32)),
    "causal, few or too many keys": at.CausalKeyPadding(np.array([-1, 2**31 - 1], np.int32)),
    "causal, padded, soft cap": at.compose(at.CausalKeyPadding(np.array([150, 97], np.int32)), at.SoftCap(5.0)),
    "documents": at.DocumentMask(*_documents),
    "nodes of trees": at.TreeMask(_rng.integers(-(2**63), 2**63, (BATCH, QUERIES))),
    "soft cap": at.SoftCap(3.0),
    "alibi": at.ALiBi(_slopes),
    "alibi, a sequence": at.SequenceALiBi(np.stack([_slopes, 3 * _slopes[::-1]])),
    "causal, alibi, a sequence": at.compose(at.Causal, at.SequenceALiBi(np.stack([-0.1 * _slopes, _slopes[::-1]]))),
    "sinks": at.Sinks(_rng.standard_normal(HEADS).astype(np.float32)),
    "mask": at.CustomMask(_mask),
    "packed mask": at.PackedMask(np.packbits(_mask, bitorder="little")),
    "bias": at.additive_bias(_rng.standard_normal((BATCH, HEADS, QUERIES, KEYS), dtype=np.float32)),
    "bias for all": at.additive_bias(_rng.standard_normal((1, 1, QUERIES, KEYS), dtype=np.float32)),
    "causal, window, soft cap": at.compose(at.Causal, at.Window(30, 0), at.SoftCap(5.0)),
    "soft cap, alibi": at.compose(at.SoftCap(2.0), at.ALiBi(_slopes)),
    "alibi, soft cap": at.compose(at.ALiBi(_slopes), at.SoftCap(2.0)),
    "causal sigmoid": at.compose(at.Causal, at.FlashSigmoid(0.2, -1.0)),
    "sigmoid, bias": at.compose(
        at.FlashSigmoid(0.2, -1.0), at.additive_bias(_rng.standard_normal((1, HEADS, QUERIES, KEYS), dtype=np.float32))
    ),
    "soft caps, alibi": at.compose(at.SoftCap(2.0), at.ALiBi(_slopes), at.SoftCap(0.5), at.Causal),
    "two masks": at.compose(at.CustomMask(_mask), at.PackedMask(np.packbits(_mask[::-1], bitorder="little"))),
    "two biases": at.compose(
        *(at.additive_bias(_rng.standard_normal((1, 1, QUERIES, KEYS), dtype=np.float32)) for _ in range(2))
    ),
    "chunks, soft cap, sinks": at.compose(
        at.ChunkedCausal(33), at.SoftCap(5.0), at.Sinks(_rng.standard_normal(HEADS).astype(np.float32))
    ),
    "causal, sinks": at.compose(at.Causal, at.Sinks(_rng.standard_normal(HEADS).astype(np.float32))),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(attend: at.Attention, name: str) -> None:
    rng = np.random.default_rng(12)
    q = rng.standard_normal((BATCH, QUERIES, HEADS, 32), dtype=np.float32)
    k, v = (rng.standard_normal((BATCH, KEYS, 2, 32), dtype=np.float32) for _ in range(2))
    out, lse = attend(q, k, v, variant=VARIANTS[name], return_lse=True)
    expected, expected_lse = reference.attention(q, k, v, variant=VARIANTS[name])
    assert np.abs(out - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max())
    assert np.array_equal(np.isneginf(lse), np.isneginf(expected_lse))
    assert np.array_equal(np.isnan(lse), np.isnan(expected_lse))
    finite = np.isfinite(expected_lse)
    assert np.abs(lse[finite] - expected_lse[finite]).max(initial=0.0) <= 4e-6


@pytest.mark.parametrize("chunk", [0, -5])
def test_chunks_have_keys(attend: at.Attention, chunk: int) -> None:
    q = np.zeros((1, QUERIES, 1, 32), np.float32)
    with pytest.raises(ValueError, match=f"argument 'chunk': expected a number of keys from 1 on, got {chunk}"):
        attend(q, q, q, variant=at.ChunkedCausal(chunk))


def test_a_hook_that_is_misspelt_is_noticed(tmp_path: Path, warm_store: Path) -> None:
    decay = EXAMPLES / "variant" / "decay.h"
    text = decay.read_text().replace("LogitsTransform", "LogitTransform").replace("struct Decay", "struct Misspelt")
    (tmp_path / "misspelt.h").write_text(text.replace("DM_HD Decay", "DM_HD Misspelt"))
    variant = dm.Variant("Misspelt", header="misspelt.h", params=(dm.scalar("rate"),), root=tmp_path)
    q = np.zeros((1, 40, 4, 32), np.float32)
    with pytest.raises(dm.BuildError, match="none of the hooks and traits that attention knows; is one misspelt"):
        at.attention(q, q, q, variant=variant(0.1))


def test_order_counts(attend: at.Attention) -> None:
    q, k, v = (np.ones((1, 40, 4, 32), np.float32) for _ in range(3))
    k *= np.linspace(-1, 1, 40, dtype=np.float32)[None, :, None, None]
    v *= np.linspace(0, 1, 40, dtype=np.float32)[None, :, None, None]
    first, second = (attend(q, k, v, variant=VARIANTS[name]) for name in ("soft cap, alibi", "alibi, soft cap"))
    assert np.abs(first - second).max() > 1e-3


def test_parameters_of_one_name_get_the_name_of_their_part() -> None:
    bias = np.zeros((1, 1, QUERIES, KEYS), np.float32)
    parts = (at.FlashSigmoid(0.2, -1.0), at.additive_bias(bias), at.Causal)
    assert [param.name for param in at.compose(*parts).variant.params] == [
        *("scale", "FlashSigmoid_bias", "Bias_bias", "bias_batch_stride", "bias_head_stride")
    ]
    twice = at.compose(at.SoftCap(1.0), at.SoftCap(2.0), at.SoftCap(3.0)).variant
    assert [param.name for param in twice.params] == ["SoftCap_soft_cap", "SoftCap2_soft_cap", "SoftCap3_soft_cap"]
    masks = at.compose(at.CustomMask(_mask), at.PackedMask(bias)).variant
    assert [param.name for param in masks.params if param.optional] == [
        *("maybe_CustomMask_mask_starts", "maybe_PackedMask_mask_starts")
    ]
    assert at.compose(at.Causal, at.SoftCap(1.0)).variant.params[0].name == "soft_cap"
    with pytest.raises(ValueError, match="expected at least one variant"):
        at.compose()


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (at.compose(at.SoftCap(5.0), at.SoftCap(0.0)), "argument 'SoftCap2_soft_cap': expected"),
        (
            at.compose(at.FlashSigmoid(0.2, -1.0), at.Bias(np.zeros((1, 1, QUERIES, KEYS), np.float32), 0, 10**9)),
            "'bias_head_stride': expected all of sequence 0 inside the 10500 elements of 'Bias_bias'",
        ),
        (
            at.compose(at.CustomMask(_mask), at.PackedMask(np.ones(3, np.uint8), np.zeros(2, np.int64))),
            "'maybe_PackedMask_mask_starts': .* inside the 3 elements of 'PackedMask_mask'",
        ),
        (
            at.compose(at.FlashSigmoid(None, -1.0), at.additive_bias(np.zeros((1, 1, QUERIES, KEYS + 1), np.float32))),
            "argument 'scale': expected a number",
        ),
        (
            at.compose(at.FlashSigmoid(1.0, "x"), at.additive_bias(np.zeros((1, 1, QUERIES, KEYS), np.float32))),
            "argument 'FlashSigmoid_bias': expected a number, got a str",
        ),
    ],
)
def test_an_error_in_a_renamed_parameter_has_its_new_name(
    attend: at.Attention, variant: dm.BoundVariant, message: str
) -> None:
    q, k = (np.zeros((BATCH, length, HEADS, 32), np.float32) for length in (QUERIES, KEYS))
    with pytest.raises((ValueError, TypeError), match=message):
        attend(q, k, k, variant=variant)
