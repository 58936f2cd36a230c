"""Mistakes in an entry."""

from __future__ import annotations

from support.mistakes.mistake import CALL, CASE, DISPATCH, ENTRY, EXPORT, PYTHON, SIGNATURE, Mistake, mistake

ENTRIES: dict[str, Mistake] = {
    "dispatch forgotten": mistake(ENTRY, DISPATCH, CALL, "DISPATCH_head_dim", r"put .*DISPATCH_head_dim\(.*around"),
    "dispatch forgotten, dispatching": mistake(
        ENTRY, DISPATCH, CALL, "HEAD_DIM", r"put .*DISPATCH_head_dim\(.*around", form="dispatching"
    ),
    "dispatch misspelt": mistake(
        ENTRY, "DISPATCH_head_dim", "DISPATCH_headdim", "no axis 'headdim'", "DISPATCH_head_dim", at=DISPATCH[17:]
    ),
    "value of a dispatch missing": mistake(
        ENTRY,
        "DISPATCH_head_dim(x.size(1), HEAD_DIM, ",
        "DISPATCH_head_dim(HEAD_DIM, ",
        "expected HEAD_DIM, .*after the value, got DIMORPH_CALL",
        r"write DISPATCH_head_dim\(value of this call, HEAD_DIM, ",
    ),
    "other name than the bound one": mistake(
        ENTRY, "x.dtype(), DType,", "x.dtype(), T,", "DISPATCH_dtype: .*DType.*got T", r"\(x\.dtype\(\), DType, "
    ),
    "other name than the bound one, dispatching": mistake(
        ENTRY,
        "x.size(1), HEAD_DIM,",
        "x.size(1), DIM,",
        "DISPATCH_head_dim: .*HEAD_DIM.*got DIM",
        r"\(x\.size\(1\), HEAD_DIM, ",
        form="dispatching",
    ),
    "entry that calls itself": mistake(
        ENTRY,
        "DIMORPH_CALL(affine)(",
        "affine(",
        "'affine' calls itself",
        r"DIMORPH_CALL\(affine\)",
        at="DISPATCH_dtype",
    ),
    "entry that calls itself, with a function of the case's arguments": mistake(
        ENTRY, CALL, "(void)affine (x, y, Extra{})", "'affine' calls itself", r"DIMORPH_CALL\(affine\)"
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
    "export missing": mistake(ENTRY, EXPORT, "", "exports no function", r"DIMORPH_EXPORT\(affine\)", at=SIGNATURE),
    "export in a header": Mistake(
        ((ENTRY, EXPORT, '#include "loop.h"'), ("loop.h", "", f"{EXPORT}\n")),
        ("loop.h", EXPORT),
        "in a header",
        r"move it to affine\.cc",
    ),
    "export misspelt": mistake(ENTRY, EXPORT, "DIMORPH_EXPORT(afine)", "afine", "affine"),
    "export before the definition": Mistake(
        ((ENTRY, EXPORT, ""), (ENTRY, "/// y[i, j]", "DIMORPH_EXPORT(affine)\n/// y[i, j]")),
        (ENTRY, "DIMORPH_EXPORT"),
        "affine",
        "after",
    ),
    "export of a qualified name": mistake(
        ENTRY, EXPORT, "DIMORPH_EXPORT(::affine)", "::affine", r"plain name|unqualified"
    ),
    "export in a namespace": Mistake(
        ((ENTRY, "/// y[i, j]", "namespace mine {\n/// y[i, j]"), (ENTRY, EXPORT, f"}}\n{EXPORT}")),
        (ENTRY, EXPORT),
        "affine",
        "namespace",
    ),
    "config header not included by the entry": mistake(
        ENTRY,
        '#include "affine_config.h"\n',
        "",
        "does not include",
        '#include "affine_config.h"',
        at="// The entry",
    ),
    "config header misspelt": mistake(ENTRY, "affine_config.h", "afine_config.h", "afine_config.h", 'affine_config.h"'),
    "export of a function of the C library": mistake(
        ENTRY,
        EXPORT,
        f"void read(ConstTensor) {{}}\n{EXPORT}\nDIMORPH_EXPORT(read)",
        r"DIMORPH_EXPORT\(read\): 'read' is the name of a function of a library",
        "give this one another name",
        at="DIMORPH_EXPORT(read)",
    ),
    "export of a function with overloads": mistake(
        ENTRY,
        SIGNATURE,
        f"void affine(ConstTensor) {{}}\n{SIGNATURE}",
        r"DIMORPH_EXPORT\(affine\): 'affine' is the name of several functions",
        "give this one another name",
        at=EXPORT,
    ),
    "type with a name of Dimorph's": mistake(
        ENTRY,
        SIGNATURE,
        f"struct Extra {{ int a; }};\n{SIGNATURE}",
        "Extra is a name of Dimorph's",
        "choose another name, or put yours into a namespace",
    ),
    "case.h included by the entry": mistake(
        ENTRY,
        '#include "affine_config.h"',
        '#include <dimorph/case.h>\n#include "affine_config.h"',
        "case.h",
        "#include <dimorph/entry.h>",
    ),
    "call of a function that no case defines": mistake(
        ENTRY,
        "DIMORPH_CALL(affine)",
        "DIMORPH_CALL(afine)",
        "afine",
        r"functions=.*affine",
        at="DIMORPH_CALL(afine)",
    ),
    "call with other types than the case's": mistake(
        ENTRY,
        CALL,
        "DIMORPH_CALL(affine)(x, 2, extra)",
        "another signature",
        r"pass",
        form="call",
        at="DIMORPH_CALL(affine)",
    ),
    "call of a result without its type": Mistake(
        ((ENTRY, DISPATCH, DISPATCH.replace("DIMORPH", "int n = DIMORPH")),),
        (ENTRY, "int n = "),
        "void",
        r"DIMORPH_CALL\(affine, ",
    ),
    "std::string parameter": mistake(
        ENTRY, SIGNATURE, SIGNATURE.replace("(", "(const std::string& mode, "), "string", "Str"
    ),
    "std::string parameter whose header is included": Mistake(
        (
            (ENTRY, '#include "affine_config.h"', '#include "affine_config.h"\n#include <string>'),
            (ENTRY, SIGNATURE, SIGNATURE.replace("(", "(std::string mode, ")),
        ),
        (ENTRY, "std::string mode"),
        "got std::string",
        "dimorph::Str",
    ),
    "std::vector parameter": mistake(
        ENTRY, SIGNATURE, SIGNATURE.replace("(", "(std::vector<int> sizes, "), "vector", "Tensor|tensor"
    ),
    "pointer parameter": mistake(
        ENTRY, SIGNATURE, SIGNATURE.replace("(", "(float* out, "), r"float ?\*", "Tensor|tensor"
    ),
    "result of a struct": mistake(
        ENTRY,
        "/// y[i, j]",
        "struct Pair { int a, b; };\nPair pair() { return {1, 2}; }\nDIMORPH_EXPORT(pair)\n/// y",
        "Pair",
        "Results",
        at="Pair pair()",
    ),
    "exported function that is noexcept": mistake(
        ENTRY, SIGNATURE, f"{SIGNATURE} noexcept", "affine|exported function", "remove noexcept"
    ),
    "optional parameter of no known type": mistake(
        ENTRY,
        SIGNATURE,
        f"struct Pair {{ int a, b; }};\n{SIGNATURE.replace('Extra', 'Optional<Pair> pair, Extra')}",
        "got Pair",
        "Tensor",
        at="Optional<Pair>",
    ),
    "extra before another parameter": mistake(
        ENTRY, SIGNATURE, "void affine(ConstTensor x, Extra extra, Tensor y)", "Extra", "last parameter"
    ),
    "parameter that is written": mistake(
        ENTRY, SIGNATURE, "void affine(ConstTensor x, Tensor y, int& count, Extra extra)", "int", "by value"
    ),
    "missing return": mistake(
        ENTRY,
        "/// y[i, j]",
        "int rows(int n) { if (n) return 1; }\n/// y[i, j]",
        "return",
        "return a value|every path",
    ),
    "size in a message": mistake(
        ENTRY,
        "  DISPATCH_dtype",
        '  dimorph::Size n("n");\n  DIMORPH_CHECK(n > 1, "affine: expected 2 rows, got %ld", n);\n  DISPATCH_dtype',
        "'(%ld|long)'.*'dimorph::Size'",  # the words of GCC and of clang
        r"%lld, with static_cast<long long>",
        at="DIMORPH_CHECK(n > 1",
    ),
    "str in a message": mistake(
        ENTRY,
        "  DISPATCH_dtype",
        '  if (x.ndim() > 2) DIMORPH_RAISE(value, "affine: %s", dimorph::Str("x"));\n  DISPATCH_dtype',
        "'%s'.*'dimorph::Str'",
        r"%\.\*s, with static_cast<int>\(text\.size\)",
        at="DIMORPH_RAISE",
    ),
    "message without its argument": mistake(
        CASE,
        "  Params params{};",
        '  printf("%d of %d", HEAD_DIM);\n  Params params{};',
        "'%d'.*matching",
        "each % .* one argument",
        at="printf",
    ),
    "tensor in the place of its dtype": mistake(
        ENTRY,
        "x.dtype(), DType,",
        "x, DType,",
        "DISPATCH_dtype: expected a dtype.*got x, which is of type ConstTensor",
        r"pass .*x\.dtype\(\)",
    ),
    "tensor in the place of its size, dispatching": mistake(
        ENTRY,
        "x.size(1), HEAD_DIM",
        "y, HEAD_DIM",
        "DISPATCH_head_dim: expected an integer.*got y, which is of type Tensor",
        r"pass .*y\.size\(0\)",
        form="dispatching",
    ),
    "number in the place of a variant's name": Mistake(
        (
            (ENTRY, SIGNATURE, SIGNATURE.replace("Extra", "int which, Extra")),
            (ENTRY, CALL, f"DISPATCH_variant(which, AFFINE_VARIANT, {CALL})"),
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
    "header of parallel_for forgotten": mistake(
        CASE,
        "    const DType scale",
        "    dimorph::parallel_for(3, [](int64_t) {});\n    const DType scale",
        "parallel_for is not declared",
        "#include <dimorph/parallel.h>",
        at="parallel_for",
    ),
    "header of launches forgotten": mistake(
        CASE,
        "    const DType scale",
        "    DIMORPH_LAUNCH(affine, 1, 1)(1);\n    const DType scale",
        "DIMORPH_LAUNCH is not declared",
        "#include <dimorph/cuda.h>",
        at="DIMORPH_LAUNCH",
    ),
    "brackets of a view": mistake(
        CASE,
        "    const DType scale",
        "    const auto rows = x.view<DType, 2>();\n    (void)rows[row][0];\n    const DType scale",
        "a view are taken by parentheses",
        r"write rows\(row, 0\)",
        at="rows[row]",
    ),
    "brackets of a tensor": mistake(
        ENTRY,
        "  DISPATCH_dtype",
        "  (void)x[0];\n  DISPATCH_dtype",
        "x is a ConstTensor",
        r"x\.view<DType, 1>\(\), and write rows\(0\)",
        at="x[0]",
    ),
    "element that is only read": mistake(
        ENTRY,
        "  DISPATCH_dtype",
        "  const auto first = x.view<float, 1>();\n  first(0) = 1;\n  DISPATCH_dtype",
        "a ConstTensor, which is only read",
        "take it as a Tensor",
        at="first(0)",
    ),
    "too few indices of a view": mistake(
        ENTRY,
        "  DISPATCH_dtype",
        "  const auto all = x.view<float, 2>();\n  (void)all(0);\n  DISPATCH_dtype",
        "as many indices as it has dimensions",
        r"give one for each, view\(i, j\)",
        at="all(0)",
    ),
    "plain mistake": mistake(ENTRY, "x.expect({", "x.expects({", "expects", "expect", at="x.expects("),
    "circular includes": Mistake(
        (
            (ENTRY, '#include "affine_config.h"', '#include "affine_config.h"\n#include "loop.h"'),
            ("loop.h", "", '#include "loop.h"\n'),
        ),
        ("loop.h", "include"),
        "includes itself",
        "#pragma once",
    ),
}
