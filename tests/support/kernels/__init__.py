"""Small kernels that several tests use."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm

ROOT = Path(__file__).parent

PLAIN = dm.Variant("Plain", header="variants.h")
SHIFT = dm.Variant(
    "Shift",
    header="variants.h",
    params=(
        dm.scalar("offset", "float64"),
        dm.scalar("times", "int32"),
        dm.scalar("negate", "bool"),
        dm.tensor("table", "float32"),
        dm.tensor("maybe_bias", "float64"),
    ),
)

# A kernel with every kind of axis. Its case reports the constants that it was compiled with.
KINDS = dm.Kernel(
    name="kinds",
    entry="kinds.cc",
    case=["kinds_case.cc"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64", "bfloat16"]),
        dm.int_axis("width", "WIDTH", [2, 3], accepts=lambda width: 0 < width <= 64),
        dm.flag_axis("causal", "CAUSAL"),
        dm.enum_axis("mode", "MODE", ["ADD", "MUL"], cpp_type="Mode", header="mode.h"),
        dm.tuple_axis("pair", ["PAIR_A", "PAIR_B"], [(16, 32), (32, 16)], accepts=lambda pair: pair[0] > 0),
        dm.tuple_axis("triple", ["T_1", "T_2", "T_3"], [(1, 2, 3), (3, 2, -1)]),
        dm.tuple_axis("quad", ["Q_1", "Q_2", "Q_3", "Q_4"], [(1, 2, 3, 4), (4, 3, 2, 1)]),
        dm.int_axis("unroll", "UNROLL", [1, 2, 4], choose=lambda v: 2 if v["width"] == 2 else 4),
        dm.variant_axis("variant", "KINDS_VARIANT", default=PLAIN, values=[PLAIN, SHIFT]),
    ],
    only=[
        {"dtype": dtype, "width": width, "causal": causal, "mode": mode, "pair": pair, "triple": triple}
        | {"quad": quad, "variant": variant}
        for dtype, width, causal, mode, pair, triple, quad, variant in [
            ("float32", 2, False, "ADD", (16, 32), (1, 2, 3), (1, 2, 3, 4), "Plain"),
            ("float64", 3, True, "MUL", (32, 16), (3, 2, -1), (4, 3, 2, 1), "Plain"),
            ("bfloat16", 2, True, "ADD", (32, 16), (1, 2, 3), (4, 3, 2, 1), "Shift"),
        ]
    ],
)

# y = x * factor, and the sum of y is returned: enough arithmetic to show it if the two forms gave different bits.
SCALE = dm.Kernel(
    name="scale",
    entry="scale.cc",
    case=["scale_case.cc"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64", "float16", "bfloat16"]),
        dm.int_axis("width", "WIDTH", [7, 64]),
    ],
)

# Returns WIDTH * 1000 + DEPTH; every int is accepted, so that tests can ask for specializations that are not built yet.
PICK = dm.Kernel(
    name="pick",
    entry="pick.cc",
    case=["pick_case.cc"],
    axes=[
        dm.int_axis("width", "WIDTH", [1, 2], accepts=lambda _: True),
        dm.int_axis("depth", "DEPTH", [1, 2], accepts=lambda _: True),
    ],
)

# Only dispatches, to measure the compile of entries of many combinations.
WIDE = dm.Kernel(name="wide", entry="wide.cc", case=["wide_case.cc"], axes=PICK.axes)

# A functor with every kind of additional parameter.
FUNCTOR = dm.Kernel(
    name="functor",
    entry="functor.cc",
    case=["functor_case.cc"],
    axes=[dm.variant_axis("variant", "FUNCTOR", default=PLAIN, values=[PLAIN, SHIFT])],
)

# A variant whose tensors have the dtype and the sizes of axes.
WEIGHTS = dm.Variant(
    "Weights",
    header="weights.h",
    params=(
        dm.tensor("weights", "dtype", "width"),
        dm.tensor("maybe_pairs", "int32", ("ROWS", 2)),
        dm.tensor("maybe_free", "dtype"),
    ),
)
WEIGHTED = dm.Kernel(
    name="weighted",
    entry="weighted.cc",
    case=["weighted_case.cc"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [4, 8]),
        dm.tuple_axis("shape", ["ROWS", "COLUMNS"], [(3, 2), (5, 1)]),
        dm.variant_axis("variant", "WEIGHTED_VARIANT", default=WEIGHTS),
    ],
)

# Exports one function for each kind of argument and result.
ARGUMENTS = dm.Kernel(name="arguments", entry="arguments.cc", case=[])

# Two functions, of which one depends on fewer axes.
OWN_AXES = dm.Kernel(
    name="own_axes",
    entry="own_axes.cc",
    case=["own_axes_case.cc"],
    functions=["scaled", "total"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [2, 4], accepts=lambda width: width > 0),
        dm.tuple_axis("pair", ["PAIR_A", "PAIR_B"], [(1, 2), (2, 1)]),
        dm.flag_axis("twice", "TWICE"),
        dm.variant_axis("variant", "OWN_VARIANT", default=PLAIN, values=[PLAIN, SHIFT]),
    ],
)

# Functions with defaults and comments, which Python takes over.
SIGNED = dm.Kernel(name="signed", entry="signed.cc", case=[])

# Checks its arrays in its entry, and in its case on every thread.
ARRAYS = dm.Kernel(
    name="arrays",
    entry="arrays.cc",
    case=["arrays_case.cc"],
    functions=["quiet", "throwing", "viewed"],
    axes=[dm.int_axis("width", "WIDTH", [1, 2])],
)

# Fails in every possible way in its entry or its case.
FAILURES = dm.Kernel(
    name="failures",
    entry="failures.cc",
    case=["failures_case.cc"],
    functions=["raise_in_case", "wait_in_case", "quiet"],
    axes=[dm.int_axis("width", "WIDTH", [1, 2])],
)

# The entry and the case disagree about a signature.
TAGS = dm.Kernel(
    name="tags",
    entry="tags.cc",
    case=["tags_case.cc"],
    functions=["by_width", "by_pointer", "by_struct", "by_result", "by_count", "by_enum", "agreed"],
    axes=[dm.int_axis("width", "WIDTH", [1, 2])],
)

# Every case has the same inline functions with other constants.
TWINS = dm.Kernel(
    name="twins", entry="twins.cc", case=["twins_case.cc"], axes=[dm.int_axis("width", "WIDTH", [3, 5, 7])]
)

# Entry code that macros make hard: if/else, commas, results, unused names.
SYNTAX = dm.Kernel(
    name="syntax",
    entry="syntax.cc",
    case=["syntax_case.cc"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [1, 2]),
        dm.tuple_axis("pair", ["PAIR_A", "PAIR_B"], [(1, 2), (2, 1)]),
        dm.flag_axis("causal", "CAUSAL"),
        dm.variant_axis("variant", "SYNTAX_VARIANT", default=PLAIN, values=[PLAIN, SHIFT]),
    ],
)

# Works in parallel, in tasks that take long or need scratch space.
TASKS = dm.Kernel(
    name="tasks",
    entry="tasks.cc",
    case=["tasks_case.cc"],
    functions=["busy", "needy", "needy_alone", "failing", "failing_twice", "runs"],
    axes=[dm.int_axis("width", "WIDTH", [1, 2])],
)

# Keeps arrays in C++ objects between calls, and counts in an array of the caller's how many there are.
BAG = dm.Kernel(
    name="bag",
    entry="bag.cc",
    case=["bag_case.cc"],
    functions=["make", "sum", "sum_or_zero", "keep", "first", "other", "make_other", "wait"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("width", "WIDTH", [2, 3], accepts=lambda width: 0 < width <= 64),
    ],
)

ALL = (KINDS, SCALE, PICK, WIDE, FUNCTOR, ARGUMENTS, FAILURES, TAGS, TWINS, SYNTAX)
