"""Mistakes in a variant, and in the declaration of a kernel."""

from __future__ import annotations

from support.mistakes.mistake import (
    AXIS,
    CASE,
    CONSTRUCTOR,
    DTYPES,
    FILL,
    KERNEL,
    PARAMS,
    PYTHON,
    SCALE,
    VARIANT,
    Mistake,
    mistake,
)

DECLARATIONS: dict[str, Mistake] = {
    "struct of a variant missing": mistake(
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
            (SCALE, f"  {CONSTRUCTOR}\n", ""),
        ),
        (SCALE, "struct Scale {"),
        "Scale",
        "template <typename",
    ),
    "variant with parameters and no constructor": mistake(
        SCALE, f"  {CONSTRUCTOR}\n", "", "constructor", r"Scale\(const Params", at="struct Scale {"
    ),
    "field with the name of a variant's parameter": mistake(
        CASE,
        f"{PARAMS}\n",
        f"{PARAMS}\n  double scale;\n",
        "name of a parameter of the variant",
        "another name",
        at=FILL.strip(),
    ),
    "field of a base with the name of a variant's parameter": Mistake(
        ((CASE, PARAMS, "struct Own {\n  double scale;\n};\nstruct Params : Own, AdditionalParams {"),),
        (SCALE, "struct Scale {"),
        "parameter 'scale'",
        "another name",
    ),
    "header of a variant missing": mistake(
        PYTHON,
        'SCALE = dm.Variant("Scale", header="scale.h"',
        'SCALE = dm.Variant("Scale", header="scales.h"',
        "scales.h",
        "scale.h|expected",
    ),
    "params without a list": mistake(
        PYTHON, VARIANT, VARIANT.replace("[", "(").replace("]", ")"), "params", r"\(.*,\)"
    ),
    "axis named by a keyword": mistake(PYTHON, '"head_dim", "HEAD_DIM"', '"class", "HEAD_DIM"', "class", "keyword"),
    "bound name that is a keyword": mistake(PYTHON, '"HEAD_DIM"', '"int"', "int", "keyword"),
    "bound name that is a macro's": mistake(PYTHON, '"HEAD_DIM"', '"DIMORPH_CASE"', "DIMORPH_CASE", "reserved"),
    "kernel name that is no identifier": mistake(
        PYTHON, 'name="affine"', 'name="my-affine"', "my-affine", "letters", at=KERNEL
    ),
    "functions named by a keyword": mistake(
        PYTHON, 'name="affine"', 'name="affine", functions=["delete"]', "delete", "another name", at=KERNEL
    ),
    "functions as a str": mistake(
        PYTHON, 'name="affine"', 'name="affine", functions="affine"', "functions", r"\['affine'\]", at=KERNEL
    ),
    "parameter that is a keyword": mistake(
        PYTHON,
        'dm.scalar("scale")])\n',
        'dm.scalar("register")])\n',
        "register",
        "keyword",
    ),
    "parameter that is a field of the kernel's": mistake(
        PYTHON,
        VARIANT,
        VARIANT.replace('dm.scalar("scale")', 'dm.scalar("DType")'),
        "DType",
        "another name|rename",
    ),
    "entry as a Path": mistake(
        PYTHON,
        'name="affine"',
        'name="affine", entry=__import__("pathlib").Path("affine.cc")',
        "entry",
        "str",
        at=KERNEL,
    ),
    "case file as the entry": mistake(
        PYTHON,
        'name="affine"',
        'name="affine", entry="affine_case.cc"',
        "case sources",
        "exports functions",
        at=KERNEL,
    ),
    "entry that is not there": mistake(
        PYTHON, 'name="affine"', 'name="affine", entry="afine.cc"', r"afine\.cc", r"there is affine\.cc", at=KERNEL
    ),
    "case that is not there": mistake(
        PYTHON,
        'name="affine"',
        'name="affine", case=["afine_case.cc"]',
        r"kernel affine: case .*afine_case\.cc: No such file",
        r"there is affine_case\.cc",
        at=KERNEL,
    ),
    "device source that is not there": mistake(
        PYTHON,
        'name="affine"',
        'name="affine", device=["affine.cu"], archs=["sm_80"]',
        r"kernel affine: device source .*affine\.cu: No such file",
        r"there is affine\.cc",
        at=KERNEL,
    ),
    "values that are no list": mistake(
        PYTHON, "[64, 128, 256]", "64", "values", r"\[64\]", at='"head_dim", "HEAD_DIM"'
    ),
    "dtype misspelt": mistake(PYTHON, '["float32", "float64"]', '["float", "float64"]', "'float'", "float32"),
    "axes as a dict": mistake(
        PYTHON,
        "axes=[",
        "axes={'head_dim': [64]} or [",
        "axes: expected a list, got {'head_dim'",
        r"write \[dm\.int_axis\('head_dim', 'HEAD_DIM', ",
        at=KERNEL,
    ),
    "axis as a str": mistake(
        PYTHON, AXIS, '"head_dim"', "axes: expected axes, got 'head_dim'", r"dm\.int_axis\('head_dim', ", at=KERNEL
    ),
    "where that asks for another axis": mistake(
        PYTHON,
        'name="affine"',
        'name="affine", where=lambda values: values["heads"] == 64',
        "`where` asks for an axis 'heads'",
        "there are: dtype, head_dim, variant",
        at=KERNEL,
    ),
    "choose that asks for another axis": mistake(
        PYTHON,
        DTYPES,
        f'{DTYPES}, dm.int_axis("tile", "TILE", [1, 2], choose=lambda values: values["width"])',
        "`choose` of axis tile asks for an axis 'width'",
        "there are: dtype, head_dim, variant",
        at=KERNEL,
    ),
    "size that no axis has": mistake(
        PYTHON,
        VARIANT,
        VARIANT.replace(")])", '), dm.tensor("edges", "float32", shape="width")])'),
        "shape: expected numbers and names of sizes .*head_dim.*got 'width'",
        r"variant_axis\(.*sizes=\['width'\]",
        at=KERNEL,
    ),
}
