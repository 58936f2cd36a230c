"""Signatures of exported functions, read from entries as authors spell them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dimorph.declare.variant import Param, scalar, tensor
from dimorph.errors import DeclarationError
from dimorph.source import native_signature
from dimorph.source.native_signature import Argument, Result, Signature


def signature(source: str, function: str, variant: Sequence[Param] | None, what: str) -> Signature:
    """Read the signature of a function, which the text exports."""
    return native_signature.signature(f"{source}\nDIMORPH_EXPORT({function})\n", function, variant, what)


SPELLINGS = {
    "void f(ConstTensor x, Tensor y) {}": (["const DLTensor*", "DLTensor*"], []),
    "static inline void f(const dimorph::ConstTensor& x,\n  dimorph::Tensor y)\n{\n}": (
        ["const DLTensor*", "DLTensor*"],
        [],
    ),
    "/* int f(int) {} */ void f(/* none */) {}": ([], []),
    'void other() { call("f("); }\nint64_t f(unsigned int count, size_t most) { return 1; }': (
        ["uint32_t", "uint64_t"],
        ["int64_t"],
    ),
    "DIMORPH_EXPORT(other)\nconst char *f(Str text) { return 0; }": (["const char*"], ["char*"]),
    "#define A \\\n  B\n#include <x>\ndimorph::NewTensor f(double a, float b, bool c) {}": (
        ["double", "float", "bool"],
        ["DLManagedTensor*"],
    ),
    "struct S { int f; };\nResults<int64_t , dimorph::Str> f(dimorph::DataType t, Device d) { return {}; }": (
        ["DLDataType", "DLDevice"],
        ["int64_t", "char*"],
    ),
    'extern "C" [[nodiscard]] bool f(unsigned int, ConstTensor, double eps = f(1)) { return true; }': (
        ["uint32_t", "const DLTensor*", "double"],
        ["bool"],
    ),
    "namespace { int g() { return f(1); } }\nlong f(long long n) { return n; }": (["int64_t"], ["int64_t"]),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_types_are_read_from_any_spelling(text: str) -> None:
    found = signature(text, "f", None, "kernel k")
    assert ([one.c for one in found.arguments], [one.c for one in found.results]) == SPELLINGS[text]
    assert not any(one.optional for one in found.arguments)


def test_parameters_without_a_name_get_one() -> None:
    names = [one.name for one in signature("void f(long long, Str text, Tensor) {}", "f", None, "k").arguments]
    assert names == ["argument0", "text", "argument2"]


def test_optional_arguments_and_results() -> None:
    text = "Optional<double> f(Optional<ConstTensor> maybe_x, dimorph::Optional< int64_t > maybe_n) { return {}; }"
    assert signature(text, "f", None, "kernel k") == Signature(
        "f",
        text.partition(" {")[0],
        (Argument("maybe_x", "const DLTensor*", True), Argument("maybe_n", "int64_t", True)),
        (Result("double", True),),
    )


def test_the_parameters_of_the_only_variant_follow() -> None:
    params = (scalar("scale"), scalar("times", "int32"), tensor("table", "float32"), tensor("maybe_bias", "float64"))
    found = signature("void f(Tensor x, Extra extra) {}", "f", params, "kernel k")
    assert found.arguments == (
        Argument("x", "DLTensor*"),
        Argument("scale", "double"),
        Argument("times", "int32_t"),
        Argument("table", "const DLTensor*"),
        Argument("maybe_bias", "const DLTensor*", True),
    )


@pytest.mark.parametrize("typed", ["std::string", "ConstTensor*", "Optional<Extra>", "double*"])
def test_a_type_that_c_cannot_pass_is_named(typed: str) -> None:
    with pytest.raises(DeclarationError, match=r"^kernel k: f: parameter 'x': C\+\+ programs cannot pass "):
        signature(f"void f({typed} x) {{}}", "f", None, "kernel k")
