"""Dispatch: both forms compute the same, and a missing value is an error before any case has run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm_ffi

import dimorph as dm
from support.forms import Form, built_ahead
from support.kernels import FUNCTOR, KINDS, PICK, PLAIN, SCALE, SHIFT

# --- Both forms, one result ---


def _case_files(module: dm.Module) -> dict[str, str]:
    """Return label -> checksum of the object for the cases that were bound so far."""
    found = {r.unit.label: r.artifact for r in module.resolutions if r.unit.kind == "case"}
    return {label: artifact.meta.files[artifact.file.name].sha256 for label, artifact in found.items()}


@pytest.mark.parametrize("width", [7, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_both_forms_run_the_same_file_and_give_the_same_bits(warm_store: Path, dtype: str, width: int) -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(width)).to(getattr(torch, dtype))
    results = []
    for form in (Form("jit"), Form("aot")):
        module = form.load(SCALE, dtype=dtype, width=width)
        assert module.instantiations.specialized == (form.name == "jit")
        y = torch.empty_like(x)
        total = module.scale(x, y, 1.7)
        results.append((y.view(torch.uint8).numpy().tobytes(), total, _case_files(module)))
    assert results[0] == results[1]
    assert len(results[0][2]) == 1


FACTS: list[tuple[dict[str, Any], list[int]]] = [
    (
        {"dtype": "float32", "width": 2, "causal": False, "mode": 3, "sizes": [16, 32, 1, 2, 3, 1, 2, 3, 4]}
        | {"variant": "Plain"},
        [4, 2, 0, 3, 16, 32, 1, 2, 3, 1, 2, 3, 4, 2, 100, 2],
    ),
    (
        {"dtype": "float64", "width": 3, "causal": True, "mode": 7, "sizes": [32, 16, 3, 2, -1, 4, 3, 2, 1]}
        | {"variant": "Plain"},
        [8, 3, 1, 7, 32, 16, 3, 2, -1, 4, 3, 2, 1, 4, 100, 2],
    ),
    (
        {"dtype": "bfloat16", "width": 2, "causal": True, "mode": 3, "sizes": [32, 16, 1, 2, 3, 4, 3, 2, 1]}
        | {"variant": "Shift"},
        [2, 2, 1, 3, 32, 16, 1, 2, 3, 4, 3, 2, 1, 2, 200, 4],
    ),
]


def _values(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the axes for a call of `kinds`."""
    sizes = call["sizes"]
    return {
        **{name: call[name] for name in ("dtype", "width", "causal", "variant")},
        **{"mode": {3: "ADD", 7: "MUL"}[call["mode"]]},
        **{"pair": tuple(sizes[:2]), "triple": tuple(sizes[2:5]), "quad": tuple(sizes[5:])},
    }


def _kinds(module: dm.Module, call: Mapping[str, Any], facts: np.ndarray[Any, Any]) -> list[int]:
    module.kinds(
        tvm_ffi.dtype(call["dtype"]), call["width"], call["causal"], call["mode"], np.array(call["sizes"]),
        call["variant"], facts,
    )  # fmt: skip
    return facts.tolist()


@pytest.mark.parametrize(("call", "facts"), FACTS)
def test_every_kind_of_axis_reaches_the_case_as_its_constant(
    warm_store: Path, mode: Form, call: dict[str, Any], facts: list[int]
) -> None:
    module = mode.load(KINDS, **_values(call))
    assert _kinds(module, call, np.zeros(16, np.int64)) == facts


def test_a_choice_fixed_by_the_caller_is_what_the_case_gets(warm_store: Path) -> None:
    call, facts = FACTS[0]
    module = KINDS.load(**_values(call), unroll=1)
    assert _kinds(module, call, np.zeros(16, np.int64)) == [*facts[:13], 1, *facts[14:]]


# --- Values that a specialized module refuses ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float64"}, "axis dtype: the call has float64, this module was compiled for float32"),
        ({"dtype": "int8"}, "axis dtype: the call has int8, this module was compiled for float32"),
        ({"width": 3}, "axis width: the call has 3, this module was compiled for 2"),
        ({"width": 2 + 2**32}, "axis width: the call has 4294967298, this module was compiled for 2"),
        ({"causal": True}, "axis causal: the call has (1|true), this module was compiled for (0|false)"),
        ({"mode": 7}, "axis mode: the call has (7|MUL), this module was compiled for (3|ADD)"),
        ({"sizes": [16, 33, 1, 2, 3, 1, 2, 3, 4]}, "axis pair: the call has 16x33, this module was compiled for 16x32"),
        (
            {"sizes": [16, 32, 1, 2, 4, 1, 2, 3, 4]},
            "axis triple: the call has 1x2x4, this module was compiled for 1x2x3",
        ),
        ({"sizes": [16, 32, 1, 2, 3, 9, 2, 3, 4]}, "axis quad: the call has 9x2x3x4, .* compiled for 1x2x3x4"),
        ({"variant": "Shift"}, "axis variant: the call has Shift, this module was compiled for Plain"),
        ({"variant": "Plai"}, "axis variant: the call has Plai, this module was compiled for Plain"),
        ({"variant": "Plain" + "n" * 200}, "axis variant: the call has Plainnn.*, this module was compiled for Plain"),
    ],
)
def test_a_specialized_module_never_computes_with_the_wrong_constant(
    warm_store: Path, change: dict[str, Any], said: str
) -> None:
    call = FACTS[0][0]
    module, facts = KINDS.load(**_values(call)), np.zeros(16, np.int64)
    with pytest.raises(dm.SpecializationMismatch, match=f"kinds: {said}"):
        _kinds(module, {**call, **change}, facts)
    assert not facts.any()


# --- Missing values under the policy aot ---


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"dtype": "int8"}, {"dtype": "int8"}),
        ({"dtype": "float16"}, {"dtype": "float16"}),
        ({"width": 64}, {"width": "64"}),
        ({"mode": 5}, {"mode": "5"}),
        ({"sizes": [16, 33, 1, 2, 3, 1, 2, 3, 4]}, {"pair": "16x33"}),
        ({"sizes": [16, 32, 1, 2, -4, 1, 2, 3, 4]}, {"triple": "1x2x-4"}),
        ({"variant": "Nobody"}, {"variant": "Nobody"}),
    ],
)
def test_a_missing_value_is_named_before_anything_is_done(
    warm_store: Path, change: dict[str, Any], missing: dict[str, str]
) -> None:
    module, facts = built_ahead(KINDS), np.zeros(16, np.int64)
    with pytest.raises(dm.MissingSpecialization) as caught:
        _kinds(module, {**FACTS[0][0], **change}, facts)
    error = caught.value
    assert (error.kernel, error.missing) == ("kinds", missing)
    (axis,) = missing
    assert error.available[axis] == tuple(KINDS.axes[KINDS.position(axis)].text(v) for v in _declared(axis))
    for part in (axis, missing[axis], *error.available[axis]):
        assert part in str(error)
    # A command is printed where it would work: for values that the kernel accepts.
    assert (error.command is not None) == (axis in ("width", "pair"))
    if error.command:
        assert f"{axis}={missing[axis]}" in error.command and str(KINDS.origin) in error.command
        assert error.command in str(error)
    else:
        assert _CURES[axis] in str(error) and str(error).count("expected") == 1 and "build it: " not in str(error)
    assert not facts.any()


_CURES = {
    "dtype": "to the values of axis dtype",
    "mode": "pass a value of axis mode: the name of an enumerator",
    "triple": "add 1x2x-4 to the values of axis triple, or give it an `accepts` that admits it",
    "variant": "axis variant declares no Nobody: add the variant to its values",
}


def _declared(axis: str) -> tuple[Any, ...]:
    return KINDS.axes[KINDS.position(axis)].values


def test_a_missing_combination_is_named_with_every_axis(warm_store: Path) -> None:
    module, facts = built_ahead(KINDS), np.zeros(16, np.int64)
    call = {**FACTS[0][0], "width": 3}  # the module has each value, but not the combination
    with pytest.raises(dm.MissingSpecialization) as caught:
        _kinds(module, call, facts)
    assert caught.value.missing == {
        **{"dtype": "float32", "width": "3", "causal": "false", "mode": "ADD", "variant": "Plain"},
        **{"pair": "16x32", "triple": "1x2x3", "quad": "1x2x3x4"},
    }
    assert not facts.any()


def test_the_work_around_a_missing_value_is_not_begun(warm_store: Path) -> None:
    module, marks = built_ahead(PICK), np.zeros(2, np.int64)
    with pytest.raises(dm.MissingSpecialization):
        module.marked(77, 1, marks)
    assert marks.tolist() == [1, 0], "the entry ran on after its dispatch failed"
    assert module.marked(2, 1, marks) == 2001
    assert marks.tolist() == [2, 1]


def test_under_aot_a_declared_case_that_nobody_built_is_missing(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK)
    everything = kernel.load()
    assert everything.pick(1, 1) == 1001
    module = kernel.load(policy="aot")
    assert module.pick(1, 1) == 1001
    with pytest.raises(dm.MissingSpecialization, match=r"policy is aot, which never compiles") as caught:
        module.pick(1, 2)
    assert caught.value.missing == {"width": "1", "depth": "2"}
    assert everything.pick(1, 2) == 1002
    assert module.pick(1, 2) == 1002, "what was built meanwhile serves"
    with pytest.raises(dm.MissingSpecialization):
        kernel.load(width=9, depth=9, policy="aot")


def test_the_command_for_a_missing_value_survives_blanks_in_its_path(copy_of: Callable[..., dm.Kernel]) -> None:
    kernel = copy_of(PICK, "my sources")
    kernel.load()
    with pytest.raises(dm.MissingSpecialization) as caught:
        kernel.load(policy="aot").pick(1, 77)
    words = shlex.split(caught.value.command or "")
    assert words[:2] == ["dimorph", "build"] and words[2] == f"{kernel.origin}:pick"
    assert "depth=77" in words


# --- Missing values under the policy auto ---


def test_under_auto_a_value_that_is_not_there_is_built_and_the_call_goes_on(warm_store: Path) -> None:
    module = PICK.load()
    marks = np.zeros(2, np.int64)
    assert module.marked(40, 1, marks) == 40001
    assert marks.tolist() == [2, 1], "the call starts anew in a wider entry, and ends once"
    assert module.pick(40, 1) == 40001


def test_two_axes_are_widened_in_one_call(warm_store: Path) -> None:
    module = PICK.load()
    assert module.pick(41, 42) == 41042
    assert [module.pick(1, 42), module.pick(41, 1), module.pick(2, 2)] == [1042, 41001, 2002]
    assert module.pick(-43, -44) == -43044


def test_a_kept_function_is_widened_with_its_module(warm_store: Path) -> None:
    module = PICK.load()
    kept = module.pick
    assert module.pick(45, 1) == 45001
    built = len(module.resolutions)
    assert kept(45, 1) == 45001
    assert len(module.resolutions) == built


def test_a_value_that_the_axis_does_not_accept_stays_missing(warm_store: Path) -> None:
    with pytest.raises(dm.MissingSpecialization, match=r"axis dtype: expected .*float32.*, got 'float8_e4m3fn'"):
        SCALE.load().scale(_float8(7), _float8(7), 1.0)
    x = np.zeros((1, 8), np.float32)
    with pytest.raises(dm.MissingSpecialization, match=r"axis width: expected one of \{7, 64\}, got 8"):
        SCALE.load().scale(x, x.copy(), 1.0)


def _float8(width: int) -> Any:
    torch = pytest.importorskip("torch")
    return torch.zeros(1, width, dtype=torch.float8_e4m3fn)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40, 2**63 - 1])
def test_a_value_that_no_constant_holds_is_missing_not_wrapped(warm_store: Path, number: int) -> None:
    for module in (PICK.load(), built_ahead(PICK)):
        with pytest.raises(dm.MissingSpecialization, match=str(number)):
            module.pick(number, 1)


def test_the_filter_holds_for_calls_whatever_other_modules_have_bound(warm_store: Path) -> None:
    assert PICK.load().pick(1, 1) == 1001
    filtered = dataclasses.replace(PICK, where=lambda v: v["width"] != v["depth"])
    module = filtered.load()
    assert module.pick(1, 2) == 1002
    with pytest.raises(dm.MissingSpecialization, match=r"no such combination is declared"):
        module.pick(1, 1)


def test_a_combination_that_the_list_lacks_is_built_when_asked_for(copy_of: Callable[..., dm.Kernel]) -> None:
    listed = copy_of(PICK, only=[{"width": 1, "depth": 1}, {"width": 2, "depth": 2}])
    assert listed.load().pick(1, 2) == 1002
    with pytest.raises(dm.MissingSpecialization, match=r"(list of this module lacks it|is not there)"):
        built_ahead(listed).pick(2, 1)


def test_a_value_found_missing_after_a_case_has_run_is_an_error_not_a_second_run(warm_store: Path) -> None:
    module = PICK.load()
    assert module.pick_twice(1, 2) == 3002
    with pytest.raises((RuntimeError, dm.MissingSpecialization), match=r"width.*5151"):
        module.pick_twice(1, 5151)


def test_variants_are_dispatched_by_name(warm_store: Path) -> None:
    module = FUNCTOR.load()
    values = np.array([1.0, 2.0])
    module.functor("Plain", values)
    module.functor("Shift", values, 1.0, 2, False, np.array([10, 20], np.float32))
    assert values.tolist() == [13, 25]
    with pytest.raises(dm.MissingSpecialization) as caught:
        module.functor("plain", values)
    assert caught.value.missing == {"variant": "plain"}
    assert caught.value.available == {"variant": ("Plain", "Shift")}


def test_a_variant_of_the_users_own_plugs_in(warm_store: Path, mode: Form, tmp_path: Path) -> None:
    (tmp_path / "cube.h").write_text(
        "#pragma once\n#include <dimorph/dtype.h>\ntemplate <typename Params>\nstruct CubeOf {\n"
        "  double scale;\n  explicit CubeOf(const Params& p) : scale(p.scale) {}\n"
        "  double transform(double v, int) const { return v * v * v * scale; }\n};\n"
    )
    cube = dm.Variant("Cube", header="cube.h", struct="CubeOf", params=(dm.scalar("scale"),), root=tmp_path)
    module = mode.load(FUNCTOR, variant=cube)
    values = np.array([2.0, 3.0])
    module.functor("Cube", values, 0.5)
    assert values.tolist() == [4, 13.5]


def test_two_kernels_with_one_entry_keep_their_own_cases(warm_store: Path, copy_of: Callable[..., dm.Kernel]) -> None:
    one = copy_of(PICK)
    (one.root / "other_case.cc").write_text(
        (one.root / "pick_case.cc").read_text().replace("DEPTH;", "DEPTH + 500000;")
    )
    two = dataclasses.replace(one, case=("other_case.cc",))
    for values in ({}, {"width": 1, "depth": 2}):
        modules = [kernel.load(**values) for kernel in (one, two, one)]
        assert [module.pick(1, 2) for module in modules] == [1002, 501002, 1002]


def test_two_variants_of_one_name_keep_their_own_cases(warm_store: Path, tmp_path: Path) -> None:
    for name, factor in (("two", 2), ("three", 3)):
        (tmp_path / f"{name}.h").write_text(
            "template <typename Params>\nstruct Times {\n  explicit Times(const Params&) {}\n"
            f"  double transform(double v, int) const {{ return v * {factor}; }}\n}};\n"
        )
    for factor, name in ((2, "two"), (3, "three"), (2, "two")):
        values = np.array([1.0])
        FUNCTOR.load(variant=[PLAIN, dm.Variant("Times", header=f"{name}.h", root=tmp_path)]).functor("Times", values)
        assert values.tolist() == [factor]


def test_shift_and_plain_are_what_the_tests_think_they_are() -> None:
    """The numbers above assume that the declared variants differ in their parameters."""
    assert [len(variant.params) for variant in (PLAIN, SHIFT)] == [0, 5]
