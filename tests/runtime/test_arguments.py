"""Arguments and results of compiled functions: conversions, and the errors for arguments that do not fit."""

from __future__ import annotations

import ctypes
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import tvm_ffi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dimorph as dm
from support.arrays import OnlyDLPack

pytestmark = pytest.mark.usefixtures("warm_store")


# --- Tensors ---

BASE = np.arange(24.0).reshape(2, 3, 4)
VIEWS: dict[str, np.ndarray[Any, Any]] = {
    "row_major": BASE,
    "transposed": BASE.T,
    "every_second": BASE[:, ::2, 1::2],
    "backwards": BASE[::-1, :, ::-1],
    "broadcast": np.broadcast_to(np.arange(3.0), (2, 3)),
    "one_number": np.array(5.0),
    "empty": np.zeros((3, 0, 2)),
    "inner_row": BASE[1, 1],
    "size_one": BASE[:1, :, :1],
}
MAKERS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda array: array,
    "torch": lambda array: torch.from_numpy(np.array(array)).as_strided(array.shape, _strides(array)),
    "tvm_ffi": tvm_ffi.from_dlpack,
    "only_dlpack": OnlyDLPack,
}


def _strides(array: Any) -> tuple[int, ...]:
    return torch.from_numpy(np.array(array)).stride()


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("maker", list(MAKERS))
def test_a_tensor_of_any_library_and_layout_arrives_as_it_is(functions: dm.Module, maker: str, view: str) -> None:
    array = VIEWS[view]
    if maker == "torch" and view == "backwards":
        array = array.copy()  # torch has no negative strides
    array = array if array.flags.writeable else array.copy()
    given = MAKERS[maker](array)
    assert functions.sum(given) == pytest.approx(array.sum())
    assert functions.optional_size(given) == array.size


@pytest.mark.parametrize("maker", ["numpy", "torch"])
def test_shape_strides_dtype_and_device_are_described_right(functions: dm.Module, maker: str) -> None:
    make = (lambda array: array) if maker == "numpy" else torch.from_numpy
    assert functions.describe(make(np.zeros((2, 3), np.float32))) == "2/32/1 @1:0 2:3 3:1 row-major"
    assert functions.describe(make(np.zeros((2, 3), np.int8).T)) == "0/8/1 @1:0 3:1 2:3 strided"
    assert functions.describe(make(np.zeros((4, 4), np.uint8)[1:, ::2])) == "1/8/1 @1:0 3:4 2:2 strided"
    assert functions.describe(make(np.zeros((), np.float64))) == "2/64/1 @1:0 row-major"
    assert functions.describe(make(np.zeros(3, np.bool_))) == "6/8/1 @1:0 3:1 row-major"
    assert functions.describe(make(np.zeros(3, np.complex64))) == "5/64/1 @1:0 3:1 row-major"
    assert functions.describe(make(np.zeros((5, 0)))).endswith("row-major")


def test_an_offset_into_the_memory_is_respected(functions: dm.Module) -> None:
    whole = torch.arange(10, dtype=torch.float64)
    assert functions.sum(whole[7:]) == 7 + 8 + 9
    assert functions.sum(np.arange(10.0)[7:]) == 24
    with_offset = _with_byte_offset(np.arange(10.0), 7)
    assert functions.sum(with_offset) == 24


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _with_byte_offset(array: np.ndarray[Any, Any], skip: int) -> Any:
    """A DLPack tensor whose byte_offset is not zero and that has no stride array, as some libraries make them."""
    capsule = array[: len(array) - skip].__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    tensor.byte_offset = skip * array.itemsize
    tensor.strides = None

    class Holder:
        keep = array

        def __dlpack__(self, **_: Any) -> Any:
            return capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    return Holder()


@pytest.mark.parametrize("maker", list(MAKERS))
def test_nothing_is_copied(functions: dm.Module, maker: str) -> None:
    array = np.arange(6.0)
    given = torch.from_numpy(array) if maker == "torch" else MAKERS[maker](array)
    assert functions.same_memory(array, given) == 1
    half = np.zeros(4, np.float16)
    functions.add_one(torch.from_numpy(half) if maker == "torch" else MAKERS[maker](half))
    assert half.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_floats_of_numpy_are_read_and_written_in_place(functions: dm.Module, dtype: Any) -> None:
    array = np.array([0.5, 1.5, -2.0, 100.0, 7.0, 9.0], dtype)
    functions.add_one(array[::2])
    assert array.astype(float).tolist() == [1.5, 1.5, -1.0, 100.0, 8.0, 9.0]
    assert functions.describe(array).startswith("2/16/1" if dtype == np.float16 else "4/16/1")
    assert functions.describe(array.reshape(2, 3).T).endswith("3:1 2:3 strided")


@pytest.mark.parametrize(("dtype", "code"), [(ml_dtypes.float8_e4m3fn, 10), (ml_dtypes.float8_e5m2, 12)])
@pytest.mark.parametrize("frozen", [False, True])
def test_8_bit_floats_of_numpy_are_those_of_torch(functions: dm.Module, dtype: Any, code: int, frozen: bool) -> None:
    array = np.arange(6, dtype=np.uint8).view(dtype).reshape(2, 3)
    given = _frozen(array) if frozen else array
    assert functions.describe(given).startswith(f"{code}/8/1")
    tensor = torch.tensor(np.arange(6, dtype=np.uint8).reshape(2, 3)).view(getattr(torch, array.dtype.name))
    assert functions.describe(given) == functions.describe(tensor)
    copy = functions.copied(1, array[0].copy())
    assert copy.dtype == array.dtype and copy.tobytes() == array[0].tobytes()


def test_bfloat16_of_torch_is_that_of_numpy(functions: dm.Module) -> None:
    tensor = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    functions.add_one(tensor)
    assert tensor.tolist() == [2, 3]


EDGES = [
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    65504.0,
    65519.0,
    65520.0,
    2**-24,
    2**-25,
    2**-26 * 3,
    1e-45,
    3.3895314e38,
]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@given(values=st.lists(st.floats(width=32) | st.sampled_from(EDGES), min_size=1, max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rounding_to_16_bits_and_back_is_that_of_numpy(functions: dm.Module, dtype: Any, values: list[float]) -> None:
    given = np.array(values, np.float32)
    out, back = np.empty(len(given), dtype), np.empty_like(given)
    functions.convert(given, out, back)
    with np.errstate(over="ignore"):
        expected = given.astype(dtype)
    known = ~np.isnan(given)
    assert (out.view(np.uint16) == expected.view(np.uint16))[known].all()
    assert np.isnan(out.astype(np.float32))[~known].all()
    np.testing.assert_array_equal(back, out.astype(np.float32))


def test_every_16_bit_pattern_reads_as_numpy_reads_it(functions: dm.Module) -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16):
        numbers = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float32)
        out, back = np.empty(65536, dtype), np.empty(65536, np.float32)
        functions.convert(numbers, out, back)
        np.testing.assert_array_equal(back, numbers)


# --- Read-only arrays ---


def _frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int8])
def test_a_read_only_array_is_taken_where_it_is_only_read(functions: dm.Module, dtype: Any) -> None:
    array = _frozen(np.ones((2, 3), dtype))
    assert functions.optional_size(array) == 6
    assert functions.describe(array) == functions.describe(np.ones((2, 3), dtype))
    assert functions.sum(np.broadcast_to(np.arange(3.0), (2, 3))) == 6


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("wrap", [lambda a: a, OnlyDLPack], ids=["numpy", "only_dlpack"])
def test_a_read_only_array_is_refused_where_it_is_written(
    functions: dm.Module, dtype: Any, wrap: Callable[[Any], Any]
) -> None:
    array = _frozen(np.ones(3, dtype))
    with pytest.raises((TypeError, ValueError), match=r"add_one: argument 'x': expected .*(writable|readonly)"):
        functions.add_one(wrap(array))
    assert array.astype(float).tolist() == [1, 1, 1]


# --- Numbers, strings, None ---


@pytest.mark.parametrize(("bits", "signed"), [(bits, signed) for bits in (8, 16, 32, 64) for signed in (True, False)])
def test_integers_have_the_range_of_their_type(functions: dm.Module, bits: int, signed: bool) -> None:
    name = f"echo_{'' if signed else 'u'}int{bits}"
    echo = getattr(functions, name)
    least = -(2 ** (bits - 1)) if signed else 0
    most = min(2 ** (bits - (1 if signed else 0)), 2**63) - 1  # tvm-ffi has no unsigned 64-bit integer
    for number in (least, most, 0, 1, True, np.int8(5)):
        assert echo(number) == number
    for number in (least - 1, most + 1, 2**70, -(2**70)):
        with pytest.raises(
            (ValueError, TypeError, OverflowError), match=rf"{name}: argument 'number': expected an? .*int"
        ):
            echo(number)


@pytest.mark.parametrize("number", [0, 1, -1.5, 2**53, 1e300, math.inf, np.float32(0.1), np.float64(0.1), np.int16(3)])
def test_floats_take_any_number(functions: dm.Module, number: Any) -> None:
    assert functions.echo_double(number) == float(number)
    with np.errstate(over="ignore"):
        assert functions.echo_float(number) == np.float32(number)
    assert math.isnan(functions.echo_double(math.nan))


@pytest.mark.parametrize(
    "text", ["", "a", "seven77", "eight888", "long " * 1000, "e\u0301t\u00e9 \U0001f600", "zero\0inside"]
)
def test_texts_come_back_as_they_were(functions: dm.Module, text: str) -> None:
    assert functions.echo_str(text) == text
    assert isinstance(functions.echo_str(text), str)
    assert functions.size_of_str(text) == len(text.encode())


def test_a_literal_is_a_text(functions: dm.Module) -> None:
    assert functions.literal() == "a literal"


def test_booleans_are_booleans(functions: dm.Module) -> None:
    for flag in (True, False):
        assert functions.echo_bool(flag) is flag
    for other in (1, np.True_, "true"):
        with pytest.raises(TypeError, match="echo_bool: argument 'flag': expected a bool"):
            functions.echo_bool(other)


def test_dtypes_and_devices_are_arguments_too(functions: dm.Module) -> None:
    assert functions.echo_dtype(tvm_ffi.dtype("bfloat16")) == tvm_ffi.dtype("bfloat16")
    assert str(functions.echo_dtype(torch.float16)) == "float16"
    assert str(functions.echo_dtype(np.dtype("uint8"))) == "uint8"
    assert functions.device_type(tvm_ffi.device("cpu")) == 1


def test_optionals_may_be_none_and_left_out_at_the_end(functions: dm.Module) -> None:
    assert functions.echo_optional(None) is None and functions.echo_optional(7) == 7
    assert functions.echo_optional() is None
    assert functions.optional_size(None) == -1
    assert [functions.trailing(1), functions.trailing(1, 2), functions.trailing(1, 2, "abc")] == [1, 21, 321]
    assert functions.trailing(1, None, "ab") == 201
    assert [functions.before_extra(1), functions.before_extra(1, 2), functions.before_extra(1, 2, 0, 0)] == [1, 21, 221]
    assert functions.nothing() is None


@pytest.mark.parametrize(
    ("make", "float32"),
    [(np.array, np.float32), (torch.tensor, torch.float32), (jnp.array, jnp.float32)],
    ids=["numpy", "torch", "jax"],
)
def test_a_new_tensor_is_an_array_of_the_callers_library(
    functions: dm.Module, make: Callable[..., Any], float32: Any
) -> None:
    given = make([1.0, 2.0], dtype=float32)
    result = functions.doubled(given)
    assert type(result) is type(given) and result.dtype == given.dtype
    assert result.tolist() == [2, 4]
    if make is not jnp.array:
        result[0] = 7  # the caller's own
        assert functions.doubled(x=given).tolist() == [2, 4]


def test_a_new_tensor_of_other_dtypes_and_callers(functions: dm.Module) -> None:
    small = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    copy = functions.copied(1, small)
    assert copy.dtype == small.dtype and copy.tolist() == [1.5, -2.0] and not np.shares_memory(copy, small)
    assert functions.copied(1, _frozen(small.copy())).dtype == small.dtype
    assert functions.copied(1, np.array([1.5], np.float16)).dtype == np.float16
    assert type(functions.doubled(_frozen(np.ones(2, np.float32)))) is np.ndarray
    ours = tvm_ffi.from_dlpack(np.ones(2, np.float32))
    assert type(functions.doubled(ours)) is type(functions.unfilled(1, 1)) is tvm_ffi.Tensor
    assert type(functions.doubled(OnlyDLPack(np.ones(2, np.float32)))) is tvm_ffi.Tensor


def test_a_new_tensor_is_a_result_that_python_owns(functions: dm.Module) -> None:
    result = functions.doubled(np.arange(6, dtype=np.float32)[::2])
    view = np.from_dlpack(result)
    del result
    assert view.tolist() == [0.0, 4.0, 8.0]
    assert functions.doubled(np.zeros(0, np.float32)).shape == (0,)
    with pytest.raises(ValueError, match="doubled: argument 'x': expected 1 dimension, got 2"):
        functions.doubled(np.zeros((2, 2), np.float32))
    assert functions.unfilled(0, 2**55).shape == (0, 2**55)
    for shape in ((-3, 4), (2**50, 2**50), (2, 2**62)):
        with pytest.raises(ValueError, match="a new tensor: expected sizes from 0 to what memory holds, got"):
            functions.unfilled(*shape)
    with pytest.raises(MemoryError):
        functions.unfilled(2**28, 2**28)


def test_several_results_are_a_sequence(functions: dm.Module) -> None:
    several = functions.several(3)
    assert list(several) == [3, 1.5, "a text that is longer than seven bytes", True, None]
    number, *_ = several
    assert number == 3


# --- Arguments that do not fit ---

ARRAY = np.zeros(3)
WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("echo_int64", (1.0,), r"echo_int64: argument 'number': expected an int.*, got a float"),
    ("echo_int64", ("1",), r"echo_int64: argument 'number': expected an int.*, got a str"),
    ("echo_int64", (None,), r"echo_int64: argument 'number': expected an int.*, got None"),
    ("echo_double", ("1",), r"echo_double: argument 'number': expected a number, got a str"),
    ("echo_double", (ARRAY,), r"echo_double: argument 'number': expected a number, got a tensor"),
    ("echo_bool", (1,), r"echo_bool: argument 'flag': expected a bool, got an int"),
    ("echo_str", (1,), r"echo_str: argument 'text': expected a str, got an int"),
    ("echo_str", (b"bytes",), r"echo_str: argument 'text': expected a str, got bytes"),
    ("echo_dtype", (1,), r"echo_dtype: argument 'dtype': expected a dtype, got an int"),
    ("device_type", (1,), r"device_type: argument 'device': expected a device, got an int"),
    ("sum", (3.0,), r"sum: argument 'x': expected a tensor .*, got a float"),
    ("sum", ([1.0, 2.0],), r"sum: argument 'x': expected a tensor .*, got a sequence"),
    ("sum", ({"a": 1},), r"sum: argument 'x': expected a tensor .*, got a mapping"),
    ("sum", (None,), r"sum: argument 'x': expected a tensor .*, got None"),
    ("sum", (len,), r"sum: argument 'x': expected a tensor .*, got a function"),
    ("sum", (object(),), r"sum: argument 'x': expected a tensor .*, got "),
    ("optional_size", (1,), r"optional_size: argument 'maybe_x': expected a tensor .*, got an int"),
    ("trailing", (1, 2, 3), r"trailing: argument 'maybe_c': expected a str, got an int"),
    ("strict", (np.zeros((2, 3), np.float32), 7), r"strict: argument 'y': expected a tensor .*, got an int"),
]


@pytest.mark.parametrize(("function", "args", "said"), WRONG, ids=[f"{w[0]}-{type(w[1][0]).__name__}" for w in WRONG])
def test_a_wrong_kind_is_a_type_error_that_names_everything(
    functions: dm.Module, function: str, args: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        getattr(functions, function)(*args)


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        ("nothing", (1,), r"nothing: expected 0 arguments.*, got 1"),
        ("echo_int64", (), r"echo_int64: expected 1 argument \(number\), got 0"),
        ("echo_int64", (1, 2), r"echo_int64: expected 1 argument \(number\), got 2"),
        ("strict", (1,), r"strict: expected 2 arguments \(x, ?y\), got 1"),
        ("trailing", (), r"trailing: expected 1 to 3 arguments \(a, ?maybe_b, ?maybe_c\), got 0"),
        (
            "before_extra",
            (),
            r"before_extra: expected 1 to 2 arguments \(a, ?maybe_b\), then those of the variant, got 0",
        ),
        ("trailing", (1, 2, "3", 4), r"trailing: expected 1 to 3 arguments \(a, ?maybe_b, ?maybe_c\), got 4"),
    ],
)
def test_a_wrong_count_is_a_type_error_that_names_everything(
    functions: dm.Module, function: str, args: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        getattr(functions, function).native(*args)
    # The function in Python says it in the words of Python.
    with pytest.raises(TypeError, match=rf"^{function}\(\) (missing \d|takes) .*argument"):
        getattr(functions, function)(*args)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, ">f8"),
        np.zeros(3, "i4,i4"),
        np.array([object()]),
        np.zeros(3, "M8[s]"),
        np.array(["text"]),
        np.zeros(3, ml_dtypes.float8_e4m3fnuz),
        np.zeros(3, np.longdouble),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_dtype_that_cannot_be_passed_is_a_type_error_too(functions: dm.Module, array: Any, frozen: bool) -> None:
    array = _frozen(array.copy()) if frozen else array
    with pytest.raises(TypeError, match=r"same_memory: argument 'x': expected .*, got .*"):
        functions.same_memory(array, ARRAY)


@pytest.mark.parametrize(
    ("x", "y", "error", "said"),
    [
        (np.zeros((2, 3)), np.zeros(3), TypeError, "argument 'x': expected dtype float32"),
        (np.zeros(3, np.float32), np.zeros(3), ValueError, "argument 'x': expected 2 dimensions, got 1"),
        (np.zeros((2, 3), np.float32), np.zeros(4), ValueError, "argument 'y': expected size 3, got 4"),
        (np.zeros((3, 2), np.float32).T, np.zeros(3), ValueError, "argument 'x': expected a row-major tensor"),
    ],
)
def test_checks_choose_the_exception(functions: dm.Module, x: Any, y: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"strict: {said}"):
        functions.strict(x, y)


def test_a_tensor_of_another_device_is_refused_before_it_is_read(functions: dm.Module) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        functions.sum(torch.zeros(3, device="meta"))


def test_unknown_names_and_keywords_are_refused(functions: dm.Module) -> None:
    with pytest.raises(AttributeError, match=r"kernel arguments exports no function 'summ'; it has: .*sum"):
        functions.summ(1)
    with pytest.raises(TypeError, match=r"echo_int64\(\) got an unexpected keyword argument 'amount'"):
        functions.echo_int64(amount=1)


def test_a_callable_says_what_it_is(functions: dm.Module) -> None:
    assert functions.trailing.__name__ == "trailing"
    assert str(inspect.signature(functions.trailing)).startswith("(a: 'int', maybe_b: 'int | None' = None,")
    assert "arguments" in repr(functions) and "trailing" in repr(functions)
