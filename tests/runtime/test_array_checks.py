"""Checks of arrays: element type, shape, layout and device, in entries, in cases and in parallel work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from support.arrays import on_device
from support.forms import Form
from support.kernels import ARRAYS

pytestmark = pytest.mark.usefixtures("warm_store")

Array = Any


def ones(shape: int | tuple[int, ...], dtype: str = "f4") -> Array:
    return np.ones(shape, dtype)


@pytest.fixture
def arrays(mode: Form) -> dm.Module:
    return mode.load(ARRAYS, width=1)


SHAPES = (ones((2, 3)), ones((2, 3)), ones(6, "f8")[::2])


@pytest.mark.parametrize(
    ("index", "array", "error", "said"),
    [
        (0, ones((2, 3), "f8"), TypeError, "argument 'x': expected dtype float32, got float64"),
        (0, ones((3, 2)).T, ValueError, "argument 'x': expected a row-major tensor, got one with other strides"),
        (0, ones(3), ValueError, "argument 'x': expected shape [rows, width], here (any, any), got (3)"),
        (1, ones((2, 3), "i4"), TypeError, "argument 'y': expected dtype float32, got int32"),
        (1, ones((1, 3)), ValueError, "argument 'y': expected shape [rows, 3], here (2, 3), got (1, 3)"),
        (1, ones((2, 4)), ValueError, "argument 'y': expected shape [rows, 3], here (2, 3), got (2, 4)"),
        (1, ones((2, 6))[:, ::2], ValueError, "argument 'y': expected a row-major tensor, got one with other strides"),
        (2, ones(2), ValueError, "argument 'strided': expected shape [width], here (3), got (2)"),
        (2, ones(()), ValueError, "argument 'strided': expected shape [width], here (3), got ()"),
    ],
)
def test_one_line_checks_an_array(arrays: dm.Module, index: int, array: Array, error: type, said: str) -> None:
    arrays.shapes(*SHAPES)
    with pytest.raises(error) as caught:
        arrays.shapes(*SHAPES[:index], array, *SHAPES[index + 1 :])
    assert str(caught.value) == f"shapes: {said}"


@pytest.mark.parametrize(
    ("function", "array", "said"),
    [
        ("first_float", ones(3, "f8"), "first_float: argument 'x': expected dtype float32, got float64"),
        ("first_half", ones(3, "i2"), "first_half: argument 'x': expected dtype float16, got int16"),
        ("first_long", ones(3, "u8"), "first_long: argument 'x': expected dtype int64, got uint64"),
        ("corner", ones((2, 2), "f8"), "corner: argument 'x': expected dtype float32, got float64"),
    ],
)
def test_elements_of_another_type_are_refused(arrays: dm.Module, function: str, array: Array, said: str) -> None:
    indices = (0, 0) if function == "corner" else ()
    with pytest.raises(TypeError) as caught:
        getattr(arrays, function)(array, *indices)
    assert str(caught.value) == said


def test_elements_of_the_right_type_are_read(arrays: dm.Module) -> None:
    assert arrays.first_half(ones(1, "f2")) == arrays.first_long(ones(1, "i8")) == arrays.first_float(ones(1)) == 1


def test_data_without_a_type_is_not_checked(arrays: dm.Module) -> None:
    assert arrays.first_raw(np.array([1.5], np.float32).view(np.int32)) == 1.5


def test_a_tensor_that_is_no_argument_is_called_one(arrays: dm.Module) -> None:
    with pytest.raises(TypeError, match=r"^first_of_new: a tensor: expected dtype float64, got float32$"):
        arrays.first_of_new()


@pytest.mark.parametrize("function", ["quiet", "throwing"])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["function", "body", "nested_body"])
def test_checks_in_a_case_raise_too(arrays: dm.Module, function: str, where: int) -> None:
    """Also where the function is noexcept, and on threads of the pool."""
    call: Callable[..., float] = getattr(arrays, function)
    for _ in range(3):
        assert call(ones(3), ones(2), 1, where) == 2
        with pytest.raises(TypeError, match=rf"^{function}: argument 'x': expected dtype float32, got float64$"):
            call(ones(3, "f8"), ones(2), 1, where)
        with pytest.raises(TypeError, match=rf"^{function}: argument 'other': expected dtype float32, got int32$"):
            call(ones(3), ones(2, "i4"), 1, where)


def test_a_case_takes_views(arrays: dm.Module) -> None:
    x, y = np.arange(4.0).reshape(2, 2), ones(1)
    assert (arrays.viewed(x + 1, y, 1), y[0]) == (1, 3)


@pytest.mark.parametrize(
    ("index", "array", "said"),
    [
        (0, ones((2, 2)), "argument 'x': expected dtype float64, got float32"),
        (0, ones(4, "f8"), "argument 'x': expected 2 dimensions, got 1"),
        (0, ones((2, 4), "f8")[:, ::2], "argument 'x': expected a row-major tensor, got one with other strides"),
        (1, ones(4, "f8"), "argument 'y': expected dtype float32, got float64"),
        (1, ones((2, 2)), "argument 'y': expected 1 dimension, got 2"),
    ],
)
def test_views_of_a_case_check_their_arrays(arrays: dm.Module, index: int, array: Array, said: str) -> None:
    given = [ones((2, 2), "f8"), ones(4)]
    given[index] = array
    with pytest.raises((TypeError, ValueError)) as caught:
        arrays.viewed(*given, 1)
    assert str(caught.value) == f"viewed: {said}"


def test_a_view_needs_its_dimensions_and_layout(arrays: dm.Module) -> None:
    assert arrays.corner(np.arange(6, dtype=np.float32).reshape(2, 3), 1, 2) == 5
    with pytest.raises(ValueError, match=r"^corner: argument 'x': expected 2 dimensions, got 1$"):
        arrays.corner(ones(3), 0, 0)
    with pytest.raises(ValueError, match=r"^corner: argument 'x': expected a row-major tensor"):
        arrays.corner(ones((3, 2)).T, 0, 0)
    with pytest.raises(ValueError, match=r"^quiet: argument 'other': expected a row-major tensor"):
        arrays.quiet(ones(3), ones(6)[::2], 1, 0)


def test_a_debug_build_checks_indices() -> None:
    arrays = ARRAYS.load(width=1, settings=replace(settings.current(), debug=True))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert arrays.corner(x, 1, 2) == 5
    for i, j, said in [(2, 0, "2 in dimension 0, got 2"), (0, -1, "3 in dimension 1, got -1")]:
        with pytest.raises(IndexError) as caught:
            arrays.corner(x, i, j)
        assert str(caught.value) == f"corner: argument 'x': expected 0 <= index < {said}"
    with pytest.raises(IndexError, match=r"^quiet: argument 'x': expected 0 <= index < 0 in dimension 0, got 0$"):
        arrays.quiet(ones(0), ones(1), 1, 2)


def test_memory_of_a_device_is_not_read_by_a_kernel_without_device_code(arrays: dm.Module) -> None:
    x = on_device(ones((2, 3)), "cuda", 1)
    for call in (lambda: arrays.first_float(x), lambda: arrays.shapes(x, *SHAPES[1:]), lambda: arrays.corner(x, 0, 0)):
        with pytest.raises(ValueError, match=r": argument 'x': expected a tensor on cpu:0, got one on cuda:1$"):
            call()
    for host in ("cuda_host", "cuda_managed"):
        assert arrays.first_float(on_device(ones(1), host, 0)) == 1


def test_elements_must_be_aligned_where_that_is_asked_for(arrays: dm.Module) -> None:
    room = np.zeros(64, np.float32)
    start = -room.ctypes.data % 64 // 4
    arrays.whole_vectors(room[start:])
    arrays.whole_vectors(room[start + 16 :])
    expected = (
        r"^whole_vectors: argument 'x': expected elements at a multiple of 64 bytes, got the address 0x[0-9a-f]+$"
    )
    for offset in (1, 8, 15):
        with pytest.raises(ValueError, match=expected):
            arrays.whole_vectors(room[start + offset :])


def test_tensors_must_share_a_device_where_that_is_asked_for(arrays: dm.Module) -> None:
    arrays.same_device(on_device(ones(1), "cuda", 1), on_device(ones(2), "cuda", 1))
    with pytest.raises(ValueError, match=r"^same_device: argument 'y': expected a tensor on cuda:1, got one on cpu:0$"):
        arrays.same_device(on_device(ones(1), "cuda", 1), ones(2))
