"""Random calls of attention, most of them wrong: a right result, or an error that names an argument.

    PYTHONPATH=tests python -m support.attention_fuzz 40000 [FIRST]

A call follows from its seed. Half of the calls go through the public function, half through the C interface of a
dispatching kernel.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dimorph import attention as at
from dimorph.attention import reference
from dimorph.attention.kernels import attention_cpu

HEADS, DIM = 2, 32
_NAMED = re.compile(r"argument '\w+'|axis \w+: the call has")
_SIZES = [0, 1, 3, 31, 2**31, 2**32 + 1]


def _bent(rng: np.random.Generator, array: Any) -> Any:
    """Return the array with another shape, dtype or layout, or something that is no array."""
    dim = int(rng.integers(array.ndim))
    simple = [
        lambda: None,
        lambda: array.astype(rng.choice(["int32", "int64", "float16", "float64", "uint8"])),
        lambda: array[: array.shape[0] // 2],
        lambda: array.reshape(-1),
        lambda: array.sum() if rng.random() < 0.2 else array[None],
        lambda: np.moveaxis(array, dim, 0),
    ]
    kind = int(rng.integers(len(simple) + 2))
    if kind < len(simple):
        return simple[kind]()
    shape, strides = list(array.shape), list(array.strides)
    shape[dim], strides[dim] = int(rng.choice(_SIZES)), 0
    return as_strided(array, shape, strides)


def _index(rng: np.random.Generator, array: Any, on_gpu: bool = False) -> Any:
    """Return the integers with one of them changed, to one that may lead far outside."""
    if array.size and rng.random() < 0.5 and not on_gpu:
        limits = np.iinfo(array.dtype)
        array = array.copy()
        array[rng.integers(array.size)] = rng.choice([-1, 1, 7, 10**6, limits.max, limits.min])
    return array


def _variant(
    rng: np.random.Generator, b: int, n: int, m: int, tokens: tuple[int, int], ragged: bool, on_gpu: bool, which: slice
) -> tuple[Any, bool]:
    """Return a variant, one of some, and whether an array of it was bent."""
    rows, columns = ((tokens[0],), (tokens[1],)) if ragged else ((b, n), (b, m))
    stride = lambda: int(rng.choice([0, 1, n * m, 2 * n * m, -1, 2**40, 2**62]))  # noqa: E731
    lengths = rng.integers(-3, m + 3, b).astype(np.int32)
    made = {
        "Plain": lambda: (),
        "KeyMask": lambda: (rng.random(columns) < 0.5,),
        "KeyPadding": lambda: (_index(rng, lengths, on_gpu),),
        "CausalKeyPadding": lambda: (_index(rng, lengths, on_gpu),),
        "PrefixLM": lambda: (_index(rng, lengths, on_gpu),),
        "ALiBi": lambda: (rng.random(HEADS, np.float32),),
        "SequenceALiBi": lambda: (rng.random((len(lengths), HEADS), np.float32),),
        "Window": lambda: tuple(int(x) for x in rng.choice([-(2**31), -1, 0, 5, 2**31 - 1, 2**40], 2)),
        "ChunkedCausal": lambda: (int(rng.choice([-(2**31), 0, 1, 5, 2**31 - 1, 2**40])),),
        "TreeMask": lambda: (rng.integers(-(2**63), 2**63, rows),),
        "SoftCap": lambda: (float(rng.choice([0.0, 3.0, np.nan, 1e-40])),),
        "DocumentMask": lambda: tuple(rng.integers(0, 3, size).astype(np.int32) for size in (rows, columns)),
        "CustomMask": lambda: (rng.random((b, n, m)) < 0.5, _index(rng, np.arange(b) * n * m, on_gpu)),
        "PackedMask": lambda: (rng.integers(0, 255, b * n * m // 8 + 1).astype(np.uint8), None),
        "Bias": lambda: (rng.random((b, HEADS, n, m), np.float32), stride(), stride()),
    }
    name = str(rng.choice([*made][which]))
    args = made[name]()
    # What a ragged mask needs stands in the memory of the GPU.
    bend = bool(rng.random() < 0.15) and not (on_gpu and ragged and name in ("CustomMask", "PackedMask"))
    if bend:
        args = tuple(_bent(rng, x) if isinstance(x, np.ndarray) else x for x in args)
    return getattr(at, name)(*args), bend


class Made(NamedTuple):
    """The arguments of a call that follow from its seed.

    Attributes:
        arrays: name of an argument -> the array, or None.
        bound: the variant.
        known: the result follows from `reference.attention`, if the call is not refused.
    """

    arrays: dict[str, Any]
    bound: Any
    known: bool


def _another_kernel(arrays: dict[str, Any], dtype: str) -> bool:
    """Return True for another dtype or other head dims: a kernel is compiled for them, before most are refused."""
    q, v = (arrays[name] for name in "qv")
    return q is None or v is None or q.dtype != dtype or (q.shape[-1:], v.shape[-1:]) != ((DIM,), (DIM,))


def made(seed: int, dtype: str = "float32", *, on_gpu: bool = False, which: slice = slice(None)) -> Made:
    """Make the arguments of a call; with `on_gpu`, integers in arrays lead nowhere, as no call can check them there.

    `which` picks the variants.
    """
    rng = np.random.default_rng([seed, 18])
    ragged, b = bool(rng.random() < 0.4), int(rng.integers(0, 4))
    n, m = (int(x) for x in rng.choice([0, 1, 5, 40], 2))
    tokens = b * n + int(rng.integers(0, 3)), b * m + int(rng.integers(0, 3))
    rows = [(t,) if ragged else (b, length) for t, length in zip(tokens, (n, m), strict=True)]
    sizes = {"q": rows[0], "k": rows[1], "v": rows[1], "out": rows[0]}
    arrays: dict[str, Any] = {}
    for name, size in sizes.items():
        arrays[name] = rng.standard_normal((*size, HEADS, DIM), np.float32).astype(dtype)
    arrays["lse"] = np.empty(arrays["q"].shape[:-1], np.float32)
    for name, length in (("cu_seqlens_q", n), ("cu_seqlens_k", m)):
        arrays[name] = np.arange(b + 1, dtype=np.int32) * np.int32(length) if ragged else None
        if ragged and rng.random() < 0.1 and not on_gpu:
            arrays[name] = _index(rng, arrays[name])
    bound, bent = _variant(rng, b, n, m, tokens, ragged, on_gpu, which)
    if rng.random() < 0.5:
        bent = True
        name = str(rng.choice([name for name, x in arrays.items() if x is not None]))
        arrays[name] = _bent(rng, arrays[name])
    if _another_kernel(arrays, dtype):
        bound = at.Plain()  # one variant is enough beside those
    return Made(arrays, bound, not (ragged or bent or bound.variant.name in ("CustomMask", "PackedMask", "Bias")))


def call(seed: int, module: dict[str, Any]) -> str:
    """Make a call; return "right", "refused", or what is wrong with it."""
    arrays, bound, known = made(seed)
    try:
        if seed % 2:
            at.attention(**arrays, variant=bound, scale=0.2)
        else:
            name = bound.variant.name
            if name not in module:
                module[name] = attention_cpu.load(dtype="float32", head_dims=(DIM, DIM), variant=bound.variant)
            positional = [arrays[x] for x in ("q", "k", "v", "out")]
            others = [arrays[x] for x in ("lse", "cu_seqlens_q", "cu_seqlens_k")]
            module[name].attention(*positional, 0.2, name, *others, bool(seed % 4), True, *bound.args)
    except (ValueError, TypeError) as error:
        return refusal(error)
    return judged(arrays, bound, arrays["out"], 1e-5) if known else "right"


def refusal(error: Exception) -> str:
    """Return "refused" if an error names an argument, else the error."""
    return "refused" if _NAMED.search(str(error)) else f"{type(error).__name__}: {error}"


def judged(arrays: Mapping[str, Any], bound: Any, out: Any, bound_of_error: float) -> str:
    """Return "right", or how far a result is off."""
    expected, _ = reference.attention(arrays["q"], arrays["k"], arrays["v"], variant=bound, scale=0.2)
    off = np.abs(out.astype(np.float64) - expected).max(initial=0.0)
    return "right" if off < bound_of_error else f"off by {off}"


def count_results(seeds: Iterable[int], one: Callable[[int], str]) -> dict[str, int]:
    """Make the calls of all seeds and count their results; print what is wrong."""
    found: dict[str, int] = {}
    for seed in seeds:
        print(seed, file=sys.stderr, end="\r")  # the last one, if the process ends
        result = one(seed)
        kind = result if result in ("right", "refused") else "wrong"
        found[kind] = found.get(kind, 0) + 1
        if kind == "wrong":
            print(f"seed {seed}: {result}", flush=True)
    return found


def main(count: int, first: int = 0) -> None:
    module: dict[str, Any] = {}
    found = count_results(range(first, first + count), lambda seed: call(seed, module))
    print(f"{count} calls: {found}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
