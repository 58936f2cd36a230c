"""Kernels: the specializations that a declaration includes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dimorph as dm
from dimorph.declare.axes import IDENTIFIER
from dimorph.declare.declaration import RESERVED
from support.kernels import ALL, KINDS, PICK, PLAIN, SHIFT
from support.paths import SUPPORT


def _kernel(**changes: Any) -> dm.Kernel:
    declared: dict[str, Any] = {"name": "k", "entry": "k.cc", "case": ["c.cc"]}
    return dm.Kernel(**{**declared, **changes})


WIDTH = dm.int_axis("width", "WIDTH", [64, 128], accepts=lambda width: width % 8 == 0)
CAUSAL = dm.flag_axis("causal", "CAUSAL")
TILE = dm.int_axis("tile", "TILE", [16, 32], choose=lambda v: 16 if v["width"] < 100 else 32)


def _texts(instantiations: dm.InstantiationSet) -> list[str]:
    return [str(specialization) for specialization in instantiations]


def test_the_set_is_the_product_in_declaration_order() -> None:
    assert _texts(_kernel(axes=[WIDTH, CAUSAL]).instantiations()) == [
        "width=64, causal=false",
        "width=64, causal=true",
        "width=128, causal=false",
        "width=128, causal=true",
    ]


@st.composite
def _declarations(draw: st.DrawFn) -> tuple[list[list[int]], set[int]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = [draw(st.lists(st.integers(-9, 99), min_size=n, max_size=n, unique=True)) for n in sizes]
    count = len(list(itertools.product(*axes)))
    return axes, draw(st.sets(st.integers(0, count - 1), min_size=1))


@given(_declarations())
def test_filtered_and_listed_sets_are_parts_of_the_product(declared: tuple[list[list[int]], set[int]]) -> None:
    values, kept = declared
    names = [f"a{i}" for i in range(len(values))]
    axes = [dm.int_axis(name, name.upper(), one) for name, one in zip(names, values, strict=True)]
    product = list(itertools.product(*values))
    expected = [row for i, row in enumerate(product) if i in kept]

    def where(row: Mapping[str, Any]) -> bool:
        return tuple(row[name] for name in names) in expected

    filtered = _kernel(axes=axes, where=where).instantiations()
    listed = _kernel(axes=axes, only=[dict(zip(names, row, strict=True)) for row in expected]).instantiations()
    assert [specialization.values for specialization in filtered] == expected
    assert {specialization.values for specialization in listed} == set(expected)
    assert filtered.slots == len(product)
    for slot, row in enumerate(product):
        specialization = filtered.specialization(slot)
        assert (specialization.values if specialization else None) == (row if slot in kept else None)
        assert list(filtered.picked(slot).values()) == [str(value) for value in row]
    for slot in range(listed.slots):
        there = listed.specialization(slot)
        assert there is None or [str(v) for v in there.values] == list(listed.picked(slot).values())


@given(_declarations(), st.data())
def test_fixing_every_axis_leaves_one_specialization(
    declared: tuple[list[list[int]], set[int]], data: st.DataObject
) -> None:
    axes = [dm.int_axis(f"a{i}", f"A{i}", values) for i, values in enumerate(declared[0])]
    row = [data.draw(st.sampled_from(values)) for values in declared[0]]
    found = _kernel(axes=axes).instantiations(**{f"a{i}": value for i, value in enumerate(row)})
    assert found.specialized and found.slots == 1
    (only,) = found
    assert only.values == tuple(row)
    assert [only[f"a{i}"] for i in range(len(row))] == row


def test_axes_are_narrowed_widened_and_given_in_any_shape() -> None:
    kernel = _kernel(axes=[WIDTH, CAUSAL])
    assert _texts(kernel.instantiations(width=[80, 64], causal=True)) == [
        "width=80, causal=true",
        "width=64, causal=true",
    ]
    for several in ([64, 80], (64, 80), [64, 80, 64]):
        assert kernel.instantiations(width=several).values[0] == (64, 80)
    assert kernel.instantiations(width={80}).values[0] == (80,)
    assert kernel.instantiations(width="80", causal="true").specialized


def test_a_tuple_is_one_value_and_a_list_of_tuples_is_several() -> None:
    kernel = _kernel(axes=[dm.tuple_axis("pair", ["A", "B"], [(1, 2), (3, 4)])])
    assert kernel.instantiations(pair=(1, 2)).values == (((1, 2),),)
    assert kernel.instantiations(pair=[(3, 4), (1, 2)]).values == (((3, 4), (1, 2)),)
    assert kernel.instantiations(pair="3x4").specialized


def test_a_choice_axis_is_chosen_by_the_others_and_a_given_value_wins() -> None:
    kernel = _kernel(axes=[WIDTH, TILE])
    assert _texts(kernel.instantiations()) == ["width=64, tile=16", "width=128, tile=32"]
    assert kernel.instantiations(width=64).specialized
    assert _texts(kernel.instantiations(width=64, tile=32)) == ["width=64, tile=32"]
    assert _texts(kernel.instantiations(tile=16)) == ["width=64, tile=16", "width=128, tile=16"]
    with pytest.raises(
        dm.DeclarationError, match=r"axis tile: a choice axis can be fixed to one value, got \{16, 32\}"
    ):
        kernel.instantiations(tile=[16, 32])


def test_a_given_choice_wins_in_a_sparse_set_too() -> None:
    kernel = _kernel(axes=[WIDTH, TILE], only=[{"width": 64}])
    assert _texts(kernel.instantiations()) == ["width=64, tile=16"]
    assert _texts(kernel.instantiations(tile=32)) == ["width=64, tile=32"]


def test_a_choice_outside_its_axis_is_an_error_that_names_it() -> None:
    kernel = _kernel(axes=[dm.int_axis("tile", "TILE", [16], choose=lambda _: 99)])
    with pytest.raises(dm.DeclarationError, match=r"axis tile: expected one of \{16\}, got 99"):
        kernel.instantiations()


def test_the_filter_sees_choices_and_its_verdict_holds_for_fixed_values() -> None:
    kernel = _kernel(axes=[WIDTH, TILE], where=lambda v: v["tile"] == 32)
    assert _texts(kernel.instantiations()) == ["width=128, tile=32"]
    with pytest.raises(dm.DeclarationError, match="kernel k: no combination is left with width=64"):
        kernel.instantiations(width=64)
    assert _texts(kernel.instantiations(width=64, tile=32)) == ["width=64, tile=32"]


def test_a_listed_row_is_there_even_with_a_value_that_is_only_accepted() -> None:
    kernel = _kernel(axes=[WIDTH], only=[{"width": 64}, {"width": 80}])
    assert _texts(kernel.instantiations()) == ["width=64", "width=80"]


def test_rows_may_leave_out_what_is_chosen_or_has_one_value() -> None:
    slot = dm.variant_axis("variant", "V", default=PLAIN)
    kernel = _kernel(axes=[WIDTH, TILE, slot], only=[{"width": 128}])
    assert _texts(kernel.instantiations()) == ["width=128, tile=32, variant=Plain"]


def test_a_value_beyond_the_list_can_be_asked_for() -> None:
    kernel = _kernel(axes=[WIDTH, CAUSAL], only=[{"width": 64, "causal": True}])
    assert _texts(kernel.instantiations(width=80, causal=False)) == ["width=80, causal=false"]


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: _kernel(name="my kernel"), "kernel 'my kernel': 'my kernel' is not a C\\+\\+ identifier"),
        (lambda: _kernel(functions=["a-b"]), "'a-b' is not a C\\+\\+ identifier"),
        (lambda: _kernel(functions="pick"), "kernel 'k': functions: expected a list, got.* 'pick'"),
        (lambda: _kernel(case="c.cc"), "kernel 'k': case: expected a list, got.* 'c.cc'"),
        (lambda: _kernel(include_dirs="inc"), "include_dirs: expected a list, got.* 'inc'"),
        (lambda: _kernel(axes=WIDTH), "kernel 'k': axes: expected a list"),
        (lambda: _kernel(axes=[WIDTH, None]), "kernel 'k': axes: expected axes, got None"),
        (lambda: _kernel(case={"c.cc": 1}), "kernel 'k': case: expected a list, got {'c.cc': 1}\\Z"),
        (lambda: _kernel(axes=[WIDTH], only={"width": 64}), r"only: expected a list.*write \[{'width': 64}\]"),
        (
            lambda: next(iter(_kernel(axes=[WIDTH], archs=lambda v: v["w"]).instantiations())).archs(),
            "kernel k: `archs` asks for an axis 'w'; there are: width",
        ),
        (lambda: _kernel(axes=[WIDTH, WIDTH]), "two axes are called 'width'"),
        (lambda: _kernel(axes=[WIDTH, dm.flag_axis("wide", "WIDTH")]), "two bound names are called 'WIDTH'"),
        (
            lambda: _kernel(axes=[dm.variant_axis(n, n.upper(), default=PLAIN) for n in "vw"]),
            "it has two variant axes; one is possible",
        ),
        (
            lambda: _kernel(axes=[dm.int_axis("policy", "POLICY", [1])]),
            "kernel 'k': no axis can be called 'policy', which is an argument of load or build",
        ),
        (lambda: _kernel(case=[], axes=[WIDTH]), "it has axes but no case sources"),
        (lambda: _kernel(axes=[WIDTH, CAUSAL], only=[{"width": 64}]).instantiations(), "no value for axis causal"),
        (lambda: _kernel(axes=[WIDTH], only=[{"depth": 64}]), "no axis is called 'depth'; there are: width"),
        (lambda: _kernel(axes=[WIDTH], only=[{"width": 65}]).instantiations(), "axis width: expected one of"),
        (
            lambda: _kernel(axes=[WIDTH]).instantiations(depth=1),
            "kernel k: no axis is called 'depth'; there are: width",
        ),
        (lambda: _kernel(axes=[WIDTH]).instantiations(width=65), "axis width: expected one of"),
        (lambda: _kernel(axes=[WIDTH]).instantiations(width=[]), "axis width: expected at least one value, got none"),
        (lambda: _kernel(axes=[WIDTH], where=lambda _: False).instantiations(), "no combination is left"),
        (lambda: _kernel(axes=[WIDTH]).load(width=64), r"kernel k: entry .*k\.cc: No such file"),
    ],
)
def test_what_cannot_work_says_why(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(dm.DeclarationError, match=said):
        declare()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "k", "entry": "k.cc", "cases": ["k_case.cc"]}, r"unexpected keyword argument 'cases'"),
        ({"entry": "k.cc"}, r"missing 1 required positional argument: 'name'"),
    ],
)
def test_wrong_arguments_of_a_kernel_are_told_by_its_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=rf"^Kernel\(\).* {said}"):
        dm.Kernel(**given)


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"policy: expected one of auto, aot, jit, got 'always'"):
        PICK.load(policy="always")


@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.name)
def test_a_kernel_is_frozen_and_prints_without_addresses(kernel: dm.Kernel) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernel.name = "other"  # type: ignore[misc]
    assert kernel.name in repr(kernel) and kernel.entry in repr(kernel)
    for axis in kernel.axes:
        assert axis.name in repr(kernel)
    assert not re.search(r"0x[0-9a-f]{6}", repr(kernel)), "an address in a printed declaration"


def test_a_kernel_that_is_used_as_a_module_says_that_it_is_to_be_loaded() -> None:
    kernel: Any = dm.Kernel(name="pair", entry="p.cc", case=["p_case.cc"], functions=["first", "second"])
    with pytest.raises(TypeError, match=r"kernel pair is a declaration.*pair\.load\(\.\.\.\)\.first\(\.\.\.\)"):
        kernel(1)
    with pytest.raises(AttributeError, match=r"kernel pair has no attribute 'second'.*pair\.load\(\.\.\.\)\.second\("):
        kernel.second(1)
    assert not hasattr(kernel, "_second") and copy.deepcopy(kernel) is kernel


def test_a_kernel_takes_its_rows_by_value() -> None:
    row = {"width": 64}
    kernel = _kernel(axes=[WIDTH], only=[row])
    row["width"] = 128
    assert _texts(kernel.instantiations()) == ["width=64"]


def test_paths_start_at_the_declaring_file() -> None:
    kernel = dm.Kernel(name="k", entry="k.cc", case=[])
    assert kernel.origin == Path(__file__)
    assert kernel.root == Path(__file__).parent
    assert KINDS.root == SUPPORT / "kernels"


def test_functions_default_to_the_kernels_name() -> None:
    assert _kernel().functions == ("k",)
    assert _kernel(functions=["f", "g"]).functions == ("f", "g")
    assert dm.Kernel(name="k", entry="k.cc", case=[]).functions == ()


def test_the_namespace_of_a_case_names_its_combination_and_is_an_identifier() -> None:
    seen = set()
    for specialization in KINDS.instantiations():
        assert IDENTIFIER.match(specialization.namespace)
        for part in ("kinds", str(specialization["width"]), specialization["dtype"], specialization["variant"].name):
            assert part in specialization.namespace
        seen.add(specialization.namespace)
    assert len(seen) == len(list(KINDS.instantiations()))


def test_a_widened_set_keeps_its_slots_and_gains_the_new_value() -> None:
    kernel = _kernel(axes=[WIDTH, CAUSAL], where=lambda v: not (v["width"] == 80 and v["causal"]))
    wider = kernel.instantiations().widened("width", 80)
    assert wider.slots == 6
    assert _texts(wider) == [*_texts(kernel.instantiations()), "width=80, causal=false"]


def test_variants_are_chosen_by_name_or_by_value() -> None:
    kernel = _kernel(axes=[dm.variant_axis("variant", "V", default=PLAIN, values=[PLAIN, SHIFT])])
    assert _texts(kernel.instantiations()) == ["variant=Plain", "variant=Shift"]
    assert kernel.instantiations(variant="Shift").values == ((SHIFT,),)
    own = dm.Variant("Own", header="own.h")
    assert _texts(kernel.instantiations(variant=[PLAIN, own])) == ["variant=Plain", "variant=Own"]


def test_every_argument_of_load_and_build_is_reserved() -> None:
    """`load(**values)` would take the value of such an axis for its own argument."""
    named = [
        name
        for verb in (dm.Kernel.load, dm.Kernel.build, dm.Kernel.instantiations)
        for name, parameter in inspect.signature(verb).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    assert set(named) | {"self"} == set(RESERVED)


def test_a_header_that_only_the_kernel_has_is_no_variants_header(tmp_path: Path) -> None:
    """The root of a variant is the directory of the file that declares it, which need not be the kernel's."""
    sources, elsewhere = tmp_path / "sources", tmp_path / "elsewhere"
    sources.mkdir()
    elsewhere.mkdir()
    (sources / "one.cc").write_text('#include "one_config.h"\n')
    (sources / "one_case.cc").write_text('#include "one_config.h"\n')
    (sources / "scenes.h").write_text("#pragma once\n")

    def load(root: Path) -> None:
        scene = dm.Variant("Scene", header="scenes.h", root=root)
        dm.Kernel("one", axes=[dm.variant_axis("scene", "SCENE", default=scene)], root=sources).load()

    told = rf"there is no header {elsewhere}/scenes\.h.*write root='{sources}'"
    with pytest.raises(dm.DeclarationError, match=told):
        load(elsewhere)
    (elsewhere / "scenes.h").write_text("#pragma once\n")
    with pytest.raises(dm.DeclarationError, match=rf"{elsewhere}/scenes\.h is shadowed by {sources}/scenes\.h"):
        load(elsewhere)
