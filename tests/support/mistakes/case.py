"""Mistakes in a case."""

from __future__ import annotations

from support.mistakes.mistake import CASE, CASE_SIGNATURE, FILL, PARAMS, SCALE, Mistake, mistake

CASES: dict[str, Mistake] = {
    "case outside DIMORPH_CASE": Mistake(
        ((CASE, "namespace DIMORPH_CASE {", "namespace {"),),
        (CASE, CASE_SIGNATURE),
        "DIMORPH_CASE",
        "namespace DIMORPH_CASE",
    ),
    "case function misspelt": mistake(CASE, "void affine(", "void afine(", "affine", r"functions=", at=None),
    "config header not included by the case": mistake(
        CASE,
        '#include "affine_config.h"\n',
        "",
        "does not include",
        '#include "affine_config.h"',
        at="// The case",
    ),
    "template with a name of Dimorph's": mistake(
        CASE,
        "namespace DIMORPH_CASE {",
        "struct View { int a; };\nnamespace DIMORPH_CASE {",
        "View is a name of Dimorph's",
        "choose another name, or put yours into a namespace",
    ),
    "entry.h included by a case": mistake(
        CASE,
        '#include "affine_config.h"',
        '#include <dimorph/entry.h>\n#include "affine_config.h"',
        "entry.h",
        "#include <dimorph/case.h>",
    ),
    "check in a noexcept case": mistake(
        CASE,
        "  Params params{};",
        '  DIMORPH_CHECK(x.ndim() == 2, "x");\n  Params params{};',
        "noexcept",
        "remove .?noexcept",
        at="DIMORPH_CHECK",
    ),
    "raise in a noexcept case": mistake(
        CASE,
        "  Params params{};",
        '  if (x.ndim() > 2) DIMORPH_RAISE(value, "x");\n  Params params{};',
        "noexcept",
        "remove .?noexcept",
        at="DIMORPH_RAISE",
    ),
    "check in a function that a noexcept case calls": mistake(
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
    "case function with overloads": mistake(
        CASE, "DType inverse_rms", "void affine(int) {}\nDType inverse_rms", "affine", "another name|rename"
    ),
    "case function as a template": mistake(
        CASE,
        CASE_SIGNATURE,
        f"template <typename T>\n{CASE_SIGNATURE}",
        "template",
        "plain function",
        at=CASE_SIGNATURE,
    ),
    "argument of a case that is no plain data": Mistake(
        (
            (CASE, "namespace DIMORPH_CASE {", "#include <string>\nnamespace DIMORPH_CASE {"),
            (CASE, CASE_SIGNATURE, CASE_SIGNATURE.replace("(", "(std::string mode, ")),
        ),
        (CASE, "std::string mode"),
        "string",
        "trivially copyable",
    ),
    "bound name misspelt": mistake(CASE, "sum / HEAD_DIM", "sum / HEADDIM", "HEADDIM", "HEAD_DIM", at="HEADDIM"),
    "circle of headers through the config header": Mistake(
        (
            (CASE, '#include "affine_config.h"', '#include "rows.h"'),
            ("rows.h", "", '#pragma once\n#include "affine_config.h"\nstruct Rows { DType first[HEAD_DIM]; };\n'),
            (SCALE, "#pragma once", '#pragma once\n#include "rows.h"\nusing All = Rows;'),
        ),
        (SCALE, "using All = Rows"),
        "scale.h, the header of variant Scale, stands before the rest of rows.h",
        "include affine_config.h first in each source",
    ),
    "parameters of the variant never set": mistake(
        CASE, FILL, "", r"sets the variant's parameters \(scale\)", r"extra\.fill\(params\)", at=CASE_SIGNATURE
    ),
    "parameters of the variant only set in a comment": mistake(
        CASE,
        FILL,
        "  // if (!extra.fill(params)) return;\n",
        r"sets the variant's parameters \(scale\)",
        r"extra\.fill\(params\)",
        at=CASE_SIGNATURE,
    ),
    "handle made in a noexcept case": mistake(
        CASE,
        "  Params params{};",
        "  (void)dimorph::make_handle<int>(1);\n  Params params{};",
        "noexcept",
        "remove .?noexcept",
        at="make_handle",
    ),
    "params without the variant's fields": mistake(
        CASE, PARAMS, "struct Params {", "none of the variant's", "struct Params : AdditionalParams", at=FILL.strip()
    ),
    "narrowing in a struct": mistake(
        CASE,
        "DType inverse_rms",
        "struct Sizes { int rows; };\nSizes sizes(double eps) { return Sizes{eps}; }\nDType inverse_rms",
        "narrowing",
        "static_cast|convert",
        at="return Sizes{eps}",
    ),
}
