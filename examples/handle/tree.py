"""State between calls: a tree that one call makes, others ask, and Python owns."""

import numpy as np

import dimorph as dm

tree = dm.Kernel(
    name="tree",
    functions=["build", "query"],
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("dim", "DIM", [2, 3], accepts=lambda dim: 0 < dim <= 64),
    ],
)
points, x = np.random.default_rng(0).random((1000, 3)), np.random.default_rng(1).random((5, 3))
nearest = np.empty(5, np.int64)
expected = ((x[:, None] - points) ** 2).sum(-1).argmin(1)

for module in (tree.load(dtype="float64", dim=3), tree.load()):
    index = module.build(points)  # keeps the points
    module.query(index, x, nearest)
    print(index, nearest)
    assert (nearest == expected).all()

index.close()  # destroys the tree now; without it, the last reference does
try:
    module.query(index, x, nearest)
except ValueError as error:
    print(error)
