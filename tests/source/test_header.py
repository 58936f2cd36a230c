"""The config header: one rule for each axis, the same text every time, independent of values outside the set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dimorph as dm
from dimorph.plan.unit import INCLUDE
from dimorph.source.config_header import config_header, header_name
from dimorph.source.cpp_text import without_comments
from support.kernels import ALL, FUNCTOR, KINDS, PLAIN, SHIFT


def _kernel(*axes: dm.Axis, **changes: Any) -> dm.Kernel:
    return dm.Kernel(name="k", entry="k.cc", case=["c.cc"], axes=axes, **changes)


def _header(kernel: dm.Kernel, **values: object) -> str:
    return config_header(kernel.instantiations(**values), "case")


def _macros(header: str) -> Mapping[str, str]:
    """Return macro name -> parameters and body, on one line with single blanks."""
    joined = header.replace("\\\n", " ")
    found = re.findall(r"^#define (\w+)(.*)$", without_comments(joined), re.M)
    return {name: " ".join(rest.split()) for name, rest in found}


def _lines(header: str) -> list[str]:
    return [line.strip() for line in without_comments(header).splitlines()]


HEAD_DIM = dm.int_axis("head_dim", "HEAD_DIM", [64, 128, 256])
DTYPE_Q = dm.dtype_axis("dtype_q", "DTypeQ", ["float16", "bfloat16"])


def test_one_value_is_a_constant_and_a_body_behind_a_check() -> None:
    header = _header(_kernel(HEAD_DIM, DTYPE_Q), head_dim=128, dtype_q="float16")
    assert "constexpr int HEAD_DIM = 128;" in _lines(header)
    assert "using DTypeQ = half;" in _lines(header)
    macros = _macros(header)
    for name in ("DISPATCH_head_dim", "DISPATCH_dtype_q"):
        assert macros[name].startswith("(expr, const_expr, ...)")
        assert "__VA_ARGS__" in macros[name] and "expect(" in macros[name]
    assert not [name for name in macros if name.startswith("_DISPATCH_CASES")]


def test_several_values_are_a_table() -> None:
    header = _header(_kernel(HEAD_DIM, DTYPE_Q))
    assert _macros(header)["_DISPATCH_CASES_head_dim"] == (
        "(case_var, ...) _DISPATCH_CASE(64, case_var, __VA_ARGS__) _DISPATCH_CASE(128, case_var, __VA_ARGS__) "
        "_DISPATCH_CASE(256, case_var, __VA_ARGS__)"
    )
    assert "_DISPATCH_CASES_head_dim(" in _macros(header)["DISPATCH_head_dim"]
    assert "constexpr int HEAD_DIM" not in header and "using DTypeQ" not in header


def test_some_values_fixed_and_some_not_is_both() -> None:
    header = _header(_kernel(HEAD_DIM, DTYPE_Q), dtype_q="bfloat16")
    assert "using DTypeQ = bfloat16;" in _lines(header)
    assert "_DISPATCH_CASES_head_dim" in _macros(header)
    assert "_DISPATCH_CASES_dtype_q" not in _macros(header)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ({"dtype": "bfloat16"}, ["using DType = bfloat16;"]),
        ({"causal": True}, ["constexpr bool CAUSAL = true;"]),
        ({"causal": False}, ["constexpr bool CAUSAL = false;"]),
        ({"mode": "MUL"}, ['#include "mode.h"', "constexpr Mode MODE = Mode::MUL;"]),
        ({"pair": (32, 16)}, ["constexpr int PAIR_A = 32;", "constexpr int PAIR_B = 16;"]),
        ({"triple": (3, 2, -1)}, ["constexpr int T_1 = 3;", "constexpr int T_2 = 2;", "constexpr int T_3 = -1;"]),
        ({"width": 3}, ["constexpr int WIDTH = 3;", "constexpr int UNROLL = 4;"]),
        ({"variant": "Shift"}, ['#include "variants.h"', "#define KINDS_VARIANT Shift"]),
    ],
)
def test_each_kind_of_axis_has_its_constant(value: dict[str, Any], lines: list[str]) -> None:
    everything: dict[str, Any] = {
        **{"dtype": "float32", "width": 2, "causal": True, "mode": "ADD", "variant": "Plain"},
        **{"pair": (16, 32), "triple": (1, 2, 3), "quad": (1, 2, 3, 4)},
    }
    free = dm.Kernel(name="kinds", entry="kinds.cc", case=["kinds_case.cc"], axes=KINDS.axes)
    header = _header(free, **{**everything, **value})
    for line in lines:
        assert line in _lines(header), header


def test_each_kind_of_axis_has_its_rows() -> None:
    macros = _macros(_header(KINDS))
    rows = {
        "dtype": "_DISPATCH_TYPE_CASE(float, case_var, __VA_ARGS__) _DISPATCH_TYPE_CASE(double, case_var, __VA_ARGS__) "
        "_DISPATCH_TYPE_CASE(bfloat16, case_var, __VA_ARGS__)",
        "causal": "_DISPATCH_CASE(false, case_var, __VA_ARGS__) _DISPATCH_CASE(true, case_var, __VA_ARGS__)",
        "mode": "_DISPATCH_CASE(Mode::ADD, case_var, __VA_ARGS__) _DISPATCH_CASE(Mode::MUL, case_var, __VA_ARGS__)",
        "pair": "_DISPATCH_CASE_2(16, 32, case_var1, case_var2, __VA_ARGS__) "
        "_DISPATCH_CASE_2(32, 16, case_var1, case_var2, __VA_ARGS__)",
    }
    for axis, expected in rows.items():
        assert macros[f"_DISPATCH_CASES_{axis}"].partition(") ")[2] == expected
    assert macros["DISPATCH_quad"].startswith("(expr1, expr2, expr3, expr4, const_expr1, const_expr2,")
    assert '"Plain"' in macros["_DISPATCH_CASES_variant"] and '"Shift"' in macros["_DISPATCH_CASES_variant"]


def _additional(header: str) -> str:
    """Return the struct of the variant's parameters, without blanks at the beginning of its lines."""
    body = re.search(r"struct AdditionalParams \{\n(.*?)^\};", header, re.M | re.S)
    assert body
    return re.sub(r"^ +|::dimorph::", "", body[1], flags=re.M)


def test_a_variants_parameters_are_the_fields_of_a_struct_that_sets_them() -> None:
    assert _macros(header := _header(FUNCTOR, variant="Shift"))["FUNCTOR"] == "Shift"
    assert _additional(header).splitlines() == [
        "double offset = {};",
        "int32_t times = {};",
        "bool negate = {};",
        "const float* table = {};",
        "const double* maybe_bias = {};",
        "#if defined(DIMORPH_HOST)",
        "static constexpr bool dimorph_own_sizes = false;",
        "template <typename Params>",
        "static constexpr bool dimorph_own =",
        "__is_same(decltype(&Params::offset), double AdditionalParams::*) &&",
        "__is_same(decltype(&Params::times), int32_t AdditionalParams::*) &&",
        "__is_same(decltype(&Params::negate), bool AdditionalParams::*) &&",
        "__is_same(decltype(&Params::table), const float* AdditionalParams::*) &&",
        "__is_same(decltype(&Params::maybe_bias), const double* AdditionalParams::*) &&",
        "true;",
        "template <typename To>",
        "static void dimorph_set([[maybe_unused]] To& dimorph_to, double offset, int32_t times, bool negate, "
        "Elements<float> table, Optional<Elements<double>> maybe_bias) {",
        "dimorph_to.params.offset = offset;",
        "dimorph_to.params.times = times;",
        "dimorph_to.params.negate = negate;",
        'dimorph_to.set(&AdditionalParams::table, table, "table", "");',
        'dimorph_to.set(&AdditionalParams::maybe_bias, maybe_bias, "maybe_bias", "");',
        "}",
        "#endif",
    ]


def test_the_header_of_an_entry_leaves_every_name_to_its_functions() -> None:
    """A kernel without axes, its function and the namespace of its case may have one name."""
    header = config_header(_kernel().instantiations(), "entry")
    assert "namespace" not in header and "#define DIMORPH_CASE k" in header


def test_a_variant_without_parameters_has_the_same_struct_empty() -> None:
    first, *_ = _additional(_header(FUNCTOR, variant="Plain")).splitlines()
    assert first == "#if defined(DIMORPH_HOST)"


@st.composite
def _unique_values(draw: st.DrawFn) -> list[list[int]]:
    # Large and all different, so that each can be recognized anywhere in the text.
    pool = draw(st.lists(st.integers(100_000, 999_999), min_size=2, max_size=12, unique=True))
    cuts = sorted(draw(st.sets(st.integers(1, len(pool) - 1), max_size=2)))
    return [pool[a:b] for a, b in zip([0, *cuts], [*cuts, len(pool)], strict=True)]


@given(_unique_values(), st.data())
def test_a_header_of_one_value_never_mentions_the_others(groups: list[list[int]], data: st.DataObject) -> None:
    axes = [dm.int_axis(f"axis{i}", f"AXIS_{i}", values) for i, values in enumerate(groups)]
    row = [data.draw(st.sampled_from(values)) for values in groups]
    header = _header(_kernel(*axes), **{f"axis{i}": value for i, value in enumerate(row)})
    assert {int(number) for number in re.findall(r"\d{6}", header)} == set(row)
    # So declaring more values, or fewer, does not change the text.
    alone = [dm.int_axis(axis.name, axis.binds[0], [value]) for axis, value in zip(axes, row, strict=True)]
    assert _header(_kernel(*alone)) == header


@given(_unique_values())
def test_a_dispatching_header_has_every_value_in_order(groups: list[list[int]]) -> None:
    axes = [dm.int_axis(f"axis{i}", f"AXIS_{i}", values) for i, values in enumerate(groups)]
    macros = _macros(_header(_kernel(*axes)))
    for axis in axes:
        if len(axis.values) > 1:
            rows = re.findall(r"_DISPATCH_CASE\((\d+),", macros[f"_DISPATCH_CASES_{axis.name}"])
            assert [int(row) for row in rows] == list(axis.values)


def test_other_variants_dtypes_and_enumerators_are_not_mentioned_either() -> None:
    header = next(iter(KINDS.instantiations()))
    text = config_header(dm.InstantiationSet(KINDS, tuple((value,) for value in header.values)), "case")
    for other in ("Shift", "bfloat16", "double", "MUL", "32, 16", "offset"):
        assert not re.search(rf"\b{other}\b", text), other


@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.name)
def test_the_text_is_the_same_in_another_process(kernel: dm.Kernel) -> None:
    script = (
        "import hashlib, sys\nfrom support import kernels\nfrom dimorph.source.config_header import config_header\n"
        f"kernel = next(k for k in kernels.ALL if k.name == {kernel.name!r})\n"
        "sys.stdout.write(config_header(kernel.instantiations(), 'case'))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {_header(kernel)}


@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.name)
def test_no_line_says_where_or_when(kernel: dm.Kernel) -> None:
    header = _header(kernel)
    assert str(kernel.root) not in header and str(Path.home()) not in header
    assert not re.search(r"\b20\d\d-", header)
    assert not [line for line in header.splitlines() if line != line.rstrip()]
    assert header.endswith("\n")


def test_the_device_safe_part_stands_alone(tmp_path: Path) -> None:
    """The constants and the variant need no host header: the file compiles alone."""
    for number, specialization in enumerate(KINDS.instantiations()):
        alone = dm.InstantiationSet(KINDS, tuple((value,) for value in specialization.values))
        (tmp_path / f"{number}.h").write_text(config_header(alone, "device"))
        source = tmp_path / f"{number}.cc"
        source.write_text(f'#include "{number}.h"\nstatic_assert(WIDTH * UNROLL > 0 && sizeof(DType) > 1, "");\n')
        flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", f"-I{KINDS.root}"]
        done = subprocess.run(["g++", *flags, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_kernel_without_axes_has_a_header_too() -> None:
    header = _header(dm.Kernel(name="plain", entry="plain.cc", case=[]))
    assert header_name(dm.Kernel(name="plain", entry="plain.cc", case=[])) == "plain_config.h"
    assert "DISPATCH_" not in header and "#pragma once" in header


# --- Comments ---


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("int a; // one", "int a;"),
        ("int a; /* one\ntwo */ int b;", "int a;   int b;"),
        ("\n\n  // only a comment\n\n", ""),
        ('const char* s = "// no /* comment";', 'const char* s = "// no /* comment";'),
        ("char c = '\"'; // \"", "char c = '\"';"),
        (r'"a\"//b" // c', r'"a\"//b"'),
        ("a / b; a /= 2;", "a / b; a /= 2;"),
    ],
)
def test_comments_go_and_literals_stay(text: str, left: str) -> None:
    assert without_comments(text).split() == left.split()


_PIECES = st.sampled_from(["int a = 1;", '"text"', "'c'", "#define X 1", "a / b", "\n", " ", '"/*"', "'\\''"])
_COMMENTS = st.sampled_from(["// remark\n", "/* remark */", "/* two\nlines */", '// "quote\n', "/* 'quote */"])


@given(st.lists(_PIECES, max_size=12), st.data())
@settings(max_examples=200)
def test_comments_between_tokens_do_not_change_what_is_left(pieces: list[str], data: st.DataObject) -> None:
    commented = "".join(piece + data.draw(st.one_of(st.just(" "), _COMMENTS)) for piece in pieces)
    plain = " ".join(pieces)
    assert without_comments(commented).split() == without_comments(plain).split()
    assert without_comments(without_comments(commented)) == without_comments(commented)


def test_variants_that_are_not_in_a_dispatching_entry_are_not_included() -> None:
    # The variant's header may not compile without the types of the case.
    header = _header(_kernel(dm.variant_axis("variant", "V", default=PLAIN, values=[PLAIN, SHIFT])))
    assert "variants.h" not in header


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float64"], "double"),
        (["float32"], "float"),
        (["bfloat16"], "float"),
        (["int64"], "float"),
        (["float64", "float64"], "double"),
        (["float64", "float32"], "float"),
        ([], "float"),
    ],
)
def test_a_scalar_without_a_dtype_follows_the_dtype_axes(dtypes: list[str], expected: str) -> None:
    params = (dm.scalar("a"), dm.scalar("b", "float32"), dm.scalar("c", "float64"))
    axes = [dm.dtype_axis(f"t{i}", f"T{i}", [dtype]) for i, dtype in enumerate(dtypes)]
    axis = dm.variant_axis("v", "V", default=dm.Variant("S", header="s.h", params=params))
    struct = _additional(_header(_kernel(*axes, axis)))
    assert struct.startswith(f"{expected} a = {{}};\nfloat b = {{}};\ndouble c = {{}};\n")
    assert f"To& dimorph_to, {expected} a, float b, double c) {{" in struct
