"""Axes and variants: normal forms, texts, and the messages for values that are refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dimorph as dm
from support.kernels import PLAIN, SHIFT
from support.paths import SUPPORT

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = ["float64", "float32", "float16", "bfloat16", "bool", *INTEGERS]
INT32 = st.integers(-(2**31), 2**31 - 1)


def _axes() -> dict[str, dm.Axis]:
    return {
        "int": dm.int_axis("width", "WIDTH", [64, 128], accepts=lambda width: width % 8 == 0),
        "dtype": dm.dtype_axis("dtype", "DType", ["float32", "bfloat16"]),
        "flag": dm.flag_axis("causal", "CAUSAL"),
        "enum": dm.enum_axis("mode", "MODE", ["ADD", "MUL"], cpp_type="Mode", header="mode.h"),
        "tuple": dm.tuple_axis("pair", ["A", "B"], [(64, 128), (1, -1)]),
        "variant": dm.variant_axis("variant", "V", default=PLAIN, values=[SHIFT]),
    }


@pytest.mark.parametrize("kind", list(_axes()))
def test_every_value_comes_back_from_its_text(kind: str) -> None:
    axis = _axes()[kind]
    assert axis.kind == kind
    for value in axis.values:
        assert axis.value(axis.text(value)) == value
        assert axis.value(value) == value


@given(st.lists(INT32, min_size=1, max_size=8, unique=True))
def test_integers_keep_their_order_and_texts(values: list[int]) -> None:
    axis = dm.int_axis("width", "WIDTH", values)
    assert axis.values == tuple(values)
    assert [axis.value(axis.text(value)) for value in values] == values


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.tuples(*[INT32] * n), min_size=1, max_size=5, unique=True)))
def test_tuples_keep_their_order_and_texts(values: list[tuple[int, ...]]) -> None:
    axis = dm.tuple_axis("shape", [f"S_{i}" for i in range(len(values[0]))], values)
    assert axis.values == tuple(values)
    assert [axis.value(axis.text(value)) for value in values] == values


@pytest.mark.parametrize("name", DTYPES)
def test_a_dtype_is_what_numpy_and_torch_call_it(name: str) -> None:
    axis = dm.dtype_axis("dtype", "DType", [name])
    numpy = np.dtype(getattr(ml_dtypes, name, name))
    given = [name, numpy, numpy.type, getattr(torch, name), f"torch.{name}"]
    assert [axis.value(one) for one in given] == [name] * len(given)


def test_integers_of_numpy_are_integers_and_booleans_are_not() -> None:
    axis = dm.int_axis("width", "WIDTH", [0, 1, 2])
    assert type(axis.value(np.int64(2))) is int
    for wrong in (True, 1.0, "1.0", None, np.float32(1)):
        with pytest.raises(dm.DeclarationError, match=r"axis width: expected an integer.*, got "):
            axis.value(wrong)


def test_flags_are_booleans_by_any_library_and_the_texts_of_command_lines() -> None:
    axis = _axes()["flag"]
    assert axis.values == (False, True)
    assert [axis.value(one) for one in ("true", "false", "1", "0", np.True_)] == [True, False, True, False, True]
    with pytest.raises(dm.DeclarationError, match=r"axis causal: expected True or False, got 2"):
        axis.value(2)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("int", 65, r"axis width: expected one of \{64, 128\}, or one that `accepts` admits, got 65"),
        ("int", "wide", r"axis width: expected an integer.*, got 'wide'"),
        ("dtype", "float64", r"axis dtype: expected one of \{float32, bfloat16\}, got float64"),
        ("dtype", "quaternion", r"axis dtype: expected a dtype \(float64, .*\), got 'quaternion'"),
        ("dtype", float, r"axis dtype: expected a dtype .*, got <class 'float'>"),
        ("enum", "SUB", r"axis mode: expected one of \{ADD, MUL\}, got SUB"),
        ("enum", "A B", r"axis mode: expected the name of an enumerator, got 'A B'"),
        ("tuple", (64, 64), r"axis pair: expected one of \{64x128, 1x-1\}, got 64x64"),
        (
            "tuple",
            (64, 128, 1),
            r"axis pair: expected a tuple of integers.*, one for each name bound, got \(64, 128, 1\)",
        ),
        ("tuple", 64, r"axis pair: expected a tuple of integers.*, one for each name bound, got 64"),
        ("tuple", (64, "x"), r"axis pair: expected a tuple of integers"),
        ("variant", "Nobody", r"axis variant: expected a dimorph.Variant, or the name of a declared one, got 'Nobody'"),
    ],
)
def test_a_wrong_value_is_refused_with_axis_expected_and_actual(kind: str, given: object, said: str) -> None:
    with pytest.raises(dm.DeclarationError, match=said):
        _axes()[kind].value(given)


def test_accepts_admits_more_than_is_declared() -> None:
    axis = _axes()["int"]
    assert axis.value(80) == 80 and axis.value("80") == 80
    pair = dm.tuple_axis("pair", ["A", "B"], [(1, 2)], accepts=lambda value: value[0] == value[1])
    assert pair.value("7x7") == (7, 7)
    with pytest.raises(dm.DeclarationError):
        pair.value((7, 8))


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40])
def test_an_integer_that_no_int_holds_is_refused(number: int) -> None:
    # A compiler turns `constexpr int WIDTH = 1099511627776;` into 0, and its warning would not be shown.
    with pytest.raises(dm.DeclarationError, match=str(number)):
        dm.int_axis("width", "WIDTH", [number])
    with pytest.raises(dm.DeclarationError, match=str(number)):
        dm.int_axis("width", "WIDTH", [1], accepts=lambda _: True).value(number)
    with pytest.raises(dm.DeclarationError, match=str(number)):
        dm.tuple_axis("pair", ["A", "B"], [(1, number)])


def test_a_variant_slot_holds_its_default_and_takes_any_other_by_value() -> None:
    assert dm.variant_axis("v", "V", default=PLAIN).values == (PLAIN,)
    assert dm.variant_axis("v", "V", default=SHIFT, values=[PLAIN]).values == (SHIFT, PLAIN)
    assert dm.variant_axis("v", "V", default=SHIFT, values=[PLAIN, SHIFT]).values == (PLAIN, SHIFT)
    other = dm.Variant("Other", header="variants.h")
    slot = dm.variant_axis("v", "V", default=PLAIN)
    assert slot.value(other) is other
    with pytest.raises(dm.DeclarationError):
        slot.value("Other")


def test_two_variants_of_one_name_cannot_be_told_apart_so_they_are_refused() -> None:
    namesake = dm.Variant("Plain", header="mode.h")
    with pytest.raises(dm.DeclarationError, match="Plain"):
        dm.variant_axis("v", "V", default=PLAIN, values=[PLAIN, namesake])
    kernel = dm.Kernel(
        name="k", entry="k.cc", case=["c.cc"], axes=[dm.variant_axis("v", "V", default=PLAIN, values=[PLAIN])]
    )
    with pytest.raises(dm.DeclarationError, match="Plain"):
        kernel.instantiations(v=[PLAIN, namesake])
    assert kernel.instantiations(v=namesake).specialized


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: dm.int_axis("width", "WIDTH", []), "axis 'width': it declares no values"),
        (lambda: dm.int_axis("width", "WIDTH", [1, 2, 1]), r"axis 'width': a value is declared twice in \{1, 2, 1\}"),
        (lambda: dm.int_axis("head dim", "D", [1]), "axis 'head dim': 'head dim' is not a C\\+\\+ identifier"),
        (lambda: dm.int_axis("d", "2D", [1]), "'2D' is not a C\\+\\+ identifier"),
        (lambda: dm.int_axis("d", "D", "64"), "axis '?d'?: "),
        (lambda: dm.int_axis("d", "D", 64), "axis '?d'?: "),
        (lambda: dm.dtype_axis("t", "T", "float32"), "axis '?t'?: "),
        (lambda: dm.tuple_axis("s", ["A", "B"], [64, 128]), "axis '?s'?: "),
        (lambda: dm.tuple_axis("s", ["A"], [(1,)]), "axis 's': a tuple axis binds 2 to 4 names, got 1"),
        (lambda: dm.tuple_axis("s", list("ABCDE"), [(1,) * 5]), "axis 's': a tuple axis binds 2 to 4 names, got 5"),
        (lambda: dm.tuple_axis("s", ["A", "B"], [(1, 2, 3)]), "axis s: expected a tuple of integers"),
        (
            lambda: dm.enum_axis("m", "M", ["A-B"], cpp_type="Mode", header="m.h"),
            "axis m: expected the name of an enum",
        ),
        (lambda: dm.int_axis("lambda", "D", [1]), "'lambda' is a keyword of Python: choose another name"),
        (lambda: dm.int_axis("d", "co_await", [1]), r"'co_await' is a keyword of C\+\+: choose another name"),
        (lambda: dm.dtype_axis("t", "half", ["float32"]), "'half' is a name of Dimorph's: choose another name"),
        (lambda: dm.flag_axis("f", "__F"), "'__F' is reserved for the language"),
        (lambda: dm.tuple_axis("s", ["A", "DISPATCH_s"], [(1, 2)]), "'DISPATCH_s' is reserved"),
        (lambda: dm.int_axis("d", 3, [1]), "expected a name as a str, got 3"),
        (lambda: dm.Axis("bogus", "a", ("A",), (1,)), "bogus"),
    ],
)
def test_a_declaration_that_cannot_work_says_why(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(dm.DeclarationError, match=said):
        declare()


def test_an_error_of_a_declaration_begins_with_its_place() -> None:
    here = rf"{re.escape(__file__)}:\d+: "
    for declare in (
        lambda: dm.int_axis("d", "int", [1]),
        lambda: dm.scalar("a", "float"),
        lambda: dm.Variant("No good", header="v.h"),
        lambda: dm.Kernel(name="a-b", entry="k.cc", case=[]),
    ):
        with pytest.raises(dm.DeclarationError, match=here) as caught:
            declare()
        assert str(caught.value).count(__file__) == 1


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: dm.Variant("No good", header="v.h"), "variant 'No good': 'No good' is not an identifier"),
        (lambda: dm.Variant("V", header="v.cc"), "variant 'V': header: expected a header file, got 'v.cc'"),
        (lambda: dm.Variant("V", header=7), "variant 'V': header: expected a header file, got 7"),
        (
            lambda: dm.Variant("V", header="/made/v.h"),
            "variant 'V': header: expected a path relative to the file that declares the variant, got '/made/v.h'; "
            "write header='v.h', root='/made'",
        ),
        (
            lambda: dm.Variant("V", header="v.h", params=(dm.scalar("a"), dm.scalar("a"))),
            "two parameters have one name",
        ),
        (lambda: dm.Variant("V", header="v.h", params=(dm.scalar("a b"),)), r"'a b' is not a C\+\+ identifier"),
        (lambda: dm.Variant("V", header="v.h", params=(dm.scalar("new"),)), r"parameter 'new' is a keyword of C\+\+"),
        (lambda: dm.Variant("V", header="v.h", params=(dm.scalar("lambda"),)), "parameter 'lambda' is a keyword of Py"),
        (lambda: dm.Variant("V", header="v.h", params=(dm.scalar("params"),)), "'params' is the name of the struct"),
        (
            lambda: dm.Variant("V", header="v.h", params=dm.scalar("a")),
            r"params: expected .* with its comma, got Param",
        ),
        (
            lambda: dm.Variant("V", header="v.h", params=("a",)),
            r"params: expected a tuple of dm\.scalar.*, got \('a',\)",
        ),
        (lambda: dm.scalar("a", "float16"), "scalar 'a': expected a dtype of float32, .*, got 'float16'"),
        (lambda: dm.tensor("a", "float-32"), "tensor 'a': expected a dtype of .*, got 'float-32'"),
    ],
)
def test_a_variant_that_cannot_work_says_why(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(dm.DeclarationError, match=said):
        declare()


def test_only_tensors_called_maybe_are_optional() -> None:
    assert dm.tensor("maybe_bias", "float32").optional
    assert not dm.tensor("bias", "float32").optional
    assert not dm.scalar("maybe_scale").optional


def test_a_variant_is_beside_the_file_that_declares_it() -> None:
    assert dm.Variant("V", header="v.h").root == Path(__file__).parent
    assert PLAIN.root == SUPPORT / "kernels"
    assert dm.Variant("V", header="v.h").struct == "V"


@pytest.mark.parametrize("kind", list(_axes()))
def test_an_axis_is_frozen_and_prints_without_addresses(kind: str) -> None:
    axis = _axes()[kind]
    with pytest.raises(dataclasses.FrozenInstanceError):
        axis.name = "other"  # type: ignore[misc]
    assert axis.name in repr(axis)
    for value in axis.values:
        assert axis.text(value) in repr(axis)
    assert not re.search(r"0x[0-9a-f]{6}", repr(axis))
    assert hash(axis) == hash(dataclasses.replace(axis))
