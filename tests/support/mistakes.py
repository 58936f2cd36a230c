"""Mistakes of a kernel author, each an edit of the skeleton example, with what the message about it must say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from support.skeletons import replace

ENTRY, CASE, SCALE, PYTHON = "affine.cc", "affine_case.cc", "scale.h", "skeleton.py"
_CALL = "DIMORPH_CALL(affine)(x, y, extra)"
_DISPATCH = f"DISPATCH_head_dim(x.size(1), HEAD_DIM, {_CALL})"
_SIGNATURE = "void affine(ConstTensor x, Tensor y, Extra extra)"
_CASE_SIGNATURE = f"{_SIGNATURE} noexcept"
_EXPORT = "DIMORPH_EXPORT(affine)"
_PARAMS = "struct Params : AdditionalParams {"
_FILL = "  if (!extra.fill(params)) return;\n"
_CONSTRUCTOR = "explicit Scale(const Params& params) : scale(static_cast<Element>(params.scale)) {}"
_VARIANT = 'SCALE = dm.Variant("Scale", header="scale.h", params=[dm.scalar("scale")])'
_AXIS = 'dm.int_axis("head_dim", "HEAD_DIM", [64, 128, 256], accepts=lambda d: d % 8 == 0)'
_KERNEL = "affine = dm.Kernel("
_DTYPES = 'dm.dtype_axis("dtype", "DType", ["float32", "float64"])'


class Mistake(NamedTuple):
    """A mistake.

    Attributes:
        edits: (file, old, new), each a replacement of the only occurrence of `old`; of nothing, the text of a new file.
        place: (file, text): the message names the file and the number of the only line with the text.
        cause: pattern of the cause.
        cure: pattern of the cure.
        form: `specialized`, `dispatching` or `call` (the dispatching form, called once).
    """

    edits: tuple[tuple[str, str, str], ...]
    place: tuple[str, str]
    cause: str
    cure: str
    form: str = "specialized"

    def make(self, root: Path) -> str:
        """Make the mistake in a copy of the skeleton; return `path:line` of its place."""
        for file, old, new in self.edits:
            if old:
                replace(root / file, old, new)
            else:
                (root / file).write_text(new)
        name, text = self.place
        lines = (root / name).read_text().splitlines()
        found = [number for number, line in enumerate(lines, 1) if text in line]
        assert found, f"{name}: no line with {text!r}"
        return f"{root / name}:{found[0]}"


def _mistake(
    file: str, old: str, new: str, cause: str, cure: str, *, at: object = None, form: str = "specialized"
) -> Mistake:
    """Return a mistake of one edit, at the first line of its new text unless `at` is (file, text)."""
    place = at if isinstance(at, tuple) else (file, str(at or new.splitlines()[0]))
    return Mistake(((file, old, new),), place, cause, cure, form)


MISTAKES: dict[str, Mistake] = {
    # --- the entry ---
    "dispatch forgotten": _mistake(ENTRY, _DISPATCH, _CALL, "DISPATCH_head_dim", r"put .*DISPATCH_head_dim\(.*around"),
    "dispatch forgotten, dispatching": _mistake(
        ENTRY, _DISPATCH, _CALL, "HEAD_DIM", r"put .*DISPATCH_head_dim\(.*around", form="dispatching"
    ),
    "dispatch misspelt": _mistake(
        ENTRY, "DISPATCH_head_dim", "DISPATCH_headdim", "no axis 'headdim'", "DISPATCH_head_dim", at=_DISPATCH[17:]
    ),
    "value of a dispatch missing": _mistake(
        ENTRY,
        "DISPATCH_head_dim(x.size(1), HEAD_DIM, ",
        "DISPATCH_head_dim(HEAD_DIM, ",
        "expected HEAD_DIM, .*after the value, got DIMORPH_CALL",
        r"write DISPATCH_head_dim\(value of this call, HEAD_DIM, ",
    ),
    "other name than the bound one": _mistake(
        ENTRY, "x.dtype(), DType,", "x.dtype(), T,", "DISPATCH_dtype: .*DType.*got T", r"\(x\.dtype\(\), DType, "
    ),
    "other name than the bound one, dispatching": _mistake(
        ENTRY,
        "x.size(1), HEAD_DIM,",
        "x.size(1), DIM,",
        "DISPATCH_head_dim: .*HEAD_DIM.*got DIM",
        r"\(x\.size\(1\), HEAD_DIM, ",
        form="dispatching",
    ),
    "entry that calls itself": _mistake(
        ENTRY,
        "DIMORPH_CALL(affine)(",
        "affine(",
        "'affine' calls itself",
        r"DIMORPH_CALL\(affine\)",
        at="DISPATCH_dtype",
    ),
    "entry that calls itself, with a function of the case's arguments": _mistake(
        ENTRY, _CALL, "(void)affine (x, y, Extra{})", "'affine' calls itself", r"DIMORPH_CALL\(affine\)"
    ),
    "entry that calls itself and has no such case": Mistake(
        (
            (PYTHON, 'name="affine"', 'name="affine", functions=["scaled"]'),
            (ENTRY, "DIMORPH_CALL(affine)(", "affine("),
        ),
        (ENTRY, "DISPATCH_dtype"),
        "'affine' calls itself",
        r"DIMORPH_CALL\(affine\)",
    ),
    "export missing": _mistake(ENTRY, _EXPORT, "", "exports no function", r"DIMORPH_EXPORT\(affine\)", at=_SIGNATURE),
    "export in a header": Mistake(
        ((ENTRY, _EXPORT, '#include "loop.h"'), ("loop.h", "", f"{_EXPORT}\n")),
        ("loop.h", _EXPORT),
        "in a header",
        r"move it to affine\.cc",
    ),
    "export misspelt": _mistake(ENTRY, _EXPORT, "DIMORPH_EXPORT(afine)", "afine", "affine"),
    "export before the definition": Mistake(
        ((ENTRY, _EXPORT, ""), (ENTRY, "/// y[i, j]", "DIMORPH_EXPORT(affine)\n/// y[i, j]")),
        (ENTRY, "DIMORPH_EXPORT"),
        "affine",
        "after",
    ),
    "export of a qualified name": _mistake(
        ENTRY, _EXPORT, "DIMORPH_EXPORT(::affine)", "::affine", r"plain name|unqualified"
    ),
    "export in a namespace": Mistake(
        ((ENTRY, "/// y[i, j]", "namespace mine {\n/// y[i, j]"), (ENTRY, _EXPORT, f"}}\n{_EXPORT}")),
        (ENTRY, _EXPORT),
        "affine",
        "namespace",
    ),
    "config header not included by the entry": _mistake(
        ENTRY,
        '#include "affine_config.h"\n',
        "",
        "does not include",
        '#include "affine_config.h"',
        at="// The entry",
    ),
    "config header misspelt": _mistake(
        ENTRY, "affine_config.h", "afine_config.h", "afine_config.h", 'affine_config.h"'
    ),
    "case.h included by the entry": _mistake(
        ENTRY,
        '#include "affine_config.h"',
        '#include <dimorph/case.h>\n#include "affine_config.h"',
        "case.h",
        "#include <dimorph/entry.h>",
    ),
    "call of a function that no case defines": _mistake(
        ENTRY,
        "DIMORPH_CALL(affine)",
        "DIMORPH_CALL(afine)",
        "afine",
        r"functions=.*affine",
        at="DIMORPH_CALL(afine)",
    ),
    "call with other types than the case's": _mistake(
        ENTRY,
        _CALL,
        "DIMORPH_CALL(affine)(x, 2, extra)",
        "another signature",
        r"pass",
        form="call",
        at="DIMORPH_CALL(affine)",
    ),
    "call of a result without its type": Mistake(
        ((ENTRY, _DISPATCH, _DISPATCH.replace("DIMORPH", "int n = DIMORPH")),),
        (ENTRY, "int n = "),
        "void",
        r"DIMORPH_CALL\(affine, ",
    ),
    "std::string parameter": _mistake(
        ENTRY, _SIGNATURE, _SIGNATURE.replace("(", "(const std::string& mode, "), "string", "Str"
    ),
    "std::string parameter whose header is included": Mistake(
        (
            (ENTRY, '#include "affine_config.h"', '#include "affine_config.h"\n#include <string>'),
            (ENTRY, _SIGNATURE, _SIGNATURE.replace("(", "(std::string mode, ")),
        ),
        (ENTRY, "std::string mode"),
        "got std::string",
        "dimorph::Str",
    ),
    "std::vector parameter": _mistake(
        ENTRY, _SIGNATURE, _SIGNATURE.replace("(", "(std::vector<int> sizes, "), "vector", "Tensor|tensor"
    ),
    "pointer parameter": _mistake(
        ENTRY, _SIGNATURE, _SIGNATURE.replace("(", "(float* out, "), r"float ?\*", "Tensor|tensor"
    ),
    "result of a struct": _mistake(
        ENTRY,
        "/// y[i, j]",
        "struct Pair { int a, b; };\nPair pair() { return {1, 2}; }\nDIMORPH_EXPORT(pair)\n/// y",
        "Pair",
        "Results",
        at="Pair pair()",
    ),
    "exported function that is noexcept": _mistake(
        ENTRY, _SIGNATURE, f"{_SIGNATURE} noexcept", "affine|exported function", "remove noexcept"
    ),
    "optional parameter of no known type": _mistake(
        ENTRY,
        _SIGNATURE,
        f"struct Pair {{ int a, b; }};\n{_SIGNATURE.replace('Extra', 'Optional<Pair> pair, Extra')}",
        "got Pair",
        "Tensor",
        at="Optional<Pair>",
    ),
    "extra before another parameter": _mistake(
        ENTRY, _SIGNATURE, "void affine(ConstTensor x, Extra extra, Tensor y)", "Extra", "last parameter"
    ),
    "parameter that is written": _mistake(
        ENTRY, _SIGNATURE, "void affine(ConstTensor x, Tensor y, int& count, Extra extra)", "int", "by value"
    ),
    "missing return": _mistake(
        ENTRY,
        "/// y[i, j]",
        "int rows(int n) { if (n) return 1; }\n/// y[i, j]",
        "return",
        "return a value|every path",
    ),
    "size in a message": _mistake(
        ENTRY,
        "  DISPATCH_dtype",
        '  dimorph::Size n("n");\n  DIMORPH_CHECK(n > 1, "affine: expected 2 rows, got %ld", n);\n  DISPATCH_dtype',
        "'(%ld|long)'.*'dimorph::Size'",  # the words of GCC and of clang
        r"%lld, with static_cast<long long>",
        at="DIMORPH_CHECK(n > 1",
    ),
    "str in a message": _mistake(
        ENTRY,
        "  DISPATCH_dtype",
        '  if (x.ndim() > 2) DIMORPH_RAISE(value, "affine: %s", dimorph::Str("x"));\n  DISPATCH_dtype',
        "'%s'.*'dimorph::Str'",
        r"%\.\*s, with static_cast<int>\(text\.size\)",
        at="DIMORPH_RAISE",
    ),
    "message without its argument": _mistake(
        CASE,
        "  Params params{};",
        '  printf("%d of %d", HEAD_DIM);\n  Params params{};',
        "'%d'.*matching",
        "each % .* one argument",
        at="printf",
    ),
    "tensor in the place of its dtype": _mistake(
        ENTRY,
        "x.dtype(), DType,",
        "x, DType,",
        "DISPATCH_dtype: expected a dtype.*got x, which is of type ConstTensor",
        r"pass .*x\.dtype\(\)",
    ),
    "tensor in the place of its size, dispatching": _mistake(
        ENTRY,
        "x.size(1), HEAD_DIM",
        "y, HEAD_DIM",
        "DISPATCH_head_dim: expected an integer.*got y, which is of type Tensor",
        r"pass .*y\.size\(0\)",
        form="dispatching",
    ),
    "number in the place of a variant's name": Mistake(
        (
            (ENTRY, _SIGNATURE, _SIGNATURE.replace("Extra", "int which, Extra")),
            (ENTRY, _CALL, f"DISPATCH_variant(which, AFFINE_VARIANT, {_CALL})"),
        ),
        (ENTRY, "DISPATCH_variant"),
        "DISPATCH_variant: expected the name of a variant.*got which, which is of type int",
        "pass .*dimorph::Str",
    ),
    "call of the case without DIMORPH_CALL": Mistake(
        (
            (PYTHON, 'name="affine"', 'name="affine", functions=["scaled"]'),
            (ENTRY, "DIMORPH_CALL(affine)(", "scaled("),
        ),
        (ENTRY, "DISPATCH_dtype"),
        "'scaled' is a function of the case",
        r"DIMORPH_CALL\(scaled\)",
    ),
    "header of parallel_for forgotten": _mistake(
        CASE,
        "    const DType scale",
        "    dimorph::parallel_for(3, [](int64_t) {});\n    const DType scale",
        "parallel_for is not declared",
        "#include <dimorph/parallel.h>",
        at="parallel_for",
    ),
    "header of launches forgotten": _mistake(
        CASE,
        "    const DType scale",
        "    DIMORPH_LAUNCH(affine, 1, 1)(1);\n    const DType scale",
        "DIMORPH_LAUNCH is not declared",
        "#include <dimorph/cuda.h>",
        at="DIMORPH_LAUNCH",
    ),
    "brackets of a view": _mistake(
        CASE,
        "    const DType scale",
        "    const auto rows = x.view<DType, 2>();\n    (void)rows[row][0];\n    const DType scale",
        "a view are taken by parentheses",
        r"write rows\(row, 0\)",
        at="rows[row]",
    ),
    "brackets of a tensor": _mistake(
        ENTRY,
        "  DISPATCH_dtype",
        "  (void)x[0];\n  DISPATCH_dtype",
        "x is a ConstTensor",
        r"x\.view<DType, 1>\(\), and write rows\(0\)",
        at="x[0]",
    ),
    "element that is only read": _mistake(
        ENTRY,
        "  DISPATCH_dtype",
        "  const auto first = x.view<float, 1>();\n  first(0) = 1;\n  DISPATCH_dtype",
        "a ConstTensor, which is only read",
        "take it as a Tensor",
        at="first(0)",
    ),
    "too few indices of a view": _mistake(
        ENTRY,
        "  DISPATCH_dtype",
        "  const auto all = x.view<float, 2>();\n  (void)all(0);\n  DISPATCH_dtype",
        "as many indices as it has dimensions",
        r"give one for each, view\(i, j\)",
        at="all(0)",
    ),
    "plain mistake": _mistake(ENTRY, "x.expect({", "x.expects({", "expects", "expect", at="x.expects("),
    "circular includes": Mistake(
        (
            (ENTRY, '#include "affine_config.h"', '#include "affine_config.h"\n#include "loop.h"'),
            ("loop.h", "", '#include "loop.h"\n'),
        ),
        ("loop.h", "include"),
        "includes itself",
        "#pragma once",
    ),
    # --- the case ---
    "case outside DIMORPH_CASE": Mistake(
        ((CASE, "namespace DIMORPH_CASE {", "namespace {"),),
        (CASE, _CASE_SIGNATURE),
        "DIMORPH_CASE",
        "namespace DIMORPH_CASE",
    ),
    "case function misspelt": _mistake(CASE, "void affine(", "void afine(", "affine", r"functions=", at=None),
    "config header not included by the case": _mistake(
        CASE,
        '#include "affine_config.h"\n',
        "",
        "does not include",
        '#include "affine_config.h"',
        at="// The case",
    ),
    "entry.h included by a case": _mistake(
        CASE,
        '#include "affine_config.h"',
        '#include <dimorph/entry.h>\n#include "affine_config.h"',
        "entry.h",
        "#include <dimorph/case.h>",
    ),
    "check in a noexcept case": _mistake(
        CASE,
        "  Params params{};",
        '  DIMORPH_CHECK(x.ndim() == 2, "x");\n  Params params{};',
        "noexcept",
        "remove .?noexcept",
        at="DIMORPH_CHECK",
    ),
    "raise in a noexcept case": _mistake(
        CASE,
        "  Params params{};",
        '  if (x.ndim() > 2) DIMORPH_RAISE(value, "x");\n  Params params{};',
        "noexcept",
        "remove .?noexcept",
        at="DIMORPH_RAISE",
    ),
    "check in a function that a noexcept case calls": _mistake(
        CASE,
        "  DType sum = 0;",
        '  DIMORPH_CHECK(row, "no row");\n  DType sum = 0;',
        "DIMORPH_CHECK raises in 'inverse_rms', below 'affine', which is noexcept",
        "remove noexcept from 'affine'",
    ),
    "raise two calls below a noexcept case": Mistake(
        (
            (
                CASE,
                "DType inverse_rms(",
                'DType checked(DType sum) {\n  if (!(sum > 0)) DIMORPH_RAISE(value, "sum");\n'
                "  return sum;\n}\nDType inverse_rms(",
            ),
            (CASE, "__builtin_sqrt(sum ", "__builtin_sqrt(checked(sum) "),
        ),
        (CASE, "DIMORPH_RAISE"),
        "DIMORPH_RAISE raises in 'checked', below 'affine', which is noexcept",
        "remove noexcept from 'affine'",
    ),
    "case function with overloads": _mistake(
        CASE, "DType inverse_rms", "void affine(int) {}\nDType inverse_rms", "affine", "another name|rename"
    ),
    "case function as a template": _mistake(
        CASE,
        _CASE_SIGNATURE,
        f"template <typename T>\n{_CASE_SIGNATURE}",
        "template",
        "plain function",
        at=_CASE_SIGNATURE,
    ),
    "argument of a case that is no plain data": Mistake(
        (
            (CASE, "namespace DIMORPH_CASE {", "#include <string>\nnamespace DIMORPH_CASE {"),
            (CASE, _CASE_SIGNATURE, _CASE_SIGNATURE.replace("(", "(std::string mode, ")),
        ),
        (CASE, "std::string mode"),
        "string",
        "trivially copyable",
    ),
    "bound name misspelt": _mistake(CASE, "sum / HEAD_DIM", "sum / HEADDIM", "HEADDIM", "HEAD_DIM", at="HEADDIM"),
    "parameters of the variant never set": _mistake(
        CASE, _FILL, "", r"sets the variant's parameters \(scale\)", r"extra\.fill\(params\)", at=_CASE_SIGNATURE
    ),
    "parameters of the variant only set in a comment": _mistake(
        CASE,
        _FILL,
        "  // if (!extra.fill(params)) return;\n",
        r"sets the variant's parameters \(scale\)",
        r"extra\.fill\(params\)",
        at=_CASE_SIGNATURE,
    ),
    "handle made in a noexcept case": _mistake(
        CASE,
        "  Params params{};",
        "  (void)dimorph::make_handle<int>(1);\n  Params params{};",
        "noexcept",
        "remove .?noexcept",
        at="make_handle",
    ),
    "params without the variant's fields": _mistake(
        CASE, _PARAMS, "struct Params {", "none of the variant's", "struct Params : AdditionalParams", at=_FILL.strip()
    ),
    "narrowing in a struct": _mistake(
        CASE,
        "DType inverse_rms",
        "struct Sizes { int rows; };\nSizes sizes(double eps) { return Sizes{eps}; }\nDType inverse_rms",
        "narrowing",
        "static_cast|convert",
        at="return Sizes{eps}",
    ),
    # --- variants ---
    "struct of a variant missing": _mistake(
        PYTHON,
        'dm.Variant("Scale", header',
        'dm.Variant("Scales", header',
        "Scales",
        "Scale, ScaleBias",
        at=(SCALE, "struct Scale {"),
    ),
    "struct of a variant is no template": Mistake(
        (
            (
                SCALE,
                "template <typename Params>\nstruct Scale {\n  using Element = typename Params::Element;",
                "struct Scale {\n  using Element = float;",
            ),
            (SCALE, f"  {_CONSTRUCTOR}\n", ""),
        ),
        (SCALE, "struct Scale {"),
        "Scale",
        "template <typename",
    ),
    "variant with parameters and no constructor": _mistake(
        SCALE, f"  {_CONSTRUCTOR}\n", "", "constructor", r"Scale\(const Params", at="struct Scale {"
    ),
    "field with the name of a variant's parameter": _mistake(
        CASE,
        f"{_PARAMS}\n",
        f"{_PARAMS}\n  double scale;\n",
        "name of a parameter of the variant",
        "another name",
        at=_FILL.strip(),
    ),
    "field of a base with the name of a variant's parameter": Mistake(
        ((CASE, _PARAMS, "struct Own {\n  double scale;\n};\nstruct Params : Own, AdditionalParams {"),),
        (SCALE, "struct Scale {"),
        "parameter 'scale'",
        "another name",
    ),
    "header of a variant missing": _mistake(
        PYTHON,
        'SCALE = dm.Variant("Scale", header="scale.h"',
        'SCALE = dm.Variant("Scale", header="scales.h"',
        "scales.h",
        "scale.h|expected",
    ),
    "params without a list": _mistake(
        PYTHON, _VARIANT, _VARIANT.replace("[", "(").replace("]", ")"), "params", r"\(.*,\)"
    ),
    # --- the declaration ---
    "axis named by a keyword": _mistake(PYTHON, '"head_dim", "HEAD_DIM"', '"class", "HEAD_DIM"', "class", "keyword"),
    "bound name that is a keyword": _mistake(PYTHON, '"HEAD_DIM"', '"int"', "int", "keyword"),
    "bound name that is a macro's": _mistake(PYTHON, '"HEAD_DIM"', '"DIMORPH_CASE"', "DIMORPH_CASE", "reserved"),
    "kernel name that is no identifier": _mistake(
        PYTHON, 'name="affine"', 'name="my-affine"', "my-affine", "letters", at=_KERNEL
    ),
    "functions named by a keyword": _mistake(
        PYTHON, 'name="affine"', 'name="affine", functions=["delete"]', "delete", "another name", at=_KERNEL
    ),
    "functions as a str": _mistake(
        PYTHON, 'name="affine"', 'name="affine", functions="affine"', "functions", r"\['affine'\]", at=_KERNEL
    ),
    "parameter that is a keyword": _mistake(
        PYTHON,
        'dm.scalar("scale")])\n',
        'dm.scalar("register")])\n',
        "register",
        "keyword",
    ),
    "parameter that is a field of the kernel's": _mistake(
        PYTHON,
        _VARIANT,
        _VARIANT.replace('dm.scalar("scale")', 'dm.scalar("DType")'),
        "DType",
        "another name|rename",
    ),
    "entry as a Path": _mistake(
        PYTHON,
        'name="affine"',
        'name="affine", entry=__import__("pathlib").Path("affine.cc")',
        "entry",
        "str",
        at=_KERNEL,
    ),
    "case file as the entry": _mistake(
        PYTHON,
        'name="affine"',
        'name="affine", entry="affine_case.cc"',
        "case sources",
        "exports functions",
        at=_KERNEL,
    ),
    "entry that is not there": _mistake(
        PYTHON, 'name="affine"', 'name="affine", entry="afine.cc"', r"afine\.cc", r"there is affine\.cc", at=_KERNEL
    ),
    "case that is not there": _mistake(
        PYTHON,
        'name="affine"',
        'name="affine", case=["afine_case.cc"]',
        r"kernel affine: case .*afine_case\.cc: No such file",
        r"there is affine_case\.cc",
        at=_KERNEL,
    ),
    "device source that is not there": _mistake(
        PYTHON,
        'name="affine"',
        'name="affine", device=["affine.cu"], archs=["sm_80"]',
        r"kernel affine: device source .*affine\.cu: No such file",
        r"there is affine\.cc",
        at=_KERNEL,
    ),
    "values that are no list": _mistake(
        PYTHON, "[64, 128, 256]", "64", "values", r"\[64\]", at='"head_dim", "HEAD_DIM"'
    ),
    "dtype misspelt": _mistake(PYTHON, '["float32", "float64"]', '["float", "float64"]', "'float'", "float32"),
    "axes as a dict": _mistake(
        PYTHON,
        "axes=[",
        "axes={'head_dim': [64]} or [",
        "axes: expected a list, got {'head_dim'",
        r"write \[dm\.int_axis\('head_dim', 'HEAD_DIM', ",
        at=_KERNEL,
    ),
    "axis as a str": _mistake(
        PYTHON, _AXIS, '"head_dim"', "axes: expected axes, got 'head_dim'", r"dm\.int_axis\('head_dim', ", at=_KERNEL
    ),
    "where that asks for another axis": _mistake(
        PYTHON,
        'name="affine"',
        'name="affine", where=lambda values: values["heads"] == 64',
        "`where` asks for an axis 'heads'",
        "there are: dtype, head_dim, variant",
        at=_KERNEL,
    ),
    "choose that asks for another axis": _mistake(
        PYTHON,
        _DTYPES,
        f'{_DTYPES}, dm.int_axis("tile", "TILE", [1, 2], choose=lambda values: values["width"])',
        "`choose` of axis tile asks for an axis 'width'",
        "there are: dtype, head_dim, variant",
        at=_KERNEL,
    ),
    "size that no axis has": _mistake(
        PYTHON,
        _VARIANT,
        _VARIANT.replace(")])", '), dm.tensor("edges", "float32", shape="width")])'),
        "shape: expected numbers and names of sizes .*head_dim.*got 'width'",
        r"variant_axis\(.*sizes=\['width'\]",
        at=_KERNEL,
    ),
}
