"""A C++ error is reported once, with its real file and line and the unit; a failing compiler is named."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from support.skeletons import declared, replace

HEAD_DIM = 64
CASE = f"affine case (dtype=float32, head_dim={HEAD_DIM}, variant=Scale)"


def _specialized(kernel: dm.Kernel, head_dim: int = HEAD_DIM) -> None:
    kernel.load(dtype="float32", head_dim=head_dim)


def _dispatching(kernel: dm.Kernel, head_dim: int = HEAD_DIM) -> None:
    x = np.ones((1, head_dim), dtype=np.float32)
    kernel.load().affine(x, np.empty_like(x), 2.0)


MODES = pytest.mark.parametrize("use", [_specialized, _dispatching], ids=["jit", "aot"])
Use = Callable[..., None]


def _refused(use: Use, root: Path, head_dim: int = HEAD_DIM) -> dm.BuildError:
    with pytest.raises(dm.BuildError) as caught:
        use(declared(root), head_dim)
    assert type(caught.value) is dm.BuildError
    return caught.value


def _check(error: dm.BuildError, file: Path, line: int, complaint: str, context: str) -> None:
    """Check that the report of a C++ error is complete."""
    headline, *more = str(error).splitlines()
    assert len(more) <= 5
    assert re.fullmatch(rf"{re.escape(str(file))}:{line}: error: .*{complaint}.*", headline)
    assert headline.count(file.name) == 1
    assert any(re.fullmatch(rf"while compiling {re.escape(context)}(, with \d more)?", text.strip()) for text in more)
    assert error.context == context
    assert Path(error.command[0]).is_absolute() and error.command[-1]
    assert error.exit_code == 1
    # The message quotes the line; the attribute has the full output.
    assert more[0].strip() == file.read_text().splitlines()[line - 1].strip()
    assert f"{file}:{line}:" in error.output and "^" in error.output


@MODES
def test_mistake_in_a_case(use: Use, root: Path) -> None:
    line = replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = nothing;")
    _check(_refused(use, root), root / "affine_case.cc", line, "'nothing' was not declared", CASE)


@MODES
def test_mistake_in_a_variants_header(use: Use, root: Path) -> None:
    line = replace(root / "scale.h", "return value * scale; }", "return value * scales; }")
    _check(_refused(use, root), root / "scale.h", line, "'scales' was not declared", CASE)


@pytest.mark.parametrize("inside_a_macro", [False, True])
@pytest.mark.parametrize(
    ("use", "context"),
    [(_specialized, "affine entry (dtype=float32, head_dim=64, variant=Scale)"), (_dispatching, "affine entry")],
    ids=["jit", "aot"],
)
def test_mistake_in_an_entry(use: Use, context: str, inside_a_macro: bool, root: Path) -> None:
    old = "DISPATCH_head_dim(x.size(1)" if inside_a_macro else "x.expect({rows"
    line = replace(root / "affine.cc", old, old.replace("x.", "x.no_"))
    _check(_refused(use, root), root / "affine.cc", line, "has no member named 'no_", context)


@MODES
def test_mistake_that_one_value_triggers(use: Use, root: Path) -> None:
    planted = 'static_assert(HEAD_DIM != 128, "128 does not fit");'
    line = replace(root / "affine_case.cc", "struct Params :", f"{planted}\nstruct Params :")
    use(declared(root), 64)
    error = _refused(use, root, 128)
    context = "affine case (dtype=float32, head_dim=128, variant=Scale)"
    _check(error, root / "affine_case.cc", line, "128 does not fit", context)


@MODES
def test_an_axis_that_is_not_dispatched_is_refused(use: Use, root: Path) -> None:
    """It fails in both forms, because no other check compares the call with the constant."""
    replace(
        root / "affine.cc",
        "DISPATCH_head_dim(x.size(1), HEAD_DIM, DIMORPH_CALL(affine)(x, y, extra))",
        "DIMORPH_CALL(affine)(x, y, extra)",
    )
    error = _refused(use, root)
    assert "DIMORPH_CALL stands outside of DISPATCH_head_dim, which binds HEAD_DIM" in str(error)


@MODES
def test_several_mistakes_make_one_report(use: Use, root: Path) -> None:
    line = replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = nothing;")
    replace(root / "affine_case.cc", "DType* out = y", "DType* out = nowhere")
    error = _refused(use, root)
    headline = str(error).splitlines()[0]
    assert re.fullmatch(rf"{re.escape(str(root / 'affine_case.cc'))}:{line}: error: .*'nothing'.*", headline)
    assert re.search(rf"while compiling {re.escape(CASE)}, with \d more", str(error))
    assert "nowhere" in error.output


@MODES
def test_mistake_mended_is_compiled_again(use: Use, root: Path) -> None:
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = nothing;")
    _refused(use, root)
    replace(root / "affine_case.cc", "DType sum = nothing;", "DType sum = 0;")
    use(declared(root))


def _wrapper(root: Path, monkeypatch: pytest.MonkeyPatch, when_compiling: str) -> Path:
    """Return a function that makes a compiler, which answers queries as g++ does and fails at a compile."""
    real = shutil.which("g++")
    assert real, "these tests need g++"
    path = root.parent / "bin" / "g++"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\ncase "$*" in *-shared*_unit.cc*) {when_compiling};; esac\nexec {real} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("DIMORPH_CXX", str(path))
    return path


def _sick(use: Use, root: Path, kind: type[dm.BuildError]) -> dm.BuildError:
    with pytest.raises(kind) as caught:
        use(declared(root))
    assert type(caught.value) is kind
    assert caught.value.context.startswith("affine ")
    assert str(caught.value).startswith(f"{caught.value.context}: ")
    assert "/g++" in caught.value.command[0]
    return caught.value


@MODES
def test_compiler_that_hangs_is_killed_and_named(use: Use, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _wrapper(root, monkeypatch, "echo thinking; sleep 100")
    monkeypatch.setenv("DIMORPH_COMPILE_TIMEOUT", "0.5")
    started = time.monotonic()
    error = _sick(use, root, dm.BuildTimeout)
    assert time.monotonic() - started < 30
    assert f"{path} did not end within 0.5 s" in str(error)
    assert error.exit_code is None
    assert error.output == "thinking\n"


@MODES
def test_compiler_that_crashes_is_told_apart(use: Use, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _wrapper(root, monkeypatch, "echo last words; kill -SEGV $$")
    error = _sick(use, root, dm.CompilerCrashed)
    assert f"{path} was killed by SIGSEGV" in str(error)
    assert error.output == "last words\n"


@MODES
def test_compiler_out_of_memory_is_told_apart(use: Use, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # g++ itself runs out of memory: cc1plus needs more than this for any source.
    _wrapper(root, monkeypatch, "ulimit -v 50000")
    error = _sick(use, root, dm.CompilerCrashed)
    assert "memory" in str(error) and "DIMORPH_JOBS=1" in str(error)


@MODES
def test_a_sick_compiler_leaves_nothing_that_is_found(
    use: Use, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wrapper(root, monkeypatch, "kill -SEGV $$")
    _sick(use, root, dm.CompilerCrashed)
    assert not list((tmp_path / "store").rglob("*.so"))
    monkeypatch.delenv("DIMORPH_CXX")
    use(declared(root))
