"""Axes of every kind, declared; nothing is compiled."""

import dimorph as dm

axes = [
    dm.dtype_axis("dtype", "DType", ["float32", "bfloat16"]),
    dm.int_axis("head_dim", "HEAD_DIM", [64, 128], accepts=lambda d: d % 8 == 0),
    dm.flag_axis("causal", "CAUSAL"),
    dm.enum_axis("layout", "LAYOUT", ["NHD", "HND"], cpp_type="Layout", header="layout.h"),
    dm.tuple_axis("head_dims", ("QK", "VO"), [(64, 64), (192, 128)]),
    dm.int_axis("tile", "TILE", [], choose=lambda v: 64 if v["head_dim"] <= 128 else 32),
]

kernel = dm.Kernel(
    name="everything",
    axes=axes,
    where=lambda v: v["dtype"] == "float32" or not v["causal"],
)

if __name__ == "__main__":
    combinations = kernel.instantiations(layout="NHD", head_dims=(64, 64))
    print(sum(1 for _ in combinations), "of", combinations.slots, "combinations exist")
    print(next(iter(combinations)))
