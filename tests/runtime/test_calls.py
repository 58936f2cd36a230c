"""Calls of compiled functions: the additional arguments of a variant, exceptions, and no leaks."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dimorph as dm
from support.forms import Form
from support.kernels import ARGUMENTS, FAILURES, FUNCTOR, SCALE
from support.skeletons import declared, replace

pytestmark = pytest.mark.usefixtures("warm_store")


def _frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


# --- A variant's additional arguments ---

TABLE = np.array([1, 2, 3], np.float32)
BIAS = np.array([0.5, 0.25, 0.125])


@pytest.mark.parametrize("bias", [BIAS, None, "left out"], ids=["given", "none", "left_out"])
def test_scalars_tensors_and_optional_tensors_reach_the_variant(mode: Form, bias: Any) -> None:
    function = mode.load(FUNCTOR, variant="Shift").functor
    values = np.array([1.0, 2.0, 3.0])
    function("Shift", values, 10.0, 4, True, TABLE, *([] if bias is not None and bias is not BIAS else [bias]))
    expected = -(np.array([1.0, 2.0, 3.0]) * 4 + 10 + TABLE + (BIAS if bias is BIAS else 0))
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_scalar_has_the_precision_of_the_kernel(mode: Form, dtype: Any, root: Path) -> None:
    """A scalar of float32 would make 0.10000000149 of 0.1 in a case of float64."""
    function = mode.load(declared(root), dtype=dtype, head_dim=64).affine
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(dtype)
    one, tenth = np.empty_like(x), np.empty_like(x)
    function(x, one, 1.0)
    function(x, tenth, 0.1)
    np.testing.assert_array_equal(tenth, one * dtype(0.1))


def test_additional_arrays_may_be_read_only(mode: Form) -> None:
    function = mode.load(FUNCTOR, variant="Shift").functor
    values = np.zeros(3)
    function("Shift", values, 0.0, 1, False, _frozen(TABLE.copy()), _frozen(BIAS.copy()))
    np.testing.assert_array_equal(values, TABLE + BIAS)


@pytest.mark.parametrize(
    ("extra", "error", "said"),
    [
        ((10.0, 4, True), TypeError, r"functor(: expected 4 to 5 arguments|\(\) missing 1 .*: 'table')"),
        ((10.0, 4, True, TABLE, BIAS, 1), TypeError, r"functor(: expected 4 to 5 arguments|\(\) takes from 6 to 7)"),
        (("10", 4, True, TABLE), TypeError, r"functor: argument 'offset': expected a number, got a str"),
        ((10.0, 4.5, True, TABLE), TypeError, r"functor: argument 'times': expected an int.*, got a float"),
        (
            (10.0, 2**40, True, TABLE),
            ValueError,
            r"functor: argument 'times': expected an int.* 32 bits, got 1099511627776",
        ),
        ((10.0, 4, 1, TABLE), TypeError, r"functor: argument 'negate': expected a bool, got an int"),
        ((10.0, 4, True, 1.0), TypeError, r"functor: argument 'table': expected a tensor .*, got a float"),
        ((10.0, 4, True, None), TypeError, r"functor: argument 'table': expected a tensor .*, got None"),
        ((10.0, 4, True, BIAS), TypeError, r"functor: argument 'table': expected dtype float32, got float64"),
        ((10.0, 4, True, np.zeros(6, np.float32)[::2]), ValueError, r"functor: argument 'table': expected a row-major"),
        (
            (10.0, 4, True, TABLE, TABLE),
            TypeError,
            r"functor: argument 'maybe_bias': expected dtype float64, got float32",
        ),
        (
            (10.0, 4, True, np.zeros(3, ">f4")),
            TypeError,
            r"functor: argument '?(table|extra|\d)'?: expected .*, got .*",
        ),
    ],
)
def test_a_wrong_additional_argument_is_named(
    mode: Form, extra: tuple[Any, ...], error: type[Exception], said: str
) -> None:
    function = mode.load(FUNCTOR, variant="Shift").functor
    values = np.array([1.0, 2.0, 3.0])
    with pytest.raises(error, match=said):
        function("Shift", values, *extra)
    assert values.tolist() == [1, 2, 3], "an argument was refused after the work had begun"


def test_a_variant_without_parameters_takes_none(mode: Form) -> None:
    function = mode.load(FUNCTOR, variant="Plain").functor
    values = np.array([1.0, 2.0])
    function("Plain", values)
    assert values.tolist() == [1, 2]
    with pytest.raises(TypeError, match=r"functor: expected 0 arguments of the variant.*, got 1"):
        function.native("Plain", values, 1.0)


@pytest.mark.parametrize("given", [(10.0, 4, True), (10.0, 4, True, TABLE, BIAS, 1)])
def test_a_wrong_count_of_additional_arguments_is_told_by_the_case(mode: Form, given: tuple[Any, ...]) -> None:
    """Where a module has several variants, Python does not know the arguments."""
    values = np.zeros(3)
    for function in (mode.load(FUNCTOR, variant="Shift").functor.native, FUNCTOR.load().functor):
        with pytest.raises(TypeError, match=r"functor: expected 4 to 5 arguments of the variant \(offset, .*\), got"):
            function("Shift", values, *given)


# --- Exceptions ---

KINDS = [
    (ValueError, "failed with value, {}"),
    (TypeError, "failed with type"),
    (IndexError, "failed with index"),
    (MemoryError, "failed with memory"),
    (NotImplementedError, "failed with not_implemented"),
    (RuntimeError, "failed with runtime"),
    (MemoryError, "raise_in"),  # std::bad_alloc
    (RuntimeError, "raise_in"),  # throw 5
    (ValueError, "failed with check, 100%"),
    (TypeError, "failed with check_type"),
]


@pytest.mark.parametrize(("kind", "error", "said"), [(i, *pair) for i, pair in enumerate(KINDS)])
@pytest.mark.parametrize("where", ["entry", "case"])
def test_what_is_thrown_becomes_the_exception_of_its_kind(
    mode: Form, where: str, kind: int, error: type[Exception], said: str
) -> None:
    module = mode.load(FAILURES, width=2)
    function = module.raise_in_entry if where == "entry" else lambda k: module.raise_in_case(2, k)
    with pytest.raises(error) as caught:
        function(kind)
    assert type(caught.value) is error
    assert said.format(1 if where == "entry" else 2) in str(caught.value)
    # The next call works.
    assert function(10) == (10 if where == "entry" else 210)


FRAMES = {__file__, "<dimorph>", "python/tvm_ffi/cython/function.pxi"}


def files(error: BaseException) -> set[str]:
    """Return the files of the frames that a traceback shows."""
    return {frame.filename for frame in traceback.extract_tb(error.__traceback__)}


@pytest.mark.parametrize("where", ["entry", "case"])
def test_a_traceback_shows_no_function_of_dimorph_in_cpp(mode: Form, where: str) -> None:
    module = mode.load(FAILURES, width=2)
    with pytest.raises(ValueError) as caught:
        module.raise_in_entry(0) if where == "entry" else module.raise_in_case(2, 0)
    assert files(caught.value) <= FRAMES


def test_a_traceback_of_a_late_build_shows_no_function_of_dimorph(store: Path, root: Path) -> None:
    module = declared(root).load(dtype="float32")
    replace(
        root / "affine_case.cc", "  Params params{};", '  static_assert(HEAD_DIM != 72, "odd");\n  Params params{};'
    )
    x = np.ones((2, 72), np.float32)
    with pytest.raises(dm.BuildError, match="odd") as caught:
        module.affine(x, x.copy(), 1.0)
    assert files(caught.value) <= FRAMES


@pytest.mark.parametrize("length", [0, 400, 508, 509, 510, 600, 2000])
def test_a_long_message_is_cut_where_a_character_ends(mode: Form, length: int) -> None:
    module = mode.load(FAILURES, width=1)
    with pytest.raises(ValueError) as caught:
        module.long_message(length)
    text = str(caught.value)
    assert text.startswith("x" + "\u00e9" * min(length, 400)) and set(text[1:]) <= {"\u00e9", "."}


# --- Nothing leaks ---


def _calls() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    functions, failures, functor, scale = ARGUMENTS.load(), FAILURES.load(), FUNCTOR.load(), SCALE.load()
    text, array, table = "a text of some length " * 3, np.zeros((2, 7)), TABLE.copy()
    return {
        "success": (scale.scale, (array, np.zeros((2, 7)), 2.0)),
        "read_only": (functions.sum, (_frozen(np.zeros(4)),)),
        "bfloat16": (functions.add_one, (np.zeros(4, ml_dtypes.bfloat16),)),
        "torch": (functions.sum, (torch.zeros(4, dtype=torch.float64),)),
        "text": (functions.echo_str, (text,)),
        "several": (functions.several, (2**40,)),
        "extra": (functor.functor, ("Shift", np.zeros(3), 1.0, 2, True, table, None)),
        "too_many": (functions.sum, (array, text)),
        "wrong_kind": (functions.same_memory, (array, text)),
        "checked": (functions.strict, (array, array)),
        "thrown_in_case": (failures.raise_in_case, (1, 0)),
        "refused_extra": (functor.functor, ("Shift", np.zeros(3), 1.0, 2, True, text)),
        "frozen_written": (functions.add_one, (_frozen(np.zeros(4, np.float16)),)),
        "not_exportable": (functions.sum, (np.zeros(3, ">f8"),)),
        "missing": (FUNCTOR.load(policy="aot").functor, ("A name that nobody declared", np.zeros(3))),
    }


def test_no_call_keeps_a_reference(warm_store: object) -> None:
    for name, (function, args) in _calls().items():

        def call(function: Callable[..., Any] = function, args: tuple[Any, ...] = args) -> None:
            with contextlib.suppress(Exception):
                function(*args)

        call()
        gc.collect()
        before, objects = [sys.getrefcount(arg) for arg in args], len(gc.get_objects())
        for _ in range(50):
            call()
        gc.collect()
        after = [sys.getrefcount(arg) for arg in args]
        assert max(abs(a - b) for a, b in zip(after, before, strict=True)) < 5, name
        assert len(gc.get_objects()) - objects < 40, name


def test_arrays_and_errors_die_when_they_are_let_go(functions: dm.Module) -> None:
    array = np.zeros(1000).view(type("Watched", (np.ndarray,), {}))
    watched = weakref.ref(array)
    functions.sum(array)
    del array
    gc.collect()
    assert watched() is None
    FAILURES.load()  # so that its entry is built
    module = FAILURES.load(policy="aot")
    with pytest.raises(dm.MissingSpecialization) as caught:
        module.quiet(77)
    error = weakref.ref(caught.value)
    del caught
    gc.collect()
    assert error() is None


def test_results_give_their_memory_back(functions: dm.Module) -> None:
    text = "x" * 1_000_000
    for _ in range(20):
        functions.echo_str(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    for _ in range(300):
        functions.echo_str(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
