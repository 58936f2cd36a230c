"""Slopes of a sampled function: an axis that no shape shows, two functions, and variants that a call names."""

import numpy as np

import dimorph as dm

CLAMP = dm.Variant("Clamp", header="edges.h")
FIXED = dm.Variant("Fixed", header="edges.h", params=(dm.scalar("value"),))

stencil = dm.Kernel(
    name="stencil",
    functions=["slope", "smooth"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("order", "ORDER", [2, 4]),
        dm.variant_axis("edge", "EDGE", default=CLAMP, values=[CLAMP, FIXED]),
    ],
)


def main() -> None:
    step = 1 / 32
    u = np.sin(np.arange(33) * step)
    smoothed, out, same = np.empty_like(u), np.empty_like(u), np.empty_like(u)

    any_order = stencil.load(dtype="float64")  # order and edge are chosen by each call
    any_order.smooth(u, smoothed, 4, "Clamp")
    any_order.slope(u, out, step, 4, "Clamp")
    any_order.slope(u, out, step, 2, "Fixed", 0.0)  # the arguments of the variant come last

    one = stencil.load(dtype="float64", order=2, edge=FIXED)  # the arguments are the same; others are an error
    one.slope(u, same, step, 2, "Fixed", 0.0)
    print(any_order, one, sep="\n")
    print("slope of sin at 0.5:", out[16], "both forms give the same bits:", np.array_equal(out, same))


if __name__ == "__main__":
    main()
