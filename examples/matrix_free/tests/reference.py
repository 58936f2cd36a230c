"""The operators as matrices, assembled with NumPy from their definition: slow, and nothing shared with the kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import Polynomial, legendre

from matrix_free import Operator
from matrix_free.mesh import Floats, lobatto

CORNERS = np.array([(m & 1, m >> 1 & 1, m >> 2) for m in range(8)]) * 2.0 - 1


class Reference:
    """An element's basis at Gauss points, as many as asked for in each direction."""

    def __init__(self, degree: int, points: int) -> None:
        at, weights = legendre.leggauss(points)
        nodes = lobatto(degree)
        lagrange = []
        for i, node in enumerate(nodes):
            others = np.delete(nodes, i)
            lagrange.append(Polynomial.fromroots(others) / np.prod(node - others))
        values = np.array([one(at) for one in lagrange])
        slopes = np.array([one.deriv()(at) for one in lagrange])
        self.weights = _tensor(*[weights[None]] * 3)[0]
        self.values = _tensor(values, values, values)
        self.slopes = [
            _tensor(values, values, slopes),
            _tensor(values, slopes, values),
            _tensor(slopes, values, values),
        ]
        grid = np.stack(np.meshgrid(at, at, at, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
        self._factors = (1 + CORNERS[:, None, :] * grid) / 2  # [corner, point, direction]

    def positions(self, corners: Floats) -> Floats:
        return np.asarray(self._factors.prod(axis=2).T @ corners)

    def jacobians(self, corners: Floats) -> Floats:
        """Return dx/dr at each point, [point, x, r]."""
        slopes = [CORNERS[:, None, d] / 2 * np.delete(self._factors, d, axis=2).prod(axis=2) for d in range(3)]
        return np.asarray(np.einsum("mx,rmp->pxr", corners, np.array(slopes)))


def _tensor(z: Floats, y: Floats, x: Floats) -> Floats:
    return np.asarray(np.einsum("ck,bj,ai->cbakji", z, y, x).reshape(len(x) ** 3, -1))


def matrix(operator: Operator, physics: str, shift: float = 0, contrast: float = 0) -> Floats:
    """Return the matrix of the integral of v u, of grad v . grad u, or of shift v u + (1 + contrast |x|^2) the latter."""
    reference = Reference(operator.degree, operator.degree + 2)
    result = np.zeros((operator.unknowns, operator.unknowns))
    for corners, numbers in zip(operator.mesh.corners, operator.numbers(), strict=True):
        x, jacobian = reference.positions(corners), reference.jacobians(corners)
        measure = np.linalg.det(jacobian) * reference.weights
        gradient = np.einsum("rnp,prx->npx", np.array(reference.slopes), np.linalg.inv(jacobian))
        mass = np.einsum("np,mp,p->nm", reference.values, reference.values, measure)
        coefficient = 1 + contrast * (x * x).sum(axis=1)
        stiffness = np.einsum("npx,mpx,p->nm", gradient, gradient, measure * coefficient)
        local = {"mass": mass, "diffusion": stiffness, "helmholtz": shift * mass + stiffness}[physics]
        result[np.ix_(numbers, numbers)] += local
    return result


def error(operator: Operator, found: Floats, exact: Callable[[Floats], Floats]) -> float:
    """Return the norm in L2 of the difference between a finite element function and an exact one."""
    reference = Reference(operator.degree, operator.degree + 4)
    square = 0.0
    for corners, numbers in zip(operator.mesh.corners, operator.numbers(), strict=True):
        difference = found[numbers] @ reference.values - exact(reference.positions(corners))
        square += float(np.linalg.det(reference.jacobians(corners)) * reference.weights @ difference**2)
    return float(np.sqrt(square))
