"""A library for nearest neighbours over nanoflann: any dimension and dtype, metrics as variants, trees that stay."""

import numpy as np

import dimorph as dm

EUCLIDEAN = dm.Variant("Euclidean", header="metrics.h")
WEIGHTED = dm.Variant("Weighted", header="metrics.h", params=(dm.tensor("weights", "dtype", "dim"),))

nearest = dm.Kernel(
    name="nearest",
    functions=["build", "query"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("dim", "DIM", [2, 3], accepts=lambda dim: 0 < dim <= 64),
        dm.variant_axis("metric", "METRIC", default=EUCLIDEAN, values=[EUCLIDEAN, WEIGHTED]),
    ],
    dependencies=[dm.pkg_config("nanoflann", install="apt-get install libnanoflann-dev")],
)


class Index:
    """A tree of points, `[count, dim]`, which it keeps; the tree ends with the last reference to this object."""

    def __init__(self, points: np.ndarray, metric: dm.BoundVariant | None = None) -> None:
        metric = metric or EUCLIDEAN()
        self._module = nearest.load(dtype=points.dtype, dim=points.shape[1], metric=metric.variant)
        self.tree = self._module.build(points, metric.variant.name, *metric.args)

    def query(self, x: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and rows of the k points nearest to each of x: infinity and -1 where there are fewer."""
        rows, distances = np.empty((len(x), k), np.int64), np.empty((len(x), k), x.dtype)
        self._module.query(self.tree, x, rows, distances)
        return distances, rows


if __name__ == "__main__":
    points, x = np.random.default_rng(0).random((10_000, 3)), np.random.default_rng(1).random((4, 3))
    for metric in (EUCLIDEAN(), WEIGHTED(weights=np.array([1.0, 4.0, 0.25]))):
        index = Index(points, metric)
        print(index.tree, *index.query(x, k=2), sep="\n")
