"""Arrays that their library cannot export: an error of ours, with the name that the caller knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dimorph as dm
from support.kernels import FUNCTOR

UNEXPORTABLE = {
    "meta": torch.empty(2, device="meta", dtype=torch.float64),
    "sparse": torch.zeros(2, dtype=torch.float64).to_sparse(),
    "texts": np.array(["a"]),
    "objects": np.array([None]),
}


@pytest.mark.parametrize("kind", UNEXPORTABLE)
def test_an_array_that_cannot_be_exported_is_named(functions: dm.Module, kind: str) -> None:
    message = r"^sum: argument 'x': expected an array that DLPack can export, got dtype [^\n]*$"
    with pytest.raises(TypeError, match=message):
        functions.sum(UNEXPORTABLE[kind])


@pytest.mark.parametrize("kind", UNEXPORTABLE)
@pytest.mark.parametrize("variants", ["Shift", ["Plain", "Shift"]])
def test_an_array_of_a_variant_is_named_as_its_author_wrote_it(warm_store: object, variants: Any, kind: str) -> None:
    module = FUNCTOR.load(variant=variants)
    values, table, bias = np.ones(2), np.ones(2, np.float32), np.ones(2)
    module.functor("Shift", values, 1.0, 2, False, table, bias)
    assert values.tolist() == [5, 5]
    for name, arrays in (("table", (UNEXPORTABLE[kind], bias)), ("maybe_bias", (table, UNEXPORTABLE[kind]))):
        with pytest.raises(TypeError, match=f"^functor: argument '{name}': expected an array that DLPack can export"):
            module.functor("Shift", values, 1.0, 2, False, *arrays)
    with pytest.raises(TypeError, match=r"^functor: argument 'values': expected an array that DLPack can export"):
        module.functor("Shift", UNEXPORTABLE[kind], 1.0, 2, False, table, bias)
