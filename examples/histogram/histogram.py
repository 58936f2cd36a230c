"""A histogram whose binning is a variant: bins of one width, or a table of edges, whose length the case checks."""

import numpy as np

import dimorph as dm

UNIFORM = dm.Variant("Uniform", header="binning.h", params=[dm.scalar("low", "float64"), dm.scalar("high", "float64")])
EDGES = dm.Variant("Edges", header="binning.h", params=[dm.tensor("edges", "dtype", shape="edges")])

histogram = dm.Kernel(
    "histogram",
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.variant_axis("binning", "BINNING", default=UNIFORM, values=[UNIFORM, EDGES], sizes=["edges"]),
    ],
)


def main() -> None:
    x = np.random.default_rng(0).lognormal(size=10_000)
    counts, same = np.empty(20, np.int64), np.empty(20, np.int64)
    edges = np.geomspace(0.1, 10, 21)
    for binning, expected in (
        (UNIFORM(low=0.5, high=8.0), np.histogram(x, 20, (0.5, 8.0))[0]),
        (EDGES(edges=edges), np.histogram(x, edges)[0]),
    ):
        name = binning.variant.name
        histogram.load().histogram(x, counts, name, *binning.args)
        histogram.load(dtype="float64", binning=binning.variant).histogram(x, same, name, *binning.args)
        print(f"{name}: as NumPy's: {np.array_equal(counts, expected)}, both forms: {np.array_equal(counts, same)}")


if __name__ == "__main__":
    main()
