"""Solve -div grad u = 1 on a bent cube, where u is zero on the boundary."""

import numpy as np

from matrix_free import DIFFUSION, MASS, Operator, conjugate_gradients, grid

mesh = grid((8, 8, 8), lambda points: points + 0.03 * np.sin(6 * points[:, ::-1]))
mass, diffusion = Operator(mesh, 4, MASS), Operator(mesh, 4, DIFFUSION)  # of degree 4
force = mass(np.ones(mass.unknowns))
u, iterations = conjugate_gradients(diffusion, force, 1e-10, boundary=False)
print(f"largest u: {u.max():.6f}, after {iterations} iterations")
