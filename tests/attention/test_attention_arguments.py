"""Every argument of attention and of variants, given a value of every wrong kind: an error that names the argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import dimorph as dm
from dimorph import attention as at
from dimorph.attention.variants import builtin
from support.arrays import OnlyDLPack

pytestmark = pytest.mark.usefixtures("warm_store")

Q = np.linspace(-1, 1, 640, dtype=np.float32).reshape(2, 5, 2, 32)


class Claims:
    """An array by its attributes, which cannot be exported."""

    shape = Q.shape
    dtype = Q.dtype


class LikeCuPy(OnlyDLPack):
    """An array of an unknown library that lies on a GPU, as CuPy's arrays do."""

    shape = Q.shape
    dtype = Q.dtype

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the memory of a GPU cannot be exported here")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


WRONG: dict[str, Any] = {
    "none": None,
    "int": 3,
    "huge": 10**30,
    "float": 1.5,
    "nan": float("nan"),
    "true": True,
    "list": [1, 2],
    "str": "abc",
    "bytes": b"abc",
    "dict": {},
    "type": np.float32,
    "array_type": np.ndarray,
    "scalar_of_numpy": np.float32(1),
    "no_dimensions": np.zeros((), np.int32),
    "one_dimension": np.zeros(3, np.float32),
    "five_dimensions": np.zeros((1, 1, 1, 1, 32), np.float32),
    "empty": np.zeros(0, np.float32),
    "complex": Q.astype(np.complex64),
    "float64": Q.astype(np.float64),
    "other_byte_order": np.zeros(Q.shape, Q.dtype.newbyteorder()),
    "objects": np.array([None]),
    "texts": np.array(["a"]),
    "times": np.zeros(3, "M8[s]"),
    "records": np.zeros(3, dtype=[("a", np.float32)]),
    "masked": np.ma.masked_array(Q.astype(np.float64)),
    "only_dlpack": OnlyDLPack(Q.astype(np.complex64)),
    "claims": Claims(),
    "like_cupy": LikeCuPy(Q),
    "jax": jnp.zeros(3, jnp.int8),
    "meta": torch.empty(2, 5, 2, 32, device="meta"),
    "sparse": torch.zeros(2, 2).to_sparse(),
    "compressed": torch.eye(2).to_sparse(1),
}

# What is no wrong value of an argument, or of no meaning on the CPU.
NUMBERS = {"int", "float", "true", "scalar_of_numpy"}
ARRAYS = {kind for kind, value in WRONG.items() if hasattr(value, "__dlpack__")} - {"array_type", "type"}
RIGHT: dict[str, set[str]] = {
    "q": set(),
    "k": set(),
    "v": set(),
    "variant": set(),
    "scale": NUMBERS | {"none"},
    "cu_seqlens_q": {"none"},
    "cu_seqlens_k": {"none"},
    "seqlens_q": {"none"},
    "out": {"none"},
    "max_seqlen_q": {"none", "int", "huge", "true"},
    "max_seqlen_k": {"none", "int", "huge", "true"},
    "return_lse": {"true", "int", "huge"},
    "batch_invariant": {"true", "int", "huge"},
    "lse": {"none"},
    "workspace": {"none"} | ARRAYS,
    "stream": {"none"},
}
LENGTHS = np.array([1, 2], np.int32)
GOOD: dict[str, list[Any]] = {
    "Plain": [],
    "Causal": [],
    "FlashSigmoid": [1.0, 0.0],
    "Window": [2, 0],
    "ChunkedCausal": [2],
    "PrefixLM": [LENGTHS],
    "KeyPadding": [LENGTHS],
    "CausalKeyPadding": [LENGTHS],
    "KeyMask": [np.ones((2, 5), bool)],
    "DocumentMask": [np.zeros((2, 5), np.int32), np.zeros((2, 5), np.int32)],
    "TreeMask": [np.ones((2, 5), np.int64)],
    "SoftCap": [3.0],
    "ALiBi": [np.ones(2, np.float32)],
    "SequenceALiBi": [np.ones((2, 2), np.float32)],
    "Sinks": [np.ones(2, np.float32)],
    "CustomMask": [np.ones((2, 5, 5), bool), None],
    "BroadcastMask": [np.ones((1, 1, 5, 5), bool), 0, 0],
    "PackedMask": [np.ones(7, np.uint8), None],
    "Bias": [np.ones((1, 1, 5, 5), np.float32), 0, 0],
}


def refused(call: Callable[[], object], names: tuple[str, ...], kind: str) -> str | None:
    """Return what is wrong with how a call is refused; None if its error names one of the arguments."""
    try:
        call()
    except (TypeError, ValueError) as error:
        text = str(error)
        if not any(f"argument '{name}'" in text for name in names) or "\n" in text or len(text) > 300:
            return f"{kind}: {type(error).__name__}: {text}"
        return None
    except Exception as error:
        return f"{kind}: {type(error).__name__}: {error}"
    return f"{kind}: no error"


@pytest.mark.parametrize("name", inspect.signature(at.attention).parameters)
def test_an_argument_of_a_wrong_kind_is_named(name: str) -> None:
    good: dict[str, Any] = dict.fromkeys("qkv", Q)
    if name.startswith("cu_seqlens"):
        offsets = np.array([0, 5, 10], np.int32)
        good = dict.fromkeys("qkv", Q.reshape(10, 2, 32)) | {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets}
    calls = {kind: partial(at.attention, **(good | {name: given})) for kind, given in WRONG.items()}
    wrong = [refused(call, (name,), kind) for kind, call in calls.items() if kind not in RIGHT[name]]
    # A q of another kind is the measure of k.
    assert not [line for line in wrong if line and not (name == "q" and "argument 'k': expected" in line)]


@pytest.mark.parametrize("kind", sorted(set.union(*RIGHT.values())))
def test_an_argument_of_a_right_kind_is_taken(kind: str) -> None:
    for name, kinds in RIGHT.items():
        if kind in kinds:
            at.attention(**({"q": Q, "k": Q, "v": Q} | {name: WRONG[kind]}))


def test_every_variant_is_tried() -> None:
    assert set(GOOD) == {name for name, one in vars(builtin).items() if isinstance(one, dm.Variant)}


@pytest.mark.parametrize("name", [name for name, values in GOOD.items() if values])
def test_a_parameter_of_a_wrong_kind_is_named(name: str) -> None:
    variant: dm.Variant = getattr(builtin, name)
    at.attention(Q, Q, Q, variant=variant(*GOOD[name]))
    wrong = []
    for index, param in enumerate(variant.params):
        right = {"none"} if param.optional else set() if param.is_tensor else {"true"}
        right |= NUMBERS | {"nan"} if param.dtype in ("", "float32") and not param.is_tensor else set()
        right |= {"int"} if param.dtype.startswith("int") and not param.is_tensor else set()
        for kind, given in WRONG.items():
            values = [*GOOD[name][:index], given, *GOOD[name][index + 1 :]]
            if kind not in right:
                call = partial(at.attention, Q, Q, Q, variant=variant(*values))
                wrong.append(refused(call, (param.name,), f"{param.name} {kind}"))
    assert not [line for line in wrong if line]


@pytest.mark.parametrize(("function", "name"), [(at.additive_bias, "bias"), (at.broadcast_mask, "mask")])
def test_an_array_of_a_wrong_kind_is_named(function: Callable[[Any], dm.BoundVariant], name: str) -> None:
    def attend(given: Any) -> None:
        at.attention(Q, Q, Q, variant=function(given))

    names = (name, function(np.ones((1, 1, 5, 5))).variant.params[0].name)
    wrong = [refused(partial(attend, given), names, kind) for kind, given in WRONG.items()]
    assert not [line for line in wrong if line]


def test_libraries_may_be_mixed_but_memory_is_needed() -> None:
    expected = at.attention(Q, Q, Q)
    np.testing.assert_array_equal(at.attention(Q, jnp.asarray(Q), torch.from_numpy(Q)), expected)
    meta = torch.empty(Q.shape, device="meta")
    for name in "kv":
        with pytest.raises(TypeError, match=f"argument '{name}': .* got dtype torch.float32 on meta: "):
            at.attention(**({one: torch.from_numpy(Q) for one in "qkv"} | {name: meta}))
    with pytest.raises(TypeError, match=r"argument 'v': expected a torch tensor, as torch has to compute"):
        at.attention(meta, meta, Q)
