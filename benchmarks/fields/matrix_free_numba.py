"""The operators of examples/matrix_free in Numba: the same algorithm and layout, with 32 elements in a batch.

Numba compiles for one degree and physics at a time, with its matrices and loop bounds as constants, as Dimorph does:
each loop over the lanes of a batch stands inside, so that LLVM makes vectors of it. It is faster with 32 and 64 lanes
than with 8: LLVM unrolls loops over few lanes before it looks for vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from matrix_free import Operator
from matrix_free.layout import batched, blocks, layout
from matrix_free.mesh import lobatto, trilinear
from numpy.polynomial import Polynomial, legendre


def _lagrange(points: np.ndarray, nodes: np.ndarray, slopes: bool) -> np.ndarray:
    columns = []
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        one = Polynomial.fromroots(others) / np.prod(node - others)
        columns.append((one.deriv() if slopes else one)(points))
    return np.array(columns).T


def _product(matrix: np.ndarray, sign: int, add: bool, lanes: int) -> Callable[..., None]:
    """Return a compiled product along some lines, in the even-odd form."""
    rows, columns = matrix.shape
    even, odd = (matrix + matrix[:, ::-1]) / 2, (matrix - matrix[:, ::-1]) / 2
    pairs, halves, half_rows = columns // 2, (columns + 1) // 2, (rows + 1) // 2

    @numba.njit(fastmath=True, boundscheck=False)
    def product(x, first, x_line, x_step, y, y_first, y_line, y_step, lines, s, d):
        for line in range(lines):
            at, to = first + line * x_line, y_first + line * y_line
            for j in range(pairs):
                for lane in range(lanes):
                    left, right = x[at + j * x_step, lane], x[at + (columns - 1 - j) * x_step, lane]
                    s[j, lane] = left + right
                    d[j, lane] = left - right
            if columns % 2:
                for lane in range(lanes):
                    s[pairs, lane] = x[at + pairs * x_step, lane]
            for i in range(half_rows):
                low, high = to + i * y_step, to + (rows - 1 - i) * y_step
                for lane in range(lanes):
                    e, o = 0.0, 0.0
                    for j in range(halves):
                        e += even[i, j] * s[j, lane]
                    for j in range(pairs):
                        o += odd[i, j] * d[j, lane]
                    first_half, second_half = e + o, (e - o if sign > 0 else o - e)
                    if 2 * i + 1 == rows:
                        first_half = e if sign > 0 else o
                    y[low, lane] = y[low, lane] + first_half if add else first_half
                    if 2 * i + 1 != rows:
                        y[high, lane] = y[high, lane] + second_half if add else second_half

    return product


def _line(axis: int, lanes: int) -> Callable[..., None]:
    """Return a compiled function for the coefficients of the map along a line, [27, lanes] (geometry.h)."""
    a, b, c = 1 << axis, 1 << (axis + 1) % 3, 1 << (axis + 2) % 3

    @numba.njit(fastmath=True, boundscheck=False, inline="always")
    def cross(x0, x1, x2, y0, y1, y2):
        return x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0

    @numba.njit(fastmath=True, boundscheck=False)
    def start(maps, t, u, line):
        for lane in range(lanes):
            g0 = maps[3 * a, lane] + maps[3 * (a + b), lane] * t + (maps[3 * (a + c), lane] + maps[21, lane] * t) * u
            g1 = maps[3 * a + 1, lane] + maps[3 * (a + b) + 1, lane] * t
            g1 += (maps[3 * (a + c) + 1, lane] + maps[22, lane] * t) * u
            g2 = maps[3 * a + 2, lane] + maps[3 * (a + b) + 2, lane] * t
            g2 += (maps[3 * (a + c) + 2, lane] + maps[23, lane] * t) * u
            b00 = maps[3 * b, lane] + maps[3 * (b + c), lane] * u
            b01 = maps[3 * b + 1, lane] + maps[3 * (b + c) + 1, lane] * u
            b02 = maps[3 * b + 2, lane] + maps[3 * (b + c) + 2, lane] * u
            b10 = maps[3 * (a + b), lane] + maps[21, lane] * u
            b11 = maps[3 * (a + b) + 1, lane] + maps[22, lane] * u
            b12 = maps[3 * (a + b) + 2, lane] + maps[23, lane] * u
            c00 = maps[3 * c, lane] + maps[3 * (b + c), lane] * t
            c01 = maps[3 * c + 1, lane] + maps[3 * (b + c) + 1, lane] * t
            c02 = maps[3 * c + 2, lane] + maps[3 * (b + c) + 2, lane] * t
            c10 = maps[3 * (a + c), lane] + maps[21, lane] * t
            c11 = maps[3 * (a + c) + 1, lane] + maps[22, lane] * t
            c12 = maps[3 * (a + c) + 2, lane] + maps[23, lane] * t
            r00, r01, r02 = cross(b00, b01, b02, c00, c01, c02)
            q00, q01, q02 = cross(b00, b01, b02, c10, c11, c12)
            p00, p01, p02 = cross(b10, b11, b12, c00, c01, c02)
            r10, r11, r12 = q00 + p00, q01 + p01, q02 + p02
            r20, r21, r22 = cross(b10, b11, b12, c10, c11, c12)
            line[0, lane], line[1, lane], line[2, lane] = r00, r01, r02
            line[3, lane], line[4, lane], line[5, lane] = r10, r11, r12
            line[6, lane], line[7, lane], line[8, lane] = r20, r21, r22
            line[9, lane], line[10, lane], line[11, lane] = cross(c00, c01, c02, g0, g1, g2)
            line[12, lane], line[13, lane], line[14, lane] = cross(c10, c11, c12, g0, g1, g2)
            line[15, lane], line[16, lane], line[17, lane] = cross(g0, g1, g2, b00, b01, b02)
            line[18, lane], line[19, lane], line[20, lane] = cross(g0, g1, g2, b10, b11, b12)
            line[21, lane] = g0 * r00 + g1 * r01 + g2 * r02
            line[22, lane] = g0 * r10 + g1 * r11 + g2 * r12
            line[23, lane] = g0 * r20 + g1 * r21 + g2 * r22

    return start


def _element(degree: int, physics: str, lanes: int) -> Callable[..., None]:
    """Return a compiled function that replaces the values at nodes, in the first (degree + 1)^3 of u's cube, by A u."""
    n, q, plane = degree + 1, degree + 2, (degree + 2) ** 2
    at, weight = legendre.leggauss(q)
    matrix, slope = (_lagrange(at, lobatto(degree), slopes) for slopes in (False, True))
    derive = _lagrange(at, at, True)
    values, back = _product(matrix, 1, False, lanes), _product(matrix.T, 1, False, lanes)
    slopes, slopes_back = _product(slope, -1, False, lanes), _product(slope.T, -1, True, lanes)
    derived, along_first, along_third = _product(derive, -1, False, lanes), _line(0, lanes), _line(2, lanes)
    derived_back, derived_add = (_product(derive.T, -1, add, lanes) for add in (False, True))

    @numba.njit(fastmath=True, boundscheck=False)
    def mass_points(maps, u, v, line, s, d):
        for j in range(q):
            for i in range(q):
                values(u, j * q + i, 1, plane, v, 0, 1, 1, 1, s, d)
                along_third(maps, at[i], at[j], line)
                for k in range(q):
                    t, w = at[k], weight[i] * weight[j] * weight[k]
                    for lane in range(lanes):
                        v[k, lane] *= w * (line[21, lane] + (line[22, lane] + line[23, lane] * t) * t)
                back(v, 0, 1, 1, u, j * q + i, 1, plane, 1, s, d)

    @numba.njit(fastmath=True, boundscheck=False)
    def diffusion_points(maps, u, v, w, first, line, s, d):
        slopes(u, 0, 1, plane, w, 0, 1, plane, plane, s, d)
        values(u, 0, 1, plane, u, 0, 1, plane, plane, s, d)
        for k in range(q):
            derived(u, k * plane, 1, q, v, k * plane, 1, q, q, s, d)
            for j in range(q):
                row = k * plane + j * q
                derived(u, row, 1, 1, first, 0, 1, 1, 1, s, d)
                along_first(maps, at[j], at[k], line)
                for i in range(q):
                    t, weighted = at[i], weight[i] * weight[j] * weight[k]
                    for lane in range(lanes):
                        a0 = line[0, lane] + (line[3, lane] + line[6, lane] * t) * t
                        a1 = line[1, lane] + (line[4, lane] + line[7, lane] * t) * t
                        a2 = line[2, lane] + (line[5, lane] + line[8, lane] * t) * t
                        b0, c0 = line[9, lane] + line[12, lane] * t, line[15, lane] + line[18, lane] * t
                        b1, c1 = line[10, lane] + line[13, lane] * t, line[16, lane] + line[19, lane] * t
                        b2, c2 = line[11, lane] + line[14, lane] * t, line[17, lane] + line[20, lane] * t
                        scale = weighted / (line[21, lane] + (line[22, lane] + line[23, lane] * t) * t)
                        f, g, h = first[i, lane], v[row + i, lane], w[row + i, lane]
                        x0 = (a0 * f + b0 * g + c0 * h) * scale
                        x1 = (a1 * f + b1 * g + c1 * h) * scale
                        x2 = (a2 * f + b2 * g + c2 * h) * scale
                        first[i, lane] = a0 * x0 + a1 * x1 + a2 * x2
                        v[row + i, lane] = b0 * x0 + b1 * x1 + b2 * x2
                        w[row + i, lane] = c0 * x0 + c1 * x1 + c2 * x2
                derived_back(first, 0, 1, 1, u, row, 1, 1, 1, s, d)
            derived_add(v, k * plane, 1, q, u, k * plane, 1, q, q, s, d)
        back(u, 0, 1, plane, u, 0, 1, plane, plane, s, d)
        slopes_back(w, 0, 1, plane, u, 0, 1, plane, plane, s, d)

    @numba.njit(fastmath=True, boundscheck=False)
    def element(maps, u, v, w, first, line, s, d):
        for k in range(n):
            values(u, k * plane, q, 1, u, k * plane, q, 1, n, s, d)
            values(u, k * plane, 1, q, u, k * plane, 1, q, q, s, d)
        if physics == "Diffusion":
            diffusion_points(maps, u, v, w, first, line, s, d)
        else:
            mass_points(maps, u, v, line, s, d)
        for k in range(n):
            back(u, k * plane, 1, q, u, k * plane, 1, q, q, s, d)
            back(u, k * plane, q, 1, u, k * plane, q, 1, n, s, d)

    return element


def with_numba(
    operator: Operator, physics: str, threads: int, lanes: int = 32
) -> tuple[Callable[[np.ndarray, np.ndarray], None], np.ndarray]:
    """Return a function that computes y = A x in float64, and the numbers of the unknowns, as `Operator.numbers`.

    Unknowns are numbered by the layout for these lanes, so differently from the operator's.
    """
    numba.set_num_threads(threads)
    mesh, degree = operator.mesh, operator.degree
    found = layout(mesh, degree, lanes, threads)
    maps = batched(trilinear(mesh.corners[found.order]), found, lanes)
    starts = batched(found.starts.astype(np.int32), found, lanes)
    n, q = degree + 1, degree + 2
    cube = q**3
    element = _element(degree, physics, lanes)
    node_block, offset = (np.array(part) for part in blocks(degree))
    node_at = np.array([(k * q + j) * q + i for k in range(n) for j in range(n) for i in range(n)])
    interior = 13 if degree > 1 else -1

    @numba.njit(fastmath=True, boundscheck=False)
    def chunk_of(row, maps, starts, chunks, x, y):
        u, v, w = np.empty((cube, lanes)), np.empty((cube, lanes)), np.empty((cube, lanes))
        first, line = np.empty((q, lanes)), np.empty((24, lanes))
        s, d = np.empty((q, lanes)), np.empty((q, lanes))
        y[chunks[row, 2] : chunks[row, 3]] = 0.0
        for done in range(0, chunks[row, 1], lanes):
            batch = chunks[row, 0] + done // lanes
            for node in range(n * n * n):
                for lane in range(lanes):
                    u[node_at[node], lane] = x[starts[batch, node_block[node], lane] + offset[node]]
            element(maps[batch], u, v, w, first, line, s, d)
            for node in range(n * n * n):
                for lane in range(min(lanes, chunks[row, 1] - done)):
                    to = starts[batch, node_block[node], lane] + offset[node]
                    value = u[node_at[node], lane]
                    y[to] = value if node_block[node] == interior else y[to] + value

    @numba.njit(fastmath=True, boundscheck=False, parallel=True)
    def apply(maps, starts, chunks, colours, x, y):
        y[chunks[-1, 3] :] = 0.0
        for colour in range(len(colours) - 1):
            for row in numba.prange(colours[colour], colours[colour + 1]):
                chunk_of(row, maps, starts, chunks, x, y)

    numbers = np.empty((mesh.elements, n**3), np.int64)
    numbers[found.order] = found.starts[:, node_block] + offset
    return lambda x, y: apply(maps, starts, found.chunks, found.colours, x, y), numbers
