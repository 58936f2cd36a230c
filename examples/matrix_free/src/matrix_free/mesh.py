"""Meshes of hexahedra, and the numbers of their unknowns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def lobatto(degree: int) -> Floats:
    """Return the degree + 1 Gauss-Lobatto nodes on [-1, 1]."""
    slope = legendre.Legendre.basis(degree).deriv()
    return np.concatenate([[-1.0], np.sort(slope.roots().real) if degree > 1 else [], [1.0]])


@dataclass(frozen=True, eq=False)
class Mesh:
    """Hexahedra in a grid that is bent by a map, each the trilinear image of a cube.

    Attributes:
        corners: [elements, 8, 3], the vertices of each element; bit 0 of the second index stands for the first
            direction.
        entities: [elements, 27], a number for each vertex, edge, face and interior, in the order of their position
            3 * (3 * c + b) + a, where a, b, c are 0 at the first end of a direction, 2 at the last, 1 between.
        on_boundary: [entities], whether the entity lies on the boundary.
    """

    corners: Floats
    entities: Ints
    on_boundary: NDArray[np.bool_]

    @property
    def elements(self) -> int:
        return len(self.corners)


def grid(
    shape: tuple[int, int, int],
    bend: Callable[[Floats], Floats] | None = None,
    periodic: tuple[bool, bool, bool] = (False, False, False),
) -> Mesh:
    """Return a mesh of `shape` elements of the unit cube.

    Args:
        shape: elements in each direction, all positive.
        bend: a map of points of the unit cube, [points, 3], to points in space; it is applied to the vertices. With
            positive determinant.
        periodic: the directions whose ends are the same; `bend` maps them to the same points. At least 3 elements.

    Raises:
        ValueError: a size is not positive, or `bend` turns an element inside out or is not finite.
    """
    if min(shape) < 1:
        raise ValueError(f"grid: argument shape: expected positive numbers of elements, got {shape}")
    if any(p and n < 3 for p, n in zip(periodic, shape, strict=True)):
        raise ValueError(f"grid: argument shape: expected 3 elements or more where it is periodic, got {shape}")
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape[::-1]), indexing="ij")
    cells = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1)
    ends = np.array([(m & 1, m >> 1 & 1, m >> 2) for m in range(8)])
    points = (cells[:, None, :] + ends) / np.array(shape)
    corners = bend(points.reshape(-1, 3)).reshape(points.shape) if bend else points
    if not (np.isfinite(corners).all() and (volumes(corners) > 0).all()):
        found = "an inverted element" if np.isfinite(corners).all() else "points that are not finite"
        raise ValueError(f"grid: argument bend: expected a map with positive determinant, got {found}")

    # Entities have places in a grid twice as fine; those with even coordinates are vertices.
    fine = [2 * n + (not p) for n, p in zip(shape, periodic, strict=True)]
    thirds = np.array([(m % 3, m // 3 % 3, m // 9) for m in range(27)])
    place = 2 * cells[:, None, :] + thirds
    outside = np.zeros(place.shape[:2], bool)
    for axis in range(3):
        if periodic[axis]:
            place[..., axis] %= fine[axis]
        else:
            outside |= (place[..., axis] == 0) | (place[..., axis] == fine[axis] - 1)
    entities = (place[..., 2] * fine[1] + place[..., 1]) * fine[0] + place[..., 0]
    on_boundary = np.zeros(int(np.prod(fine)), bool)
    on_boundary[entities[outside]] = True
    return Mesh(corners, entities, on_boundary)


def volumes(corners: Floats) -> Floats:
    """Return the smallest determinant of the map at the vertices of each element, [elements]."""
    smallest = np.full(len(corners), np.inf)
    for vertex in range(8):
        edges = [(corners[:, vertex | bit] - corners[:, vertex & ~bit]) for bit in (1, 2, 4)]
        smallest = np.minimum(smallest, np.linalg.det(np.stack(edges, axis=1)))
    return smallest


def trilinear(corners: Floats) -> Floats:
    """Return the coefficients [elements, 8, 3] of the maps: x(r) = sum over m of coefficient m times r^m."""
    maps = corners / 8
    for bit in (1, 2, 4):
        low = [m for m in range(8) if not m & bit]
        a, b = maps[:, low], maps[:, [m | bit for m in low]]
        maps[:, low], maps[:, [m | bit for m in low]] = a + b, b - a
    return maps


def positions(corners: Floats, nodes: Floats) -> Floats:
    """Return where the maps put the points of the tensor product of `nodes`, [elements, nodes^3, 3], x fastest."""
    one = np.stack([(1 - nodes) / 2, (1 + nodes) / 2])
    shape = np.einsum("ck,bj,ai->cbakji", one, one, one).reshape(8, -1)
    return np.asarray(np.einsum("mn,emd->end", shape, corners))
