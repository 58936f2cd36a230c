"""The peer of `lattice_boltzmann.py` in Numba: a step of BGK on D2Q9 or D3Q19, periodic, with walls at rest.

Arithmetic, layout and precision are those of the kernel: populations less their weights, [z, y, directions, x], two
grids, pull. The order of the cells is not: this is one step in a pass over memory, where the kernel advances a tile by
four steps while it is in the cache (temporal blocking), and so moves a quarter of the bytes. The source is written out
for each lattice, as one does by hand, so that directions are constants and nothing is indexed twice: python
benchmarks/fields/lattice_boltzmann_numba.py 19 prints it. Tried, and slower on D3Q19: loops over directions (10 times),
the layout [directions, z, y, x] (2.5 times), sums over a row and then a loop for each direction, which Numba vectorises
(1.7 times), a block of cells in a local array (2.3 times).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, prange

NAMES = ("jx", "jy", "jz")


def source(directions: Any) -> str:
    """Return the source of a step; directions: [count, 3] along x, the middle and the outer axis."""
    return "\n".join(_lines([tuple(map(int, one)) for one in directions]))


def _lines(c: list[tuple[int, ...]]) -> Iterator[str]:
    yield "def step(source, target, kinds, w0, w1, w2, omega, half, three):"
    yield "    planes, rows, _, width = source.shape"
    yield "    for line in prange(planes * rows):"
    yield "        z, y = line // rows, line % rows"
    yield "        zp, zn = (z - 1 if z > 0 else planes - 1), (z + 1 if z + 1 < planes else 0)"
    yield "        yp, yn = (y - 1 if y > 0 else rows - 1), (y + 1 if y + 1 < rows else 0)"
    for i, (_, cy, cz) in enumerate(c):
        at = {1: "p", 0: "", -1: "n"}
        yield f"        from{i}, to{i} = source[z{at[cz]}, y{at[cy]}, {i}], target[z, y, {i}]"
    yield "        kind = kinds[z, y]"
    yield "        for x in range(1, width - 1):"
    yield from _cell(c, {1: "x - 1", 0: "x", -1: "x + 1"})
    yield "        for x in (0, width - 1):"
    yield "            xp, xn = (x - 1 if x > 0 else width - 1), (x + 1 if x + 1 < width else 0)"
    yield from _cell(c, {1: "xp", 0: "x", -1: "xn"})


def _cell(c: list[tuple[int, ...]], at: dict[int, str]) -> Iterator[str]:
    indent = " " * 12
    for i, one in enumerate(c):
        yield f"{indent}f{i} = from{i}[{at[one[0]]}]"
    yield f"{indent}rho = {' + '.join(f'f{i}' for i in range(len(c)))}"
    for axis, name in enumerate(NAMES):
        terms = " ".join(f"{'+' if one[axis] > 0 else '-'} f{i}" for i, one in enumerate(c) if one[axis])
        yield f"{indent}{name} = three * ({terms or 'f0 - f0'})"
    yield f"{indent}scale = half / (1 + rho)"
    yield f"{indent}base = rho - (jx * jx + jy * jy + jz * jz) * scale / three"
    yield f"{indent}wall = kind[x] != 0"
    yield f"{indent}to0[x] = f0 + omega * (w0 * base - f0)"
    for i in range(1, len(c), 2):
        along = " ".join(f"{'+' if c[i][axis] > 0 else '-'} {name}" for axis, name in enumerate(NAMES) if c[i][axis])
        weight = f"w{sum(map(abs, c[i]))}"
        yield f"{indent}along = {along}"
        yield f"{indent}even, odd = {weight} * (base + scale * along * along), {weight} * along"
        yield f"{indent}to{i}[x] = f{i + 1} if wall else f{i} + omega * (even + odd - f{i})"
        yield f"{indent}to{i + 1}[x] = f{i} if wall else f{i + 1} + omega * (even - odd - f{i + 1})"


def make(directions: Any, weights: Any, dtype: str, omega: float) -> Any:
    """Return a function of (source, target, kinds) that advances by a step."""
    names: dict[str, Any] = {"prange": prange}
    exec(source(directions), names)
    step = njit(parallel=True, fastmath=True)(names["step"])
    number = np.dtype(dtype).type
    moves = np.abs(directions).sum(1)
    rest = [number(weights[moves == count][0]) for count in range(3)]
    return lambda *arrays: step(*arrays, *rest, number(omega), number(0.5), number(3))


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    from benchmarks.fields.lattice_boltzmann import directions_of_arrays

    print(source(directions_of_arrays(int(sys.argv[1]))))
