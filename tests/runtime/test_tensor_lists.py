"""Lists of tensors as arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

import dimorph as dm
from support.arrays import OnlyDLPack
from support.kernels import SIGNED

jax.config.update("jax_enable_x64", True)


def _frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


@pytest.fixture
def functions(warm_store: object) -> dm.Module:
    return SIGNED.load()


MAKERS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda array: array,
    "read_only": _frozen,
    "torch": torch.from_numpy,
    "jax": jnp.array,
    "only_dlpack": OnlyDLPack,
}


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_list_of_arrays_is_read(functions: dm.Module, maker: str, kind: type) -> None:
    out = np.zeros(2)
    given = kind(MAKERS[maker](np.full(2, 10.0**power)) for power in range(3))
    assert functions.add_all(given, out) == 3
    assert out.tolist() == [111, 111]


def test_libraries_mix_and_lists_may_be_empty(functions: dm.Module) -> None:
    out = np.zeros(2)
    assert functions.add_all([make(np.ones(2)) for make in MAKERS.values()], out) == len(MAKERS)
    assert out.tolist() == [5, 5]
    assert functions.add_all([], out) == functions.add_all((), out=out) == 0


def test_arrays_of_a_list_are_written_in_place(functions: dm.Module) -> None:
    outs = [np.full(3, -1.0), torch.full((1,), -1.0, dtype=torch.float64)]
    functions.number_all(outs)
    assert [out.tolist() for out in outs] == [[0, 0, 0], [1]]
    functions.number_all((outs[0],), maybe_unused=[_frozen(np.ones(1))])
    with pytest.raises(ValueError, match="number_all: argument 'outs': item 1: expected a writable array"):
        functions.number_all([outs[0], _frozen(np.ones(2))])


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (np.ones(2), TypeError, "argument 'xs': expected a list or tuple of tensors, got a tensor"),
        ("xs", TypeError, "argument 'xs': expected a list or tuple of tensors, got a str"),
        ([np.ones(2), 1.0], TypeError, r"argument 'xs': item 1: expected a tensor \(any array .*\), got a float"),
        ([np.ones(2), None], TypeError, r"argument 'xs': item 1: expected a tensor \(any array .*\), got None"),
        ([[np.ones(2)]], TypeError, r"argument 'xs': item 0: expected a tensor .*, got a sequence"),
        (
            [np.ones(2), np.ones(3)],
            ValueError,
            r"argument 'xs': item 1: expected shape \[count\], here \(2\), got",
        ),
        ([np.ones(2, np.float32)], TypeError, "argument 'xs': item 0: expected dtype float64, got float32"),
        ([np.ones(2), np.array(["a"])], TypeError, "argument 'xs': item 1: expected an array that DLPack can export"),
        ([np.ones(2, ml_dtypes.bfloat16)], TypeError, "argument 'xs': item 0: expected dtype float64, got bfloat16"),
    ],
)
def test_a_wrong_item_is_named(functions: dm.Module, given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^add_all: {said}"):
        functions.add_all(given, np.zeros(2))


def test_an_array_outside_of_the_list_is_still_named(functions: dm.Module) -> None:
    with pytest.raises(TypeError, match=r"^add_all: argument 'out': expected dtype float64, got float32"):
        functions.add_all([np.ones(2)], np.zeros(2, np.float32))
