"""Reading the signatures of exported functions."""

from __future__ import annotations

import pytest

import dimorph as dm
from dimorph.source.signature import Signature, signatures


def _read(definition: str, name: str = "f") -> Signature:
    return signatures(f"{definition}\nDIMORPH_EXPORT({name})\n", [name], "entry.cc")[name]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", []),
        ("void", []),
        ("ConstTensor x, dimorph::Tensor y", [("x", "ConstTensor"), ("y", "Tensor")]),
        ("const ConstTensor& x", [("x", "ConstTensor")]),
        ("const char *text, A<B, C> pair", [("text", "char*"), ("pair", "A<B, C>")]),
        ("unsigned long long n", [("n", "unsigned long long")]),
        ("[[maybe_unused]] int64_t n", [("n", "int64_t")]),
        ("double a = 2., /* c, d */ float b = 1 / 2", None),
        ("int a /* first */,  // a comment, with a comma\n int b", [("a", "int"), ("b", "int")]),
        ("Optional<Str> maybe, Extra extra", [("maybe", "Optional<Str>"), ("extra", "Extra")]),
    ],
)
def test_names_and_types_are_read_as_they_are_spelled(parameters: str, expected: list[tuple[str, str]] | None) -> None:
    definition = f"void f({parameters}) {{ g(1, 2); }}"
    if expected is None:
        with pytest.raises(dm.DeclarationError):
            _read(definition)
        return
    found = _read(definition).parameters
    assert found is not None
    assert [(one.name, one.type) for one in found] == expected


@pytest.mark.parametrize(
    "parameters", ["ConstTensor", "LIST", "int a, unsigned int", "int (*f)(int)", "int a, int b[2]"]
)
def test_parameters_that_cannot_be_read_are_not_guessed(parameters: str) -> None:
    assert _read(f"void f({parameters}) {{}}").parameters is None


@pytest.mark.parametrize(
    ("others", "known"),
    [
        ("struct S { void f(int b, int a) {} };", True),
        ("namespace n { void f(int b, int a) {} }", True),
        ("struct S { void f(int a = g()) {} };", True),
        ("void f(int b, int a);", True),
        ("#if 0\nvoid f(int b, int a) {}\n#endif", False),
        ("void f(int a, float b) {}", False),
    ],
)
def test_of_functions_of_one_name_the_exported_one_counts(others: str, known: bool) -> None:
    for definition in (f"{others}\nvoid f(int a, int b) {{}}", f"void f(int a, int b) {{}}\n{others}"):
        parameters = _read(definition).parameters
        assert [one.name for one in parameters or ()] == (["a", "b"] if known else [])


def test_a_function_may_be_exported_inside_its_namespace() -> None:
    text = "void f(int x) {}\nnamespace n {\nvoid f(int a) {}\nDIMORPH_EXPORT(f)\n}\n"
    assert signatures(text, ["f"], "entry.cc")["f"].names == "a"


@pytest.mark.parametrize(
    "declared",
    [
        "unsigned v = -1",
        "int v = 0xffffffff",
        "int8_t v = 200",
        "uint64_t v = 0xffffffffffffffff",
        "bool v = 1",
        "int64_t v = 1e3",
        "int v = 1.9",
        "dimorph::Str v = 0",
    ],
)
def test_a_default_that_no_call_could_pass_is_refused(declared: str) -> None:
    with pytest.raises(dm.DeclarationError, match=r"entry.cc:1: f: parameter 'v': expected "):
        _read(f"void f({declared}) {{}}")


def test_a_function_that_is_not_there_has_no_parameters_that_are_known() -> None:
    assert _read("DEFINE(f)").parameters is None
    assert _read("void f(int a);").parameters is None


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("double v = 2", "2.0"),
        ("double v = -1e-6", "-1e-06"),
        ("float v = .5f", "0.5"),
        ("float v = .1f", "0.1"),
        ("double v = .1f", "0.10000000149011612"),
        ("uint8_t v = 255", "255"),
        ("int64_t v = -9223372036854775808", "-9223372036854775808"),
        ("int v = 1'000'000", "1000000"),
        ("int64_t v = -0x1F", "-31"),
        ("uint64_t v = 3ull", "3"),
        ("int v = 010", "8"),
        ("bool v = true", "True"),
        ('Str v = "a, \\"b\\" // c"', "'a, \"b\" // c'"),
        ("Optional<double> v = {}", "None"),
        ("Optional<double> v = Optional<double>()", "None"),
        ("Optional<double> v = 1.5", "1.5"),
        ("Extra v = {}", None),
        ("int v", None),
    ],
)
def test_defaults_are_those_of_python(declared: str, expected: str | None) -> None:
    (parameter,) = _read(f"void f({declared}) {{}}").parameters or ()
    assert parameter.default == expected


@pytest.mark.parametrize(
    "declared",
    ["double v = kScale", "int v = 1 + 1", "int v = sizeof(int)", "Str v = {}", "double v = 1e999", "int v = {}"],
)
def test_a_default_that_python_cannot_have_is_refused_with_its_place(declared: str) -> None:
    said = rf"entry.cc:3: f: parameter 'v': expected a number, true, .* got {declared.partition('= ')[2][:3]}"
    with pytest.raises(dm.DeclarationError, match=said.replace("{", r"\{").replace("+", r"\+")):
        _read(f"// one\nvoid f(int a,\n       {declared}) {{}}")


@pytest.mark.parametrize(
    ("text", "doc", "result"),
    [
        ("/// One.\n///\n///   two\ndouble f() {}", "One.\n\n  two", "double"),
        ("/** One. */\nstatic inline void f() {}", "One.", "void"),
        ("/**\n * One.\n *\n * - two\n */\nvoid\nf() {}", "One.\n\n- two", "void"),
        ("// One.\nvoid f() {}", "", "void"),
        ("/* One. */\nvoid f() {}", "", "void"),
        ("/// Of another.\nint other;\nvoid f() {}", "", "void"),
        ("/// Of another.\n#include <x>\nvoid f() {}", "", "void"),
        (
            "/// Of g.\nvoid g() {}\nDIMORPH_EXPORT(g)\n/// Of f.\nResults<int, A<B>> f() {}",
            "Of f.",
            "Results<int, A<B>>",
        ),
        ("// no\n/// One.\n/// two\nvoid f() {}", "One.\ntwo", "void"),
    ],
)
def test_the_comment_above_is_the_text_for_people(text: str, doc: str, result: str) -> None:
    found = _read(text)
    assert (found.doc, found.result) == (doc, result)
