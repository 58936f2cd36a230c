"""Tensors of a variant: their dtype and sizes follow the axes of the kernel, and each call checks them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from support.arrays import on_device
from support.forms import Form
from support.kernels import WEIGHTED, WEIGHTS

pytestmark = pytest.mark.usefixtures("warm_store")


def ones(shape: int | tuple[int, ...], dtype: str = "f4") -> Any:
    return np.ones(shape, dtype)


@pytest.mark.parametrize(("dtype", "width", "shape"), [("float32", 4, (3, 2)), ("float64", 8, (5, 1))])
def test_tensors_have_the_dtype_and_sizes_of_the_axes(
    mode: Form, dtype: str, width: int, shape: tuple[int, int]
) -> None:
    call = mode.load(WEIGHTED, dtype=dtype, width=width, shape=shape).weighted
    x, weights = ones(width, dtype), np.arange(width).astype(dtype)
    assert call(x, *shape, weights, None) == weights.sum()
    assert call(x, *shape, weights, ones((shape[0], 2), "i4"), ones((1, 1, 1), dtype)) == weights.sum() + 2000


@pytest.mark.parametrize(
    ("extra", "error", "said"),
    [
        ([ones(1)], ValueError, "argument 'weights': expected shape [width], here (4), got (1)"),
        ([ones(0)], ValueError, "argument 'weights': expected shape [width], here (4), got (0)"),
        ([ones((2, 4))], ValueError, "argument 'weights': expected shape [width], here (4), got (2, 4)"),
        ([ones(())], ValueError, "argument 'weights': expected shape [width], here (4), got ()"),
        ([ones(4, "f8")], TypeError, "argument 'weights': expected dtype float32, got float64"),
        (
            [ones(4), ones((2, 2), "i4")],
            ValueError,
            "argument 'maybe_pairs': expected shape [ROWS, 2], here (3, 2), got (2, 2)",
        ),
        (
            [ones(4), ones(6, "i4")],
            ValueError,
            "argument 'maybe_pairs': expected shape [ROWS, 2], here (3, 2), got (6)",
        ),
        ([ones(4), None, ones(1, "f8")], TypeError, "argument 'maybe_free': expected dtype float32, got float64"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(mode: Form, extra: list[Any], error: type, said: str) -> None:
    call = mode.load(WEIGHTED, dtype="float32", width=4, shape=(3, 2)).weighted
    with pytest.raises(error) as caught:
        call(ones(4), 3, 2, *extra, *[None] * (3 - len(extra)))
    assert str(caught.value) == f"weighted: {said}"


def _kernel(variant: dm.Variant, **axis: Any) -> dm.Kernel:
    axes = [
        dm.dtype_axis("dtype", "DType", ["float32"]),
        dm.int_axis("width", "WIDTH", [4]),
        dm.variant_axis("variant", "V", default=variant, **axis),
    ]
    return dm.Kernel(name="k", entry="weighted.cc", case=["weighted_case.cc"], axes=axes)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (
            dm.tensor("t", "float32", "dim"),
            "tensor 't': shape: expected numbers and names of sizes .width, WIDTH., got 'dim'",
        ),
        (dm.tensor("t", "float32", "width, *rows"), "tensor 't': shape: expected .*, got '\\*rows'"),
        (dm.tensor("t", "float32", "dtype"), "tensor 't': shape: expected .*, got 'dtype'"),
        (dm.tensor("t", "width"), r"tensor 't': expected a dtype, or the name of a dtype axis \(dtype\), got 'width'"),
        (dm.tensor("t", "DType"), "tensor 't': expected a dtype, .*, got 'DType'"),
    ],
)
def test_a_shape_or_dtype_that_the_kernel_does_not_know_is_refused(tensor: Any, said: str) -> None:
    other = dm.Variant("Other", header="weights.h", params=(tensor,))
    with pytest.raises(dm.DeclarationError, match=f"kernel 'k': variant Other: {said}"):
        _kernel(other)
    with pytest.raises(
        dm.DeclarationError, match=f"kernel 'weighted': variant Other: {said}".replace("width, WIDTH", ".*")
    ):
        WEIGHTED.load(dtype="float32", width=4, shape=(3, 2), variant=other)


def test_a_kernel_may_know_sizes_of_its_own() -> None:
    variant = dm.Variant("Other", header="weights.h", params=(dm.tensor("t", "float32", "*rows|1, batch"),))
    assert _kernel(variant, sizes=["*rows", "batch"]).axes
    with pytest.raises(dm.DeclarationError, match=r"expected numbers and names of sizes \(batch\), got '\*rows[|]1'$"):
        _kernel(variant, sizes=["batch"])


@pytest.mark.parametrize("shape", ["a b", "a,,b", ["a", ""], "-1", ["a", 1.5]])
def test_a_shape_that_cannot_be_read_is_refused(shape: Any) -> None:
    with pytest.raises(dm.DeclarationError, match=r"tensor 't': shape: expected names and numbers, got"):
        dm.tensor("t", "float32", shape)


def test_a_shape_is_text_or_a_list() -> None:
    assert dm.tensor("t", "float32", ("a", 2)) == dm.tensor("t", "float32", "a, 2") == dm.tensor("t", "float32", "a,2")
    assert WEIGHTS.params[1].sizes == ("ROWS", "2")


# --- Kernels with device code ---

ON_DEVICE = {
    "held.cc": """#include "held_config.h"

int held(double, dimorph::Optional<ConstTensor>, Tensor y, Extra extra) {
  return DIMORPH_CALL(held, int)(y, extra);
}
DIMORPH_EXPORT(held)
""",
    "held_case.cc": """#include <dimorph/cuda.h>

#include "held_config.h"

namespace DIMORPH_CASE {
struct Params : AdditionalParams {};

int held(Tensor, Extra extra) noexcept {
  Params params{};
  return extra.fill(params) && VARIANT<Params>(params).table ? 1 : 0;
}
}  // namespace DIMORPH_CASE
""",
    "held.cu": """#include "held_config.h"

namespace DIMORPH_CASE {
extern "C" __global__ void held_kernel(int* y) { *y = 1; }
}  // namespace DIMORPH_CASE
""",
    "table.h": """#pragma once
template <typename Params>
struct Table {
  const float* table;
  explicit Table(const Params& params) : table(params.table) {}
};
""",
}


@pytest.fixture
def held(tmp_path: Path) -> dm.Function:
    for name, text in ON_DEVICE.items():
        (tmp_path / name).write_text(text)
    table = dm.Variant("Table", header="table.h", params=[dm.tensor("table", "float32")], root=tmp_path)
    axes = [dm.variant_axis("variant", "VARIANT", default=table)]
    kernel = dm.Kernel("held", device=["held.cu"], archs=["sm_80"], axes=axes, root=tmp_path)
    return kernel.load(settings=replace(settings.current(), arch="sm_80")).held


def test_tensors_of_a_variant_lie_where_the_first_argument_does(held: dm.Function) -> None:
    here, there, other = ones(4), on_device(ones(4), "cuda", 1), on_device(ones(4), "cuda", 0)
    assert held(0.5, None, there, there) == 1
    assert held(0.5, other, there, other) == 1
    assert held(0.5, None, here, here) == 1
    expected = "held: argument 'table': expected a tensor on {}, got one on {}"
    for x, y, table, said in (
        (None, there, here, ("cuda:1", "cpu:0")),
        (None, there, other, ("cuda:1", "cuda:0")),
        (other, there, there, ("cuda:0", "cuda:1")),
        (None, here, there, ("cpu:0", "cuda:1")),
    ):
        with pytest.raises(ValueError) as caught:
            held(0.5, x, y, table)
        assert str(caught.value) == expected.format(*said)
