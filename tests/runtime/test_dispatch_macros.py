"""Dispatch in entries that are hard for macros, cases of another signature, and equal names in two cases."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm_ffi

import dimorph as dm
from support.forms import Form
from support.kernels import SYNTAX, TAGS, TWINS

# --- Entry code that is hard for macros ---


def _syntax(mode: Form, dtype: str, width: int) -> dm.Module:
    """The functions of this kernel call no case, so no case is built ahead of time in either form."""
    values = {"dtype": dtype, "width": width, "pair": (1, 2), "causal": False, "variant": "Plain"}
    return SYNTAX.load(**(values if mode.name == "jit" else {}))


def test_the_macros_stand_where_a_statement_may(warm_store: Path, mode: Form) -> None:
    module = _syntax(mode, "float32", 2)
    assert module.in_if(True, 2) == 2 + 40
    assert module.commas(2) == 7
    assert module.once(2) == 1
    assert module.unused(tvm_ffi.dtype("float32"), 2, 1, 2, False, "Plain") == 1
    assert module.nested(tvm_ffi.dtype("float32"), 2) == 141
    assert module.narrow(2) == 2


def test_the_else_branch_belongs_to_the_if_it_stands_under(warm_store: Path, mode: Form) -> None:
    module = _syntax(mode, "float64", 1)
    assert module.in_if(True, 1) == 21
    with pytest.raises((dm.SpecializationMismatch, dm.MissingSpecialization), match="width"):
        module.in_if(True, 3)
    if mode.name == "aot":
        assert module.in_if(False, 1) == -2 + 20
        assert module.nested(tvm_ffi.dtype("float64"), 2) == 181


def test_nothing_in_the_macros_warns(warm_store: Path, mode: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_CXXFLAGS", "-Werror -Wshadow=compatible-local -Wconversion -Wno-conversion")
    values = {"dtype": "float32", "width": 1, "pair": (1, 2), "causal": True, "variant": "Shift"}
    SYNTAX.load(**(values if mode.name == "jit" else {}))


# --- Signatures and equal names ---


@pytest.mark.parametrize(
    ("function", "entry", "case"),
    [
        ("by_width", "int", "long"),
        ("by_pointer", "float", "double"),
        ("by_struct", "Block", "Block"),
        ("by_result", "float", "double"),
        ("by_count", "double", "double, double"),
        ("by_enum", "Order", "Order"),
    ],
)
def test_a_case_of_another_signature_is_never_called(
    warm_store: Path, mode: Form, function: str, entry: str, case: str
) -> None:
    module = mode.load(TAGS, width=1)
    with pytest.raises(TypeError, match=f"{function}: .*signature") as caught:
        getattr(module, function)(1)
    lines = str(caught.value).splitlines()
    ours, theirs = (next(line for line in lines if line.strip().startswith(side)) for side in ("entry:", "case:"))
    assert entry in ours and case in theirs


def test_types_that_are_one_to_the_machine_agree(warm_store: Path, mode: Form) -> None:
    assert mode.load(TAGS, width=2).agreed(2) == 2 * 1000 + 4 * 100 + 10 + 2.5


def _twin(width: int) -> int:
    return width * 10000 + width * 100 + width * 10 + width + (width + 1) * 10_000_000


@pytest.mark.parametrize("debug", ["0", "1"])
def test_equal_names_in_two_cases_never_meet(
    warm_store: Path, mode: Form, debug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inline functions, templates, statics and virtual tables have one name and different constants."""
    monkeypatch.setenv("DIMORPH_DEBUG", debug)
    modules = {width: mode.load(TWINS, width=width) for width in (3, 5, 7)}
    for _ in range(2):
        for width, module in modules.items():
            assert module.twins(width) == _twin(width)
