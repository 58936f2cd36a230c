"""A step of bodies that attract each other, in both precisions: arrays that change in place, parallel work."""

import numpy as np

import dimorph as dm

nbody = dm.Kernel("nbody", axes=[dm.dtype_axis("dtype", "DType", ["float32", "float64"])])


def main() -> None:
    random = np.random.default_rng(0)
    start, masses = random.standard_normal((500, 3)), random.uniform(size=500)
    away = start[None] - start[:, None]
    pull = away / ((away**2).sum(2, keepdims=True) + 0.1**2) ** 1.5
    expected = 0.01 * (masses[:, None] * pull).sum(1)
    for module in (nbody.load(dtype="float64"), nbody.load()):
        positions, velocities = start.copy(), np.zeros_like(start)
        module.nbody(positions, velocities, masses, 0.01, 0.1)
        print(module, "velocities as NumPy's:", np.allclose(velocities, expected, rtol=1e-12, atol=1e-15))


if __name__ == "__main__":
    main()
