"""Functions in Python have the names, defaults and comments of those in C++."""

from __future__ import annotations

import inspect
import pydoc
import sys
import threading
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph.runtime.dispatcher import Dispatcher
from dimorph.runtime.functions import Argument, Arguments, arguments, make
from dimorph.source.signature import Parameter, Signature
from support.kernels import FUNCTOR, PICK, SIGNED

pytestmark = pytest.mark.usefixtures("warm_store")

X = np.array([1.0, 2.0])


@pytest.fixture
def signed(warm_store: object) -> dm.Module:
    return SIGNED.load()


def test_a_signature_is_that_of_the_source(signed: dm.Module) -> None:
    shown = "(in_, out, scale=2.0, shift=None, mode='plain, quiet', twice=False, from_=-16)"
    plain = inspect.signature(signed.affine)
    bare = plain.replace(
        parameters=[one.replace(annotation=inspect.Parameter.empty) for one in plain.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == shown
    assert signed.affine.__annotations__ == {
        **{"in_": "Array", "out": "Array", "scale": "float", "shift": "Array | None"},
        **{"mode": "str", "twice": "bool", "from_": "int", "return": "None"},
    }
    assert typing.get_type_hints(signed.affine)["shift"] == dm.Array | None
    assert str(inspect.signature(signed.larger)) == "(first: 'float', second: 'float' = 15.0) -> 'float'"
    assert str(inspect.signature(signed.silent)) == "() -> 'None'"


def test_the_comment_is_the_docstring(signed: dm.Module) -> None:
    assert inspect.getdoc(signed.affine).startswith("Write scale * x + shift into out.\n\nArgs:\n  shift: added")
    assert inspect.getdoc(signed.larger).startswith("The larger of two.\n\nAnd no more.\n\nIn C++: double larger(")
    assert "No words" not in inspect.getdoc(signed.silent)
    assert "Write scale * x + shift into out." in pydoc.render_doc(signed.affine)


def test_arguments_come_by_position_or_name_and_defaults_are_filled_in(signed: dm.Module) -> None:
    out = np.empty(2)

    def got(*args: Any, **named: Any) -> list[float]:
        signed.affine(*args, **named)
        return out.tolist()

    assert got(X, out) == [2, 4]
    assert got(X, out, 3) == got(in_=X, out=out, scale=3.0) == got(X, scale=3.0, out=out) == [3, 6]
    assert got(X, out, shift=np.ones(2)) == [3, 5]
    assert got(X, out, 1.0, None, "with from", True) == [-14, -12]
    assert got(X, out, mode="with from", from_=1) == [3, 5]
    assert signed.larger(3.0) == 15 and signed.larger(second=1, first=2) == 2


def test_read_only_arrays_and_errors_pass_the_defaults_on(signed: dm.Module) -> None:
    frozen, out = X.copy(), np.empty(2)
    frozen.flags.writeable = False
    signed.affine(frozen, out=out, twice=True)
    assert out.tolist() == [4, 8]
    with pytest.raises((ValueError, SyntaxError), match="affine: argument 'out': expected a writable array"):
        signed.affine(X, out=frozen)
    with pytest.raises(TypeError, match="affine: argument 'shift': expected dtype float64"):
        signed.affine(X, out, shift=np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.affine(X), r"affine\(\) missing 1 required positional argument: 'out'"),
        (lambda m: m.affine(X, X, scal=1), r"affine\(\) got an unexpected keyword argument 'scal'"),
        (lambda m: m.affine(X, X, 1.0, scale=1), r"affine\(\) got multiple values for argument 'scale'"),
        (lambda m: m.silent(1), r"silent\(\) takes 0 positional arguments but 1 was given"),
    ],
)
def test_wrong_arguments_are_told_in_the_words_of_python(
    signed: dm.Module, call: Callable[[dm.Module], Any], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        call(signed)


def test_parameters_that_a_macro_makes_have_no_names(signed: dm.Module) -> None:
    assert str(inspect.signature(signed.by_macro)) == "(*args) -> 'int'"
    assert inspect.getdoc(signed.by_macro) == "In C++: int64_t by_macro(...)"
    assert signed.by_macro(1, 2) == 3
    with pytest.raises(TypeError, match="by_macro: expected 2 arguments"):
        signed.by_macro(1)


def test_parameters_of_one_variant_have_names() -> None:
    function = FUNCTOR.load(variant="Shift").functor
    names = ["variant", "values", "offset", "times", "negate", "table", "maybe_bias"]
    assert list(inspect.signature(function).parameters) == names
    values, table = np.zeros(2), np.ones(2, np.float32)
    function("Shift", values, table=table, negate=False, times=1, offset=2.0)
    assert values.tolist() == [3, 3]
    assert list(inspect.signature(FUNCTOR.load().functor).parameters) == ["variant", "values", "extra"]


@pytest.mark.parametrize(("name", "default"), [("x, y", None), ("x=print()", None), ("x", "print()"), ("x", "0; y")])
def test_nothing_but_names_and_literals_becomes_part_of_a_function(name: str, default: str | None) -> None:
    with pytest.raises((ValueError, SyntaxError), match=r"identifier|malformed|invalid syntax"):
        make(Signature("f"), Arguments((Argument(name, "int", default),)), print, print, print, None)


def test_functions_of_kernels_with_device_code_take_a_stream_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    signature = Signature("f", (Parameter("x", "ConstTensor"), Parameter("n", "int64_t", "3"), Parameter("e", "Extra")))
    shift = (dm.scalar("offset"), dm.tensor("maybe_bias", "float32"))
    several = make(signature, arguments(signature, None), _told("native"), print, print, lambda *a: ("stream", *a))
    single = make(signature, arguments(signature, shift[1:]), _told("native"), print, print, lambda *a: ("stream", *a))
    assert str(inspect.signature(several)) == "(x: 'Array', n: 'int' = 3, *e, stream=None)"
    assert several(1, 2, 5, 6) == ("native", 1, 2, 5, 6) and several(1) == ("native", 1, 3)
    assert several(1, 2, 5, stream=7) == ("stream", (1, 2, 5), 7)
    assert single(x=1, stream=7) == ("stream", (1, 3, None), 7)
    with pytest.raises(TypeError, match=r"f\(\) takes from 1 to 3 positional arguments but 4 were given"):
        single(1, 2, None, 7)
    monkeypatch.setitem(sys.modules, "cupy", sys)  # whose arrays may be among the arguments
    assert single(1) == ("stream", (1, 3, None), None)
    # A parameter that must be given cannot follow one that has a default.
    assert arguments(signature, shift).rest == "e"


def _told(name: str) -> Callable[..., Any]:
    return lambda *args: (name, *args)


def test_functions_are_made_when_they_are_asked_for_and_stay_the_same(signed: dm.Module) -> None:
    assert {"affine", "larger"} <= set(dir(signed))
    assert "larger" not in vars(signed)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(signed.larger)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is signed.larger for one in found)


def test_a_function_first_asked_for_after_a_late_build_calls_the_wider_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, passed_on = PICK.load(), []
    real = Dispatcher._wider_address
    monkeypatch.setattr(Dispatcher, "_wider_address", lambda *args: passed_on.append(args[1:]) or real(*args))
    assert module.pick(63, 1) == 63001
    assert passed_on == [("pick", "width", "63")]
    assert module.pick_twice(63, 1) == 63001 + 1001
    assert len(passed_on) == 1, "the call went by way of the first entry"


def test_a_definition_that_the_build_reads_otherwise_than_the_compiler_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two.cc").write_text(
        '#include <dimorph/entry.h>\n#include "two_config.h"\n'
        "#define LONG int64_t b, int64_t\nint64_t two(LONG a) { return a + b; }\nDIMORPH_EXPORT(two)\n"
    )
    with pytest.raises(dm.BuildError, match="the build read other parameters than the compiler"):
        dm.Kernel(name="two", entry="two.cc", case=[], root=tmp_path).load()


def test_a_function_with_several_definitions_takes_its_arguments_by_position(tmp_path: Path) -> None:
    (tmp_path / "two.cc").write_text(
        '#include <dimorph/entry.h>\n#include "two_config.h"\n'
        "#if 0\nint64_t two(int64_t a) { return a; }\n#else\n"
        "int64_t two(int64_t a, int64_t b = 7) { return 10 * a + b; }\n#endif\nDIMORPH_EXPORT(two)\n"
    )
    two = dm.Kernel(name="two", entry="two.cc", case=[], root=tmp_path).load().two
    assert two(1, 2) == 12
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        two(1, b=2)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("int64_t stream", "parameter 'stream': in kernels with device sources Python has an argument of this name"),
        ("dimorph::TensorList xs", "parameter 'xs': in kernels with device sources the stream of arrays in a list"),
    ],
)
def test_arguments_that_a_kernel_with_device_code_cannot_have_are_refused(
    tmp_path: Path, parameter: str, said: str
) -> None:
    head = '#include <dimorph/entry.h>\n#include "k_config.h"\n'
    (tmp_path / "k.cc").write_text(f"{head}void k(Tensor x, {parameter}) {{}}\nDIMORPH_EXPORT(k)\n")
    for name in ("k_case.cc", "k.cu"):
        (tmp_path / name).write_text("")
    kernel = dm.Kernel(name="k", entry="k.cc", case=["k_case.cc"], device=["k.cu"], archs=["sm_80"], root=tmp_path)
    with pytest.raises(dm.DeclarationError, match=f"k: {said}"):
        kernel.load()


def test_functions_may_have_the_names_of_what_the_macros_use(signed: dm.Module) -> None:
    assert (signed.count(1), signed.handle(1), signed.args(), signed.result()) == (2, 3, 3, 4)
    assert signed.own(self=5) == 5
