"""A mistake of a kernel author gives a message of at most six lines that names the cause, the place and the cure.

Without messages of its own for mistakes, Dimorph told 14 of the first 58 without cause, place or cure, or not at all;
19 with one of the three, 25 with two, and none with three in six lines: the output of a compiler had 8 to 230 lines.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import traceback
from dataclasses import replace as replace_setting
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from dimorph import settings
from dimorph.plan.unit import INCLUDE, entry_unit
from dimorph.resolve.resolver import resolve
from dimorph.resolve.warned import warnings
from support.forms import Form
from support.mistakes import MISTAKES, Mistake
from support.skeletons import declared, line_of, replace


def _refused(mistake: Mistake, root: Path) -> Exception:
    """Return the exception that a user of the mistaken kernel gets."""
    with pytest.raises((dm.DimorphError, TypeError)) as caught:
        kernel = declared(root)
        if mistake.form == "specialized":
            kernel.load(dtype="float32", head_dim=64)
        else:
            module = kernel.load()
            if mistake.form == "call":
                x = np.ones((1, 64), dtype=np.float32)
                module.affine(x, np.empty_like(x), 2.0)
    return caught.value


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_cause_place_and_cure(name: str, root: Path) -> None:
    mistake = MISTAKES[name]
    place = mistake.make(root)
    if mistake.form == "call":
        place = place.rpartition("/")[2]  # objects hold no directories
    _check(mistake, place, _refused(mistake, root))


def _check(mistake: Mistake, place: str, error: Exception) -> None:
    """Check that a message is short, and names the place, the cause and the cure."""
    message = str(error)
    assert len(message.splitlines()) <= 6, message
    assert re.search(rf"{re.escape(place)}\b", message), message
    assert re.search(mistake.cause, message), message
    assert re.search(mistake.cure, message), message


@pytest.mark.parametrize(
    "name",
    [
        "dispatch misspelt",
        "dispatch forgotten",
        "export misspelt",
        "call of a result without its type",
        "pointer parameter",
        "brackets of a tensor",
        "element that is only read",
        "tensor in the place of its dtype",
        "size in a message",
        "std::string parameter whose header is included",
    ],
)
def test_a_mistake_is_told_in_the_words_of_clang(name: str, root: Path) -> None:
    mistake = MISTAKES[name]
    place = mistake.make(root)
    # The entry alone: beside it, zig would begin to build its C++ library for the case, which takes minutes.
    unit = entry_unit(declared(root).instantiations(dtype="float32", head_dim=64))
    with pytest.raises(dm.BuildError) as caught:
        resolve([unit], replace_setting(settings.current(), cxx="zig"), "jit")
    _check(mistake, place, caught.value)


@pytest.mark.parametrize(
    ("planted", "cause"),
    [
        ('static_assert(HEAD_DIM < 9, "mine: too wide");', "mine: too wide"),
        ("int nothing = undeclared_name;", "'undeclared_name'"),
    ],
)
def test_another_error_keeps_the_words_of_the_compiler(planted: str, cause: str, root: Path) -> None:
    case = root / "affine_case.cc"
    place = f"{case}:{replace(case, 'struct Params :', f'{planted} struct Params :')}"
    with pytest.raises(dm.BuildError) as caught:
        declared(root).load(dtype="float32", head_dim=64)
    first, quoted, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{place}: error: ") and cause in first
    assert quoted.strip() == f"{planted} struct Params : AdditionalParams {{" and len(rest) <= 3


@pytest.mark.parametrize("header", ["<dimorph/entry.h>", '"one_config.h"'])
def test_an_entry_without_cases_that_exports_nothing_is_told(header: str, tmp_path: Path) -> None:
    (tmp_path / "one.cc").write_text(f"#include {header}\n\nint one() {{ return 1; }}\n")
    kernel = dm.Kernel(name="one", entry="one.cc", case=[], root=tmp_path)
    with pytest.raises(dm.BuildError, match=r"one\.cc:3: error: .*exports no function(?s:.*)DIMORPH_EXPORT\(one\)"):
        kernel.load()


def test_all_that_the_compiler_printed_is_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "dimorph")
    MISTAKES["std::vector parameter"].make(root)
    error = _refused(MISTAKES["std::vector parameter"], root)
    assert isinstance(error, dm.BuildError)
    lines = len(error.output.splitlines())
    assert lines > 6 and f"DIMORPH_LOG=debug shows the {lines} lines" in str(error)
    assert error.output.rstrip() in caplog.text


@pytest.mark.parametrize("name", ["dispatch forgotten", "entry that is not there"])
def test_the_traceback_ends_where_the_author_loads(name: str, root: Path) -> None:
    mistake = MISTAKES[name]
    mistake.make(root)
    error = _refused(mistake, root)
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames == ["_refused", "load"]
    assert error.__cause__ is None and error.__suppress_context__


def test_a_mistake_in_a_case_is_told_where_the_call_is(root: Path) -> None:
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = nothing;")
    x = np.ones((1, 64), dtype=np.float32)
    module = declared(root).load()
    with pytest.raises(dm.BuildError) as caught:
        module.affine(x, np.empty_like(x), 2.0)
    assert not [f for f in traceback.extract_tb(caught.value.__traceback__) if "/dimorph/resolve/" in f.filename]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("affine_case.cc", "noexcept {\n", 'noexcept(false) {\n  DIMORPH_CHECK(x.ndim() == 2, "two");\n'),
        ("affine_case.cc", "noexcept {\n", 'noexcept {\n  // DIMORPH_CHECK(x.ndim() == 2, "two");\n'),
        (
            "affine_case.cc",
            "noexcept {\n",
            'noexcept {\n  try { DIMORPH_CHECK(x.ndim(), ""); } catch (...) { return; }\n',
        ),
        (
            "affine_case.cc",
            "noexcept {\n",
            'noexcept {\n  const auto two = [&] { DIMORPH_CHECK(x.ndim() == 2, "two"); };\n  (void)two;\n',
        ),
        (
            "affine_case.cc",
            "DType inverse_rms(",
            'void inverse_rms(int n) { DIMORPH_CHECK(n == 2, "two"); }\nDType inverse_rms(',
        ),
        ("affine.cc", "DIMORPH_EXPORT(affine)", "DIMORPH_EXPORT( affine )  // and no DIMORPH_EXPORT(in)"),
        (
            "affine.cc",
            "DIMORPH_EXPORT(affine)",
            "DIMORPH_EXPORT(affine)\nint halves(int n) { return n < 2 ? n : halves(n / 2); }\nDIMORPH_EXPORT(halves)",
        ),
        (
            "affine.cc",
            "  DISPATCH_dtype(",
            "  if (x.ndim() > 2) return affine(x, y, extra);  // never\n  DISPATCH_dtype(",
        ),
        (
            "affine.cc",
            '#include "affine_config.h"',
            '#include "affine_config.h"\n#define BY_WIDTH(name, ...) DISPATCH_head_dim(x.size(1), name, __VA_ARGS__)',
        ),
    ],
)
def test_what_only_looks_like_a_mistake_is_built(file: str, old: str, new: str, root: Path) -> None:
    replace(root / file, old, new)
    x = np.ones((1, 64), dtype=np.float32)
    declared(root).load(dtype="float32", head_dim=64).affine(x, np.empty_like(x), 2.0)


# --- What works, or ends with its text ---


@pytest.mark.parametrize("temporary", [False, True])
def test_a_new_tensor_is_passed_to_a_case(mode: Form, temporary: bool, root: Path) -> None:
    entry = root / "affine.cc"
    replace(
        entry,
        "void affine(ConstTensor x, Tensor y, Extra extra) {",
        "dimorph::NewTensor affine(ConstTensor x, Extra extra) {\n"
        "  dimorph::NewTensor y({x.size(0), x.size(1)}, x.dtype());",
    )
    replace(entry, "DIMORPH_EXPORT", "  return y;\n}\nDIMORPH_EXPORT")
    replace(entry, "extra)));\n}", "extra)));")
    if temporary:
        new = "dimorph::NewTensor({x.size(0), x.size(1)}, x.dtype())"
        replace(
            entry,
            "DIMORPH_CALL(affine)(x, y, extra)",
            f"DIMORPH_CALL(affine)(x, {new}, extra); DIMORPH_CALL(affine)(x, y, extra)",
        )
    x = np.random.default_rng(0).standard_normal((3, 64))
    y = np.from_dlpack(mode.load(declared(root), dtype="float64", head_dim=64).affine(x, 2.0))
    np.testing.assert_allclose((y**2).mean(axis=1), 4, rtol=1e-4)


def test_a_size_is_passed_to_a_case_as_its_number(mode: Form, root: Path) -> None:
    replace(root / "affine.cc", "(x, y, extra)));", "(x, y, rows, head_dim, extra)));")
    replace(root / "affine_case.cc", "Tensor y, Extra", "Tensor y, int64_t rows, int64_t width, Extra")
    replace(
        root / "affine_case.cc", "  Params params{};", "  if (rows != 3 || width != 64) return;\n  Params params{};"
    )
    x = np.random.default_rng(0).standard_normal((3, 64))
    y = np.zeros_like(x)
    mode.load(declared(root), dtype="float64", head_dim=64).affine(x, y, 2.0)
    np.testing.assert_allclose((y**2).mean(axis=1), 4, rtol=1e-4)


def test_a_check_names_the_tensor_of_a_variant(mode: Form, root: Path) -> None:
    case = root / "affine_case.cc"
    check = "ConstTensor(dimorph::detail::tensor_of(extra.args[{}]), extra.call).expect({{2}});"
    tensors = 'dm.scalar("scale"), dm.tensor("maybe_one", "float32"), dm.tensor("maybe_two", "float32")'
    replace(root / "skeleton.py", 'params=[dm.scalar("scale")]', f"params=[{tensors}]")
    replace(
        root / "scale.h", "(params.scale)) {}", "(params.scale)) { (void)params.maybe_one, (void)params.maybe_two; }"
    )
    replace(case, "  Params params{};", f"  {check.format(1)}\n  {check.format(2)}\n  Params params{{}};")
    x, two, three = np.ones((3, 64), np.float32), np.ones(2, np.float32), np.ones(3, np.float32)
    call = mode.load(declared(root), dtype="float32", head_dim=64).affine
    call(x, x.copy(), 2.0, two, two)
    for arrays, name in (((three, two), "maybe_one"), ((two, three), "maybe_two")):
        with pytest.raises(
            ValueError, match=rf"^affine: argument '{name}': expected shape \[2\], here \(2\), got \(3\)"
        ):
            call(x, x.copy(), 2.0, *arrays)


@pytest.mark.parametrize(
    "raising", ['DIMORPH_CHECK(n < 0, "lost text %d", n)', 'DIMORPH_RAISE(type, "lost text %d", n)']
)
def test_an_error_that_leaves_a_noexcept_case_is_printed(raising: str, root: Path) -> None:
    """The text of the case does not show it: the check is in a header."""
    case = root / "affine_case.cc"
    (root / "helper.h").write_text(f"inline void helper(int n) {{\n  {raising};\n}}\n")
    replace(case, "namespace DIMORPH_CASE {", '#include "helper.h"\nnamespace DIMORPH_CASE {')
    replace(case, "  Params params{};", "  helper(7);\n  Params params{};")
    script = (
        "import numpy as np, skeleton\n"
        "x = np.ones((1, 64), np.float32)\n"
        "skeleton.affine.load(dtype='float32', head_dim=64).affine(x, x.copy(), 2.0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "dimorph: lost text 7\n  raised at helper.h:2, " in done.stderr and "remove noexcept" in done.stderr


# --- Warnings ---


def _warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and ": warning: " in r.getMessage()]


UNUSED = ("DType inverse_rms", "void never(int unused) {}\nDType inverse_rms")
COMPARED = (
    "  DType sum = 0;",
    "  const unsigned most = HEAD_DIM;\n  DType sum = 0;\n  for (int i = 0; i < most; ++i) sum += 0;",
)


@pytest.mark.parametrize(("old", "new", "at", "said"), [(*UNUSED, "never", "unused"), (*COMPARED, "i < most", "sign")])
def test_a_warning_is_shown_once_and_kept(
    old: str, new: str, at: str, said: str, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace(root / "affine_case.cc", old, new)
    place = f"{root / 'affine_case.cc'}:{line_of(root / 'affine_case.cc', at)}: warning: "
    module = declared(root).load(dtype="float32", head_dim=64)
    (line,) = _warned(caplog)
    assert place in line and said in line
    (case,) = (found.artifact for found in module.resolutions if found.artifact.meta.kind == "case")
    # Kept under a name that is the same wherever the sources lie.
    assert [f"dimorph: {text}" for text in case.meta.warnings] == [line.replace(str(root), "/dimorph/0")]
    caplog.clear()
    declared(root).load(dtype="float32", head_dim=64)  # from the store
    declared(root).load(dtype="float64", head_dim=64)  # another case of the same source
    assert not _warned(caplog)


def test_warnings_about_other_files_are_not_the_authors(root: Path) -> None:
    unit = entry_unit(declared(root).instantiations())
    theirs = ["/usr/include/stdio.h:3:1: warning: theirs [-Wx]", f"{INCLUDE}/dimorph/entry.h:9:9: warning: ours [-Wx]"]
    mine = [f"{root}/affine.cc:{n}:2: warning: mine [-Wx]" for n in range(1, 30)]
    output = "\n".join([*theirs, *mine, *mine, f"{root}/affine.cc:40:2: note: no warning"])
    assert warnings(output, unit) == tuple(f"/dimorph/0/affine.cc:{n}: warning: mine [-Wx]" for n in range(1, 21))


def test_warnings_are_errors_under_the_setting(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(root / "affine_case.cc", *UNUSED)
    monkeypatch.setenv("DIMORPH_CXXFLAGS", "-Werror")
    with pytest.raises(
        dm.BuildError, match=rf"affine_case\.cc:{line_of(root / 'affine_case.cc', 'never')}: error: .*unused"
    ):
        declared(root).load(dtype="float32", head_dim=64)


# --- Rules that stay silent where another mistake looks like theirs ---


def test_a_typo_beside_a_helper_that_includes_the_config_header_is_that_typo(root: Path) -> None:
    (root / "rows.h").write_text('#pragma once\n#include "affine_config.h"\nstruct Rows { int count; };\n')
    replace(root / "scale.h", "#pragma once", '#pragma once\n#include "rows.h"\nusing All = Rws;')
    with pytest.raises(dm.BuildError) as caught:
        declared(root).load(dtype="float32", head_dim=64)
    assert "Rws" in str(caught.value) and "stands before" not in str(caught.value)


@pytest.mark.parametrize(
    "planted",
    [
        "namespace mine {\nstruct View { int n; };\nstruct View { int m; };\n}",
        "namespace mine {\nstruct Rows { int n; dimorph::View<const float, 2> data; };\n"
        "struct Rows { int n; dimorph::View<const float, 2> data; };\n}",
    ],
)
def test_a_type_that_its_author_defines_twice_is_not_ours(planted: str, root: Path) -> None:
    replace(root / "affine.cc", "void affine(", f"{planted}\nvoid affine(")
    with pytest.raises(dm.BuildError, match="redefinition of") as caught:
        declared(root).load(dtype="float32", head_dim=64)
    assert "a name of Dimorph's" not in str(caught.value)
