"""The flow in a square cavity below a lid that slides along it, and published velocities on its centre lines.

Ghia, Ghia and Shin 1982, Journal of Computational Physics 48, 387, tables I and II, on 129 x 129 points, without the
ends, which are given. In table II, the value at Reynolds number 400 and x = 0.9063 does not lie on a smooth curve with
its neighbours (-0.23827 between -0.22847 and -0.44993); it is left out as a misprint. At 1000, Botella and Peyret 1998,
Computers and Fluids 27, 421, computed the same points to 6 digits with a spectral method: Ghia's differ from theirs by
up to 0.019.
"""

from __future__ import annotations

from dataclasses import dataclass

import dimorph as dm
import numpy as np

from lattice_boltzmann import TRT, Array, Flow, Kind


@dataclass(frozen=True)
class Profiles:
    """Velocities in units of the lid's: u along x at heights y on the vertical centre line, v along y at x on the other."""

    y: Array
    u: Array
    x: Array
    v: Array

    def difference(self, other: Profiles) -> float:
        """Return the largest difference of a velocity from that at the points of the other profiles."""
        u, v = _between(self.y, self.u, other.y), _between(self.x, self.v, other.x)
        return float(max(np.nanmax(np.abs(u - other.u)), np.nanmax(np.abs(v - other.v))))


_Y = np.array(
    [
        0.9766,
        0.9688,
        0.9609,
        0.9531,
        0.8516,
        0.7344,
        0.6172,
        0.5,
        0.4531,
        0.2813,
        0.1719,
        0.1016,
        0.0703,
        0.0625,
        0.0547,
    ]
)
_X = np.array(
    [
        0.9688,
        0.9609,
        0.9531,
        0.9453,
        0.9063,
        0.8594,
        0.8047,
        0.5,
        0.2344,
        0.2266,
        0.1563,
        0.0938,
        0.0781,
        0.0703,
        0.0625,
    ]
)


def _published(u: list[float], v: list[float]) -> Profiles:
    return Profiles(_Y, np.array(u), _X, np.array(v))


# fmt: off
GHIA = {
    100: _published(
        [0.84123, 0.78871, 0.73722, 0.68717, 0.23151, 0.00332, -0.13641, -0.20581,
         -0.21090, -0.15662, -0.10150, -0.06434, -0.04775, -0.04192, -0.03717],
        [-0.05906, -0.07391, -0.08864, -0.10313, -0.16914, -0.22445, -0.24533, 0.05454,
         0.17527, 0.17507, 0.16077, 0.12317, 0.10890, 0.10091, 0.09233],
    ),
    400: _published(
        [0.75837, 0.68439, 0.61756, 0.55892, 0.29093, 0.16256, 0.02135, -0.11477,
         -0.17119, -0.32726, -0.24299, -0.14612, -0.10338, -0.09266, -0.08186],
        [-0.12146, -0.15663, -0.19254, -0.22847, np.nan, -0.44993, -0.38598, 0.05186,
         0.30174, 0.30203, 0.28124, 0.22965, 0.20920, 0.19713, 0.18360],
    ),
    1000: _published(
        [0.65928, 0.57492, 0.51117, 0.46604, 0.33304, 0.18719, 0.05702, -0.06080,
         -0.10648, -0.27805, -0.38289, -0.29730, -0.22220, -0.20196, -0.18109],
        [-0.21388, -0.27669, -0.33714, -0.39188, -0.51550, -0.42665, -0.31966, 0.02526,
         0.32235, 0.33075, 0.37095, 0.32627, 0.30353, 0.29012, 0.27485],
    ),
}
BOTELLA = _published(
    [0.6644227, 0.5808359, 0.5169277, 0.4723329, 0.3372212, 0.1886747, 0.0570178, -0.0620561,
     -0.1081999, -0.2803696, -0.3885691, -0.3004561, -0.2228955, -0.2023300, -0.1812881],
    [-0.2279225, -0.2936869, -0.3553213, -0.4103754, -0.5264392, -0.4264545, -0.3202137, 0.0257995,
     0.3253592, 0.3339924, 0.3769189, 0.3330442, 0.3099097, 0.2962703, 0.2807056],
)
# fmt: on


def cavity(
    cells: int, reynolds: float, *, speed: float = 0.1, dtype: str = "float32", collision: dm.BoundVariant | None = None
) -> Flow:
    """Return a fluid at rest below a lid.

    Args:
        cells: of a side, with a wall on each side; a multiple of 16.
        reynolds: speed of the lid times side over viscosity.
        speed: of the lid, in cells a step; errors of compressibility grow with its square.
        collision: default: TRT, whose walls are exactly half-way.
    """
    kinds = np.full((cells, cells), Kind.WALL)
    kinds[1:-1, 1:-1] = Kind.FLUID
    kinds[-1, 1:-1] = Kind.MOVING
    model = collision or TRT(speed * (cells - 2) / reynolds, 3 / 16)
    return Flow((cells, cells), model, kinds=kinds, boundary=(speed, 0.0), dtype=dtype)


def profiles(flow: Flow, speed: float = 0.1) -> Profiles:
    """Return the velocities on the centre lines of a cavity's flow, from wall to wall."""
    u = flow.velocity()[1:-1, 1:-1] / speed
    side = len(u)
    points = np.array([0.0, *(np.arange(side) + 0.5) / side, 1.0])
    middle = slice(side // 2 - 1, side // 2 + 1)  # two cells, between which the centre line runs
    across, along = u[:, middle, 0].mean(1), u[middle, :, 1].mean(0)
    return Profiles(points, np.array([0.0, *across, 1.0]), points, np.array([0.0, *along, 0.0]))


def _between(grid: Array, values: Array, points: Array) -> Array:
    """Return the cubic through the nearest four values, at each point."""
    starts = np.clip(np.searchsorted(grid, points) - 2, 0, len(grid) - 4)
    fits = [np.polyfit(grid[i : i + 4] - at, values[i : i + 4], 3)[-1] for i, at in zip(starts, points, strict=True)]
    return np.array(fits)
