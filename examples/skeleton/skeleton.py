"""The file to copy: one kernel, declared once, used in both forms."""

import numpy as np

import dimorph as dm

SCALE = dm.Variant("Scale", header="scale.h", params=[dm.scalar("scale")])
BIAS = dm.tensor("maybe_bias", "float32", shape="head_dim")  # may be None; an element for each column
SCALE_BIAS = dm.Variant("ScaleBias", header="scale.h", params=[dm.scalar("scale"), BIAS])

affine = dm.Kernel(
    name="affine",
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("head_dim", "HEAD_DIM", [64, 128, 256], accepts=lambda d: d % 8 == 0),
        dm.variant_axis("variant", "AFFINE_VARIANT", default=SCALE),
    ],
)


def main() -> None:
    x = np.random.default_rng(0).standard_normal((4, 80), dtype=np.float32)
    y, z = np.empty_like(x), np.empty_like(x)

    fast = affine.load(dtype="float32", head_dim=80)  # every axis at one value: specialized
    fast.affine(x, y, 2.0)

    anything = affine.load()  # dispatches at run time; a value nobody declared is built when it comes
    anything.affine(x, z, 2.0)

    print(fast)
    print(anything)
    print("root mean square of a row:", float(np.sqrt((y[0] ** 2).mean())))
    print("both forms give the same bits:", np.array_equal(y, z))


if __name__ == "__main__":
    main()
