"""Solve BP3 in a twisted, rounded cube and draw it, cut open: python picture.py [FILE]

Needs matplotlib and rich: pip install '.[picture]'
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from matrix_free import DIFFUSION, MASS, Mesh, Operator, conjugate_gradients, grid
from matrix_free.mesh import Floats, lobatto

SIZE, DEGREE = 10, 6
CELLS = 24  # parts of an element's edge in the picture
EYE, UP = np.array([0.62, -0.68, 0.46]), np.array([0.0, 0.0, 1.0])
COLOURS = LinearSegmentedColormap.from_list(
    "cut", ["#0b1d51", "#1f5fa8", "#5fb3d4", "#eceae4", "#f4b860", "#d9542b", "#6b0f1a"]
)
LIGHT = np.array([0.15, -0.8, 0.75])


def shape(points: Floats) -> Floats:
    """Map the unit cube to a rounded one that turns about its axis."""
    x, y, z = (2 * points - 1).T
    ball = np.stack(
        [a * np.sqrt(1 - b * b / 2 - c * c / 2 + b * b * c * c / 3) for a, b, c in ((x, y, z), (y, z, x), (z, x, y))]
    )
    x, y, z = 0.62 * ball + 0.38 * np.stack([x, y, z])
    angle = 0.95 * z
    return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, 1.15 * z], axis=1)


def source(at: Floats) -> Floats:
    x, y, z = at.T
    return np.asarray(np.sin(8 * x + 2 * np.sin(4 * z)) * np.cos(7 * y - 2 * z) + 0.9 * np.sin(9 * z + 5 * x * y))


class Watched(Operator):
    """An operator that tells a progress bar of each product."""

    def watch(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("conjugate gradients", total=None)

    def __call__(self, x: Any, out: Any = None) -> Any:
        self._progress.advance(self._task)
        return super().__call__(x, out)


def solve(progress: Progress) -> tuple[Operator, Floats]:
    mesh = grid((SIZE,) * 3, shape)
    task = progress.add_task("mesh and kernels", total=2)
    mass = Operator(mesh, DEGREE, MASS)
    progress.advance(task)
    diffusion = Watched(mesh, DEGREE, DIFFUSION)
    progress.advance(task)
    diffusion.watch(progress)
    found, _ = conjugate_gradients(diffusion, mass(source(mass.nodes())), 1e-8, boundary=False)
    return diffusion, found


def visible(mesh: Mesh) -> list[tuple[int, int, int]]:
    """Return (element, direction, end) of the faces between what is left and what is cut away, or outside."""
    k, j, i = np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij")
    half = SIZE // 2
    left = np.pad(~((i >= half) & (j < half) & (k >= half)), 1)
    faces = []
    for direction in range(3):
        for end in (-1, 1):
            beside = np.roll(left, -end, axis=2 - direction)
            open_faces = (left & ~beside)[1:-1, 1:-1, 1:-1]
            faces += [(int(element), direction, end) for element in np.flatnonzero(open_faces)]
    return faces


def quadrilaterals(operator: Operator, found: Floats, progress: Progress) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return corners [quadrilaterals, 4, 3] of the visible faces, the solution there, and which are an element's edge."""
    nodes = lobatto(DEGREE)
    edges = np.concatenate([[-1], np.linspace(-0.968, 0.968, CELLS + 1), [1]])
    middles = (edges[1:] + edges[:-1]) / 2
    lagrange = [Polynomial.fromroots(np.delete(nodes, i)) for i in range(DEGREE + 1)]
    at = np.array([one(middles) / one(node) for one, node in zip(lagrange, nodes, strict=True)])
    numbers = operator.numbers().reshape(-1, *(DEGREE + 1,) * 3)
    corners, values, is_edge = [], [], []
    border = np.zeros((CELLS + 2,) * 2, bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    for element, direction, end in progress.track(visible(operator.mesh), description="faces"):
        of_face = found[numbers[element]].take(0 if end < 0 else DEGREE, axis=2 - direction)
        values.append(np.einsum("qp,qj,pi->ji", of_face, at, at).ravel())
        r = np.stack(np.meshgrid(edges, edges, indexing="ij")[::-1], axis=-1)
        r = np.insert(r, direction, end, axis=-1)
        x = in_space(operator.mesh.corners[element], r)
        quad = np.stack([x[:-1, :-1], x[:-1, 1:], x[1:, 1:], x[1:, :-1]], axis=2).reshape(-1, 4, 3)
        corners.append(quad if (end > 0) != (direction == 1) else quad[:, ::-1])
        is_edge.append(border.ravel())
    return np.concatenate(corners), np.concatenate(values), np.concatenate(is_edge)


def in_space(corners: Floats, r: Floats) -> Floats:
    """Return the images of points r, [..., 3], of an element's cube."""
    weights = [np.prod([(1 + (1 if m >> d & 1 else -1) * r[..., d]) / 2 for d in range(3)], axis=0) for m in range(8)]
    return np.asarray(np.einsum("m...,mx->...x", np.array(weights), corners))


def draw(corners: Floats, values: Floats, is_edge: NDArray[np.bool_], file: Path) -> None:
    eye = EYE / np.linalg.norm(EYE)
    right = np.cross(UP, eye) / np.linalg.norm(np.cross(UP, eye))
    axes = np.stack([right, np.cross(eye, right)], axis=1)
    normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    facing = normal @ eye > 0
    corners, values, is_edge, normal = corners[facing], values[facing], is_edge[facing], normal[facing]
    order = np.argsort(corners.mean(axis=1) @ eye)
    light = LIGHT / np.linalg.norm(LIGHT)
    half = (light + eye) / np.linalg.norm(light + eye)
    shade = 0.6 + 0.45 * np.clip(normal @ light, 0, 1)
    shine = 0.22 * np.clip(normal @ half, 0, 1) ** 24
    scale = np.tanh(1.6 * values / np.abs(values).max()) / np.tanh(1.6)
    colours = COLOURS(0.5 + scale / 2)[:, :3]
    colours[is_edge] = 0.62 * colours[is_edge]
    colours = np.clip(colours * shade[:, None] + shine[:, None], 0, 1)
    figure = plt.figure(figsize=(9, 9), facecolor="#10141c")
    plane = figure.add_axes((0, 0, 1, 1))
    flat = (corners @ axes)[order]
    of_face = {"facecolors": colours[order], "edgecolors": colours[order], "linewidths": 0.3, "antialiased": False}
    plane.add_collection(PolyCollection(list(flat), **of_face))
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    middle, span = (low + high) / 2, (high - low).max() * 0.54
    plane.set(xlim=(middle[0] - span, middle[0] + span), ylim=(middle[1] - span, middle[1] + span), aspect="equal")
    plane.axis("off")
    file.parent.mkdir(parents=True, exist_ok=True)
    # Drawn three times as large without smoothing, which would show seams; then made smaller.
    with BytesIO() as large:
        figure.savefig(large, dpi=300, facecolor=figure.get_facecolor())
        small = Image.open(large).convert("RGB").resize((700, 700), Image.Resampling.LANCZOS)
    small.save(file, optimize=True)


def main() -> None:
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "matrix_free.png")
    with Progress() as progress:
        operator, found = solve(progress)
        corners, values, is_edge = quadrilaterals(operator, found, progress)
        draw(corners, values, is_edge, file)
    print(f"{operator.unknowns} unknowns of degree {DEGREE}: {file}")


if __name__ == "__main__":
    main()
